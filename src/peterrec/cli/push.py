"""`peterrec push`."""

from __future__ import annotations

from typing import Annotated

import typer

from peterrec.cli.common import QuietOption, say


def command(
    path: Annotated[str, typer.Argument(help="Folder written by `peterrec pretrain` or `peterrec adapt`.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORGANIZATION/NAME", help="Repository; made if it is not there.")],
    subfolder: Annotated[str | None, typer.Option("--subfolder", help="Of the repository, e.g. bundles/age.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to commit to. [default: main]")] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a repository that is made. [default: as the organization has it]"),
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Of the model, e.g. cc-by-4.0.")] = None,
    datasets: Annotated[
        list[str], typer.Option("--dataset", help="Repository of data it was trained on. Repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    base_model: Annotated[
        str | None, typer.Option("--base-model", help="Of a bundle: repository of its backbone.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Publish a backbone or a bundle on the Hugging Face Hub, as one commit, with its card.

    The token is that of HF_TOKEN or of `hf auth login`.
    """
    from peterrec.artifacts.hub_push import push

    commit = push(
        path, repo_id, subfolder=subfolder, revision=revision, private=private, license=license_, datasets=datasets,
        base_model=base_model, message=message,
    )  # fmt: skip
    if not quiet:
        place = f"hf://{repo_id}@{commit}{'/' + subfolder if subfolder else ''}"
        say(f"pushed {path}\nit can be named wherever a folder of it is taken: {place}")
