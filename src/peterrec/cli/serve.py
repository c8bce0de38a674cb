"""`peterrec serve`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from peterrec.cli.common import ConfigOption, SetOption, say
from peterrec.errors import ConfigError

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def command(
    backbone: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain`, or hf://...")],
    bundles: Annotated[
        list[str],
        typer.Option("--bundle", "-b", metavar="[NAME=]PATH", help="Folder written by `peterrec adapt`. Repeatable."),
    ] = [],  # noqa: B006 - typer copies it
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; without --keys only a loopback one.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port to listen on; 0: any that is free.")] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Folder for users' events, and for which bundles are loaded.")
    ] = None,
    store: Annotated[str | None, typer.Option("--store", help="Where events are kept: sqlite, or redis://...")] = None,
    keys: Annotated[
        str | None, typer.Option("--keys", help="YAML file with the keys of clients and what each may do.")
    ] = None,
    titles: Annotated[
        str | None, typer.Option("--titles", help="Parquet or CSV with columns item_id and title, for the page.")
    ] = None,
    bundle_root: Annotated[
        str | None, typer.Option("--bundle-root", help="Folder that operators may load bundles from.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", help="Who shares bundles: state (nobody), or store (its replicas).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", help="Processes that answer at the address.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
) -> None:
    """Answer any task about any user over HTTP, keep users' events, and show it all on a page.

    It runs until Ctrl-C or SIGTERM; requests and events that it has taken on are finished first.
    """
    from peterrec.config import ServeConfig, load_config

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the service needs packages that are not installed ({', '.join(missing)})",
            remedy="pip install 'peterrec[serve]'",
        )
    options = {
        "host": host, "port": port, "state": state, "store": store, "keys": keys, "titles": titles,
        "bundle_root": bundle_root, "registry": registry, "workers": workers,
    }  # fmt: skip
    values = {name: value for name, value in options.items() if value is not None}
    settings = load_config(ServeConfig, config, set_, **values)
    from peterrec.serving.http.serve import serve

    serve(backbone, bundles, settings, say if sys.stderr.isatty() else None)  # else only the log, which is JSON lines
