"""Fixtures of run records that several folders share."""

from report.run_records import make_curve, make_evaluation, make_record, record

__all__ = ["make_curve", "make_evaluation", "make_record", "record"]
