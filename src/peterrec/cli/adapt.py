"""`peterrec adapt`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from peterrec.cli.common import (
    ConfigOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SetOption,
    logged_remarks,
    say,
    say_warnings,
)
from peterrec.errors import ConfigError


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`, or hf://...")],
    corpus: Annotated[str, typer.Argument(help="Folder written by `peterrec prepare`, with the task in it.")],
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Name of the task; several if joint.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the bundle to write (joint: OUT/TASK).")],
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", help="patch, head, last-sublayer, last1, last2, all, scratch, patch-random or joint."
        ),
    ] = None,
    grow: Annotated[
        str | None,
        typer.Option(
            "--grow",
            metavar="BUNDLE",
            help="Train nothing: add the targets of the task that this ranking bundle lacks, whose others stay as they "
            "are.",
        ),
    ] = None,
    retire: Annotated[
        str | None, typer.Option("--retire", metavar="TABLE", help="With --grow: items to recommend no more (item_id).")
    ] = None,
    fuse: Annotated[
        list[str], typer.Option("--fuse", help="Bundle of another task, whose frozen patch is attended to. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    erase: Annotated[
        str | None, typer.Option("--erase", help="Classification task, taken out of what the head reads.")
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Begin with the weights of this bundle of the same task: of this backbone, or of one that it was "
            "grown or continued from.",
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt a backbone to a task: train a patch and a head, or what --strategy says; the backbone stays as it is.

    --strategy joint trains a copy of the backbone on several tasks together, and writes a bundle of each.
    """
    from peterrec.config import AdaptConfig, load_config
    from peterrec.training.adapt import adapt, adapt_jointly

    if grow is not None or retire is not None:
        if any((strategy, fuse, erase, initial, config, set_, resume)) or grow is None or len(tasks) != 1:
            raise ConfigError(
                "--grow and --retire train nothing, and are of one bundle that is there",
                remedy="name it and one task, and no settings: TASK --grow BUNDLE [--retire TABLE]",
            )
        _change_targets((backbone, corpus, tasks[0], grow, out), retire, overwrite=overwrite, quiet=quiet)
        return
    settings = load_config(AdaptConfig, config, _overrides(set_, strategy, fuse, erase, quiet=quiet))
    joint = settings.strategy == "joint"
    if joint and initial is not None:
        raise ConfigError(
            "--from goes on with one task, and --strategy joint trains several", remedy="leave out either"
        )
    if not joint and len(tasks) != 1:
        raise ConfigError(
            f"{len(tasks)} tasks were named ({', '.join(tasks)})",
            remedy="adapt to one at a time, or train them together with --strategy joint",
        )
    with logged_remarks(quiet):
        if joint:
            bundles = adapt_jointly(backbone, corpus, tasks, out, settings, resume=resume, overwrite=overwrite)
        else:
            bundle = adapt(
                backbone, corpus, tasks[0], out, settings, initial=initial, resume=resume, overwrite=overwrite
            )
            bundles = {bundle.name: bundle}
    if not quiet:
        say(f"wrote {out}\nnext: peterrec evaluate {backbone} {corpus} {out}{'/' + tasks[0] if joint else ''}")
    for bundle in bundles.values():
        say_warnings(bundle.metrics["warnings"])


def _overrides(
    settings: list[str], strategy: str | None, fuse: list[str], erase: str | None, *, quiet: bool
) -> list[str]:
    named = [] if strategy is None else [f"strategy={strategy}"]
    named += [f"fuse={json.dumps(fuse)}"] if fuse else []
    named += [] if erase is None else [f"erase={erase}"]
    return [*settings, *named, *(["runner.progress=false"] if quiet else [])]


def _change_targets(
    arguments: tuple[str, str, str, str, str], retired: str | None, *, overwrite: bool, quiet: bool
) -> None:
    from peterrec.training.grow_targets import grow_targets

    with logged_remarks(quiet):
        grown = grow_targets(*arguments, retired=retired, overwrite=overwrite)
    if not quiet:
        say(f"wrote {arguments[-1]}: it has {len(grown.targets or ()):,} targets")
