"""`peterrec backup`."""

from __future__ import annotations

from typing import Annotated

import typer

from peterrec.cli.common import say


def command(
    state: Annotated[str, typer.Argument(help="Folder that `peterrec serve --state` was given.")],
    out: Annotated[str, typer.Argument(help="Folder of the copy.")],
) -> None:
    """Copy the state of a service while it runs: events, and which bundles are loaded.

    A plain copy of the files misses the store's write-ahead log.
    """
    from peterrec.serving.backup import backup

    for line in backup(state, out):
        say(f"copied {line}")
    say(f"wrote {out}; next: peterrec serve BACKBONE --state {out}")
