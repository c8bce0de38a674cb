"""Two sentences that sum up a run."""

from __future__ import annotations

from collections.abc import Sequence

from peterrec.report.formatting import compact, count, join, percent, plural
from peterrec.report.run.record import RunRecord, TaskRecord
from peterrec.report.run.tables import beats_all, strategies


def summary(record: RunRecord) -> list[str]:
    """Return one sentence about pre-training and one about the tasks, with the numbers of the record."""
    data, backbone = record.data, record.backbone
    hit_rate = backbone.curve.best.get("hr@10")
    hits = f"; for {percent(hit_rate)} of held-out users, their last item is among its first ten" if hit_rate else ""
    aim = "predict what comes next" if backbone.kind == "causal" else "fill in what is hidden"
    pretraining = (
        f"A backbone of {compact(backbone.parameters)} parameters learned in "
        f"{plural(len(backbone.curve.rows), 'epoch')} to {aim}, from {count(data.events)} events of "
        f"{count(data.users)} users over {count(data.items)} items{hits}."
    )
    return [pretraining, _adaptation(record.tasks)]


def _adaptation(tasks: Sequence[TaskRecord]) -> str:
    if not tasks:
        return "No task was prepared, so nothing was adapted or evaluated."
    names = strategies(tasks)
    start = f"Then it was frozen and adapted to {plural(len(tasks), 'task')}"
    if not names:
        return f"{start}, without a model to evaluate."
    main = "patch" if "patch" in names else names[0]
    start += _patch_shares(tasks, main)
    verdicts = {task.name: beats_all(task.evaluation, main) for task in tasks}
    won = [name for name, verdict in verdicts.items() if verdict]
    lost = [name for name, verdict in verdicts.items() if verdict is False]
    if not won and not lost:
        return f"{start}; there was no baseline to compare with."
    unjudged = len(tasks) - len(won) - len(lost)
    without_baseline = f" ({plural(unjudged, 'task')} without a baseline)" if unjudged else ""
    if not won:
        split = f"on none of them ({join(lost)})" if len(lost) > 1 else f"on none ({lost[0]})"
    elif lost:
        split = f"on {len(won)} of {len(won) + len(lost)}, {join(won)}, and not on {join(lost)}"
    else:
        split = f"on {join(won)}"
    return f"{start}: the strategy {main} is clearly better than every baseline {split}{without_baseline}."


def _patch_shares(tasks: Sequence[TaskRecord], strategy: str) -> str:
    bundles = [bundle for task in tasks if (bundle := task.bundle(strategy)) is not None]
    shares = sorted(bundle.share(bundle.patch_params) for bundle in bundles if bundle.patch_params)
    if not shares:
        return ""
    low, high = percent(shares[0]), percent(shares[-1])
    return f" with patches of {low if low == high else f'{low} to {high}'} of all parameters, plus a head"
