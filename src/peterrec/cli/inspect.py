"""`peterrec inspect`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

LONG = 12  # longer lists and mappings are summed up in the table; --json has all of them


def command(
    path: Annotated[str, typer.Argument(help="Folder of a corpus, a backbone, a bundle or a benchmark.")],
    as_json: Annotated[bool, typer.Option("--json", help="All values as JSON.")] = False,
) -> None:
    """Say what an artifact is: sizes, fingerprints, configuration, metrics, trainable share."""
    from peterrec.artifacts.inspection import inspect

    description = inspect(path)
    if as_json:
        print(json.dumps(description, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, text in _rows(description):
        table.add_row(key, text)
    Console(highlight=False, markup=False).print(table)


def _rows(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if (
            isinstance(value, dict)
            and len(value) > LONG
            and all(not isinstance(v, dict | list) for v in value.values())
        ):
            rows.append((name, f"{len(value)} entries"))
        elif isinstance(value, dict):
            rows += _rows(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows += [(f"{name}[{i}]", _text(entry)) for i, entry in enumerate(value[:LONG])]
        elif isinstance(value, list) and len(value) > LONG:
            rows.append((name, f"{len(value)} numbers"))
        elif key == "best_epoch" and isinstance(value, int):  # files count from 0, people from 1
            rows.append((name, f"{value + 1}" if value >= 0 else "0 (no epoch was better than the start)"))
        else:
            rows.append((name, _text(value)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(_text(part) for part in value) if isinstance(value, list) else str(value)
