"""What a run did and found, in two sentences."""

from __future__ import annotations

from peterrec.report.formatting import compact, count, join, percent, plural
from peterrec.report.run.record import RunRecord, TaskRecord
from peterrec.report.run.tables import beats_all, strategies


def summary(record: RunRecord) -> list[str]:
    """Return one sentence about pre-training and one about the tasks, with the numbers of the record."""
    return [_pretraining(record), _tasks(record)]


def _pretraining(record: RunRecord) -> str:
    data, backbone = record.data, record.backbone
    curve = backbone.curve
    found = curve.best.get("hr@10")
    epochs = plural(len(curve.rows), "epoch")
    told = f"; for {percent(found)} of held-out users, their last item is among its first ten" if found else ""
    aim = "predict what comes next" if backbone.kind == "causal" else "fill in what is hidden"
    return (
        f"A backbone of {compact(backbone.parameters)} parameters learned in {epochs} to {aim}, from "
        f"{count(data.events)} events of {count(data.users)} users over {count(data.items)} items{told}."
    )


def _tasks(record: RunRecord) -> str:
    tasks = record.tasks
    if not tasks:
        return "No task was prepared, so nothing was adapted or evaluated."
    names = strategies(tasks)
    start = f"Then it was frozen and adapted to {plural(len(tasks), 'task')}"
    if not names:
        return f"{start}, without a model to evaluate."
    main = "patch" if "patch" in names else names[0]
    verdicts = {task.name: beats_all(task.evaluation, main) for task in tasks}
    if all(verdict is None for verdict in verdicts.values()):
        return f"{start}{_share(tasks, main)}; there was no baseline to compare with."
    won = [name for name, verdict in verdicts.items() if verdict]
    lost = [name for name, verdict in verdicts.items() if verdict is False]
    found = f"the strategy {main} is clearly better than every baseline {_split(won, lost)}"
    unjudged = len(tasks) - len(won) - len(lost)
    rest = f" ({plural(unjudged, 'task')} without a baseline)" if unjudged else ""
    return f"{start}{_share(tasks, main)}: {found}{rest}."


def _split(won: list[str], lost: list[str]) -> str:
    if not won:
        return f"on none of them ({join(lost)})" if len(lost) > 1 else f"on none ({lost[0]})"
    if not lost:
        return f"on {join(won)}"
    return f"on {len(won)} of {len(won) + len(lost)}, {join(won)}, and not on {join(lost)}"


def _share(tasks: list[TaskRecord], strategy: str) -> str:
    bundles = [bundle for task in tasks if (bundle := task.bundle(strategy)) is not None]
    shares = sorted(bundle.patch_share for bundle in bundles if bundle.patch_params)
    if not shares:
        return ""
    low, high = percent(shares[0]), percent(shares[-1])
    return f" with patches of {low if low == high else f'{low} to {high}'} of all parameters, plus a head"
