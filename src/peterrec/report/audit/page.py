"""The page of an audit: one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from peterrec.evaluation.audit_results import AuditResult, ProbeResult
from peterrec.evaluation.results import MetricEstimate
from peterrec.report.formatting import digits_for, limits, metric, number, sentence_case
from peterrec.report.page import render_template
from peterrec.report.tables import Cell, Mark, Row, Table
from peterrec.storage import write_file

METRICS = (("auc", "AUC"), ("accuracy", "accuracy"), ("log_loss", "log-loss"))
HINTS = {"auc": "0.5: a guess", "accuracy": "share of users", "log_loss": "nats, lower: knows more"}
SOURCES = {
    "nothing": "nothing", "backbone": "vectors of the backbone", "readout": "what its head reads",
    "answers": "what it answers", "bag of items": "the items people had",
}  # fmt: skip
WORDS = {"better": "can be read", "no clear difference": "not clearly", "worse": "guessed wrong"}


def write_audit_page(result: AuditResult, path: Path) -> None:
    """Write the page of an audit; the same result gives the same bytes.

    Args:
        result: of the audit.
        path: the HTML file; its folder exists.

    Raises:
        StorageError: the disk is full or the place is not writable.
    """
    context = {
        "result": result,
        "summary": summary(result),
        "probes": probe_table(result),
        "differences": difference_tables(result),
    }
    write_file(path, render_template("audit.html", context).encode())


def summary(result: AuditResult) -> list[str]:
    """Return in sentences what can be read, from the strongest source, and what that is beside floor and ceiling."""
    probes = [row for row in result.probes if row.family == "probe"]
    strongest = max(probes, key=lambda row: row.values["auc"].value)
    ceiling = next((row for row in result.probes if row.family == "ceiling"), None)
    readable = [row for row in probes if row.verdict == "better"]
    first = (
        f"{sentence_case(result.attribute)} can be read from {len(readable)} of {len(probes)} sources, best from "
        f"{source_of(strongest)} (AUC {strongest.values['auc'].value:.3f})."
        if readable
        else f"No probe guessed {result.attribute} clearly better than a guess; that is no proof that nobody can."
    )
    if ceiling is None:
        return [first]
    return [first, f"A regression on the items themselves reaches AUC {ceiling.values['auc'].value:.3f}."]


def source_of(row: ProbeResult) -> str:
    """Return in words what a probe read, and how."""
    owner = f"{row.bundle}: " if row.bundle is not None else ""
    return f"{owner}{SOURCES[row.reads]} ({row.probe})"


def probe_table(result: AuditResult) -> Table:
    """Return the table of what probes guess, by what they read."""
    groups: dict[str, list[Row]] = {}
    digits = {metric: digits_for([row.values[metric].value for row in result.probes]) for metric, _ in METRICS}
    for row in result.probes:
        cells = [_cell(row.values[metric], digits[metric]) for metric, _ in METRICS]
        if row.verdict is not None:
            cells[0].marks.append(Mark.from_verdict(row.verdict, WORDS[row.verdict]))
        title = (
            f"bundle {row.bundle}" if row.bundle is not None else "backbone" if row.reads == "backbone" else row.family
        )
        quiet = row.family != "probe"
        groups.setdefault(title, []).append(Row(SOURCES[row.reads], cells, note=row.probe, quiet=quiet))
    columns = [(name, HINTS[metric]) for metric, name in METRICS]
    caption = f"How well {result.attribute} of {result.users:,} users is guessed by probes fitted on other users"
    return Table(caption, "what is read", columns, list(groups.items()))


def difference_tables(result: AuditResult) -> list[Table]:
    """Return a table of each bundle: its metrics by group, and the largest difference."""
    tables = []
    for bundle in dict.fromkeys(difference.bundle for difference in result.differences):
        chosen = [difference for difference in result.differences if difference.bundle == bundle]
        columns = [(name, f"{users:,} users") for name, users in chosen[0].users.items()]
        rows = []
        for difference in chosen:
            digits = digits_for(difference.groups.values())
            cells = [Cell(number(value, digits)) for value in difference.groups.values()]
            label = difference.metric if difference.metric.startswith("answered ") else metric(difference.metric)
            rows.append(Row(label, [*cells, _cell(difference.difference, digits)]))
        caption = f"{bundle} (task {chosen[0].task}): means of its test users by {result.attribute}"
        tables.append(Table(caption, "metric", [*columns, ("largest difference", "of two groups")], [("", rows)]))
    return tables


def _cell(estimate: MetricEstimate, digits: int) -> Cell:
    between = "no interval" if estimate.low is None else limits(estimate.low, estimate.high, digits)
    return Cell(number(estimate.value, digits), between)
