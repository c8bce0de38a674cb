"""Preparation of a corpus from events of any form: `preparation` has the verb; one module for each step."""

from peterrec.data.prepare.event_histories import read_event_histories
from peterrec.data.prepare.preparation import input_files, prepare

__all__ = ["input_files", "prepare", "read_event_histories"]
