"""Objects as people see them: one line at a prompt, a small table (and a learning curve) in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import polars as pl

WIDTH, HEIGHT = 180, 40
ROWS, COLUMNS = 10, 8


class Tabular:
    """Base of what can be had as a table of any library; a notebook shows its first rows."""

    def to_arrow(self) -> pa.Table:
        """Return it as a table.

        Returns:
            The rows; the class says which columns.
        """
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """Return it as a DataFrame of pandas, which must be installed.

        Returns:
            A `pandas.DataFrame` with the columns of `to_arrow`.
        """
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Return it as a DataFrame of Polars, which must be installed.

        Returns:
            The columns of `to_arrow`.
        """
        import polars as pl  # noqa: PLC0415 - not needed otherwise

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _repr_html_(self) -> str:
        table = self.to_arrow()
        names = table.column_names[:COLUMNS]
        rows = [[row[name] for name in names] for row in table.slice(0, ROWS).to_pylist()]
        note = f"{len(table):,} rows, {table.num_columns:,} columns: .to_pandas(), .to_polars(), .to_arrow()"
        return table_html(names, rows, note)


def shown(value: Any) -> str:
    """Return a value of a table in few characters."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value[:4])) + (", ..." if len(value) > 4 else "")
    return str(value)


def facts_html(title: str, facts: Mapping[str, Any], curve: Sequence[float] = ()) -> str:
    """Return facts as a table of two columns, with a learning curve below.

    Args:
        title: what they are about.
        facts: by name.
        curve: a value for each epoch.
    """
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(shown(facts[name]))}</td></tr>" for name in facts)
    return f"<p><b>{html.escape(title)}</b></p><table>{rows}</table>{_curve(curve)}"


def table_html(names: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> str:
    """Return rows as a table, with a note below."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(shown(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{html.escape(note)}</p>"


def _curve(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{place * WIDTH / (len(values) - 1):.1f},{HEIGHT - (value - low) * HEIGHT / span:.1f}"
        for place, value in enumerate(values)
    )
    label = f"{shown(values[0])} to {shown(values[-1])} in {len(values)} epochs"
    return (
        f'<svg width="{WIDTH + 4}" height="{HEIGHT + 4}" viewBox="-2 -2 {WIDTH + 4} {HEIGHT + 4}" role="img" '
        f'aria-label="{label}"><polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5">'
        "</polyline></svg>"  # Markdown loses an element that closes itself
        f"<p>{label}</p>"
    )
