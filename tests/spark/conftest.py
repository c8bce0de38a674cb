"""Spark for the tests of this folder, all of which need it."""

from __future__ import annotations

from spark_session import spark

__all__ = ["spark"]
