"""`peterrec VERB`: the application, and the one place where errors become messages and exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from peterrec._version import __version__
from peterrec.cli import (
    adapt,
    answer,
    audit,
    backup,
    benchmark,
    convert,
    drift,
    evaluate,
    experiment,
    export,
    fetch,
    grow,
    inspect,
    merge,
    migrate,
    prepare,
    pretrain,
    push,
    run_all,
    serve,
    tune,
)
from peterrec.cli.common import close_quietly, errors
from peterrec.errors import PeterRecError
from peterrec.process import is_first_rank, require_one_process, tune_process

app = typer.Typer(
    help="Learn one user model from what people did, and reuse it for many tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: dict[str, Callable[..., None] | typer.Typer] = {
    "run": run_all.command,
    "experiment": experiment.command,
    "fetch": fetch.command,
    "convert": convert.command,
    "prepare": prepare.command,
    "pretrain": pretrain.command,
    "adapt": adapt.command,
    "grow": grow.command,
    "merge": merge.command,
    "migrate": migrate.command,
    "tune": tune.command,
    "evaluate": evaluate.command,
    "audit": audit.command,
    "drift": drift.command,
    "predict": answer.predict,
    "recommend": answer.recommend,
    "embed": answer.embed,
    "export": export.command,
    "serve": serve.command,
    "backup": backup.command,
    "inspect": inspect.command,
    "push": push.command,
    "benchmark": benchmark.verbs,
}
for name, verb in VERBS.items():
    if isinstance(verb, typer.Typer):
        app.add_typer(verb, name=name)
    else:
        app.command(name)(verb)

# Newer typer carries a click of its own, older typer uses the package: this is the right one in both.
UsageProblem: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"peterrec {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of every verb."""
    cli_options["debug"] = debug
    if context.invoked_subcommand not in FOR_RANKS:
        require_one_process()


cli_options = {"debug": False}
FOR_RANKS = ("pretrain", "adapt")  # verbs that several processes may share, each a rank
TRAINING = ("run", "pretrain", "adapt", "experiment", "tune", "migrate")  # long enough to look at the machine first
STOPPED = 130


def run() -> None:
    """Run the command line; exit status 0: done, 1: failed, 2: a mistake in the input, 130: stopped by Ctrl-C."""
    verb = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    tune_process(alone=None if verb in TRAINING else False)
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    cli_options["debug"] = False
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="peterrec", standalone_mode=False)
        if status == STOPPED:  # newer typer answers Ctrl-C by itself, without a word
            errors.print("stopped")
        return status if isinstance(status, int) else 0
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    except UsageProblem as error:
        error.show()
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        errors.print("stopped")
        return STOPPED
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        close_quietly()  # typer exits with 1 where the reader of a pipe has left
        return 0
    except PeterRecError as error:
        return _failed(str(error), error.exit_code)
    except Exception as error:
        return _failed(f"unexpected {type(error).__name__}: {error}\n  Run with --debug to see where.", 1)


def _failed(message: str, status: int) -> int:
    if cli_options["debug"]:
        raise  # noqa: PLE0704 - called from an except clause
    if is_first_rank():
        errors.print(f"error: {message}", markup=False)
    elif status != STOPPED:  # all ranks stop together, and the first says so
        errors.print(f"another rank: error: {message}", markup=False)
    return status
