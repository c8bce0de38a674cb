"""Tasks named in few words, as the command line and the keywords of `prepare` do."""

from __future__ import annotations

import unicodedata
from typing import Any

from peterrec.config.base import NAME_BYTES, in_names


def classification_task(path: str, column: str, user: str, name: str | None = None) -> dict[str, Any]:
    """Return the settings of a task to predict a column of a table of users.

    Args:
        path: of the table.
        column: to predict.
        user: column of the table with the user id.
        name: of the task; None: after the column.
    """
    return _table_task("classification", path, column, user, name)


def regression_task(path: str, column: str, user: str, name: str | None = None) -> dict[str, Any]:
    """Return the settings of a task to predict a column of numbers; arguments as for `classification_task`."""
    return _table_task("regression", path, column, user, name)


def multilabel_task(path: str, column: str, user: str, name: str | None = None) -> dict[str, Any]:
    """Return the settings of a task to predict a column of labels; arguments as for `classification_task`."""
    return _table_task("multilabel", path, column, user, name)


def _table_task(kind: str, path: str, column: str, user: str, name: str | None) -> dict[str, Any]:
    labels = {"path": path, "user": user, "label": column}
    return {"kind": kind, "name": name or task_name(column), "labels": labels}


def ranking_task(domain: str, name: str | None = None) -> dict[str, Any]:
    """Return the settings of a task to recommend items of a domain; `name` as for `classification_task`."""
    return {"kind": "ranking", "name": name or task_name(domain), "domains": [domain]}


def task_name(text: str) -> str:
    """Return a name for a task, which is also a folder, out of any text."""
    text = "".join(letter if in_names(letter) else " " for letter in unicodedata.normalize("NFC", text))
    name = "-".join(text.split()).encode()[:NAME_BYTES].decode(errors="ignore")
    while name and not name[0].isalnum():
        name = name[1:]
    return name.rstrip("-.") or "task"
