"""Fixtures of tests of searches: the tiny corpus and backbone of tests of trainings."""

from training.conftest import backbone, corpus, one_thread

__all__ = ["backbone", "corpus", "one_thread"]
