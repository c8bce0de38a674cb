"""The result of `drift`: which quantities are not what they were, and the metric by period where labels arrived."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from peterrec.display import Tabular
from peterrec.evaluation.stability import Stability


@dataclass(frozen=True)
class PeriodMetric:
    """A metric of the labelled users of one period, with its interval over users.

    Attributes:
        period: as the table of labels calls it.
        metric: its name.
        users: labelled users.
        value: of the metric.
        low: limit of the interval.
        high: the other limit.
    """

    period: str
    metric: str
    users: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, repr=False)
class DriftReport(Tabular):
    """Users of now beside those of a reference.

    Attributes:
        task: of the bundle.
        users: of now.
        events: of these users.
        unknown_share: share of the events whose items the catalogue does not have.
        users_without_events: users of whom no event is known.
        reference_users: users of the reference.
        reference_source: what the reference is: `valid users`, or the events that were given.
        level: chance of any false alarm, of all quantities together.
        quantities: each beside the reference.
        not_judged: quantities that the reference does not have.
        periods: metrics by period, where labels were given.
    """

    task: str
    users: int
    events: int
    unknown_share: float
    users_without_events: int
    reference_users: int
    reference_source: str
    level: float
    quantities: tuple[Stability, ...]
    not_judged: tuple[str, ...] = ()
    periods: tuple[PeriodMetric, ...] = ()

    def __repr__(self) -> str:
        return f"DriftReport({self.task!r}: {self.users:,} users; shifted: {', '.join(self.shifted) or 'nothing'})"

    @property
    def shifted(self) -> list[str]:
        """Names of the quantities that are not what they were."""
        return [quantity.name for quantity in self.quantities if quantity.shifted]

    def to_arrow(self) -> pa.Table:
        """Return the quantities as a table.

        Returns:
            A row for each: quantity, index (population stability index), size, p_value, adjusted, shifted, users.
        """
        names = ("name", "index", "size", "p_value", "adjusted", "shifted", "users")
        columns = {name: [getattr(quantity, name) for quantity in self.quantities] for name in names}
        return pa.table({"quantity": columns.pop("name")} | columns)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values.

        Returns:
            A tree that `json.dumps` takes.
        """
        return asdict(self) | {"shifted": self.shifted}
