"""What a method costs, in the table of a grid."""

from __future__ import annotations

import pytest

from peterrec.report.grid.cells import CellKey, CellResult, Cost
from peterrec.report.grid.tables import COSTS, _cost
from report.grid.grid_cells import cell, users_table

EPOCHS = [head for head, *_ in COSTS].index("epochs")


def trained(best_epoch: int | None, epochs: int) -> CellResult:
    """A cell of so many epochs, or of a baseline that has none."""
    key, table = CellKey("demo", "gender", "patch", 0), users_table(["u0"], {"accuracy": [1.0]})
    rows = [{"epoch": epoch, "seconds": 2.0} for epoch in range(epochs)]
    return cell(key, table, curve=rows, best_epoch=best_epoch, cost=Cost(seconds=9.0))


@pytest.mark.parametrize(
    ("runs", "epochs", "best"),
    [
        ([(2, 5)], "5", "3"),
        ([(-1, 4)], "4", "0"),
        ([(-1, 0)], "0", "0"),  # a cross-validation chose the start
        ([(-1, 0), (1, 2)], "1", "1"),
        ([(None, 0)], None, None),
    ],
)
def test_epochs_and_those_that_were_kept(
    runs: list[tuple[int | None, int]], epochs: str | None, best: str | None
) -> None:
    cost = _cost([trained(*run) for run in runs])[EPOCHS]
    assert (cost and cost.value, cost and cost.limits) == (epochs, best)
