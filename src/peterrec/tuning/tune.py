"""The verb `tune`: search for settings of `adapt` and `pretrain`, by what valid users say."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peterrec.arguments import checked
from peterrec.config import AdaptConfig, PretrainConfig, TuneConfig, dump_yaml, with_settings, without_runner
from peterrec.data.corpus import Corpus
from peterrec.errors import ConfigError, InterruptedRun, TrainingError
from peterrec.model import UserModel
from peterrec.process import alone
from peterrec.storage import remove_folder, write_file
from peterrec.tuning.folder import search_folder
from peterrec.tuning.result import TuneResult, TuneTrial
from peterrec.tuning.space import Space, searched_by
from peterrec.tuning.trials import AdaptTrials, Backbones, PretrainTrials

if TYPE_CHECKING:
    from optuna import Trial

    from peterrec.tuning.study import Study

logger = logging.getLogger(__name__)

Subject = AdaptTrials | PretrainTrials
MARKDOWN = "trials.md"


@checked
def tune(
    corpus: str | Path | Corpus,
    backbone: str | Path | UserModel | None = None,
    *,
    out: str | Path,
    task: str | None = None,
    config: TuneConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> TuneResult:
    """Search for settings of `adapt`, of `pretrain`, or of both together, with Optuna.

    Trials are compared by the metric that chooses epochs: with a task, that of its valid users (or of held-out train
    users, where `adapt` cross-validates); without one, that of the users whom pre-training holds out. Test users are
    never read. Settings of `pretrain` are searched together with those of `adapt` where no backbone is given; each
    backbone is pre-trained once. All values that may come together are checked before anything is trained.

    Args:
        corpus: a folder written by `prepare`, or an opened corpus.
        backbone: a folder written by `pretrain`, or a loaded model; None: pre-train in the search.
        out: folder of the search. It gets `search.sqlite3` (the study of Optuna, named `search`), `backbones/`,
            `trials/`, `trials.md`, `best.yaml` and, where a task is searched with its backbone, `best-pretrain.yaml`.
        task: name of a task of the corpus; None: search for settings of `pretrain` alone.
        config: what is searched, and for how long.
        resume: go on with a search that was killed, or let a finished one have more trials: the result is the same as
            of a search that was never killed.
        overwrite: replace the search at `out`.
        settings: of `TuneConfig`, by name: `adapt={"patch.bottleneck": [4, 8, 16]}, trials=30`.

    Returns:
        The trials, the settings of the best, and what mattered. `best.yaml` has the settings of `adapt` (without a
        task: of `pretrain`), to be passed to `--config`.

    Raises:
        ConfigError: a search space with what is no setting, or with values that do not fit each other, the corpus or
            the backbone; nothing to search; or Optuna is not installed.
        TaskError, DataError, FingerprintError: as in `adapt` and `pretrain`.
        ArtifactError: `out` exists, or cannot be gone on with.
        TrainingError: no trial was finished, as all diverged.
        InterruptedRun: Ctrl-C or SIGTERM; go on with `resume`.
        StorageError: the disk is full or the place is not writable.
    """
    config = with_settings(TuneConfig, config, settings)
    _require_optuna()
    return _tune(corpus, backbone, Path(out), task, config, resume=resume, overwrite=overwrite)


@alone()
def _tune(
    corpus: str | Path | Corpus,
    backbone: str | Path | UserModel | None,
    out: Path,
    task: str | None,
    config: TuneConfig,
    *,
    resume: bool,
    overwrite: bool,
) -> TuneResult:
    out = out if out.name else out.absolute()
    _check_roles(backbone, task, config)
    pretrain_space = Space.from_settings("pretrain", PretrainConfig, config.pretrain)
    adapt_space = Space.from_settings("adapt", AdaptConfig, config.adapt)
    for space in (pretrain_space, adapt_space):
        space.corners()  # before a large corpus is opened
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    backbones = Backbones(corpus, out, pretrain_space)
    subject: Subject = PretrainTrials(backbones)
    facts = {"corpus": corpus.manifest["fingerprint"], "backbone": None, "task": task}
    if task is not None:
        model: UserModel | Backbones = backbones
        if backbone is not None:
            model = backbone if isinstance(backbone, UserModel) else UserModel.from_pretrained(backbone)
            facts["backbone"] = model.fingerprint
        subject = AdaptTrials(corpus, task, out, adapt_space, model)
    names = searched_by(subject.spaces)
    subject.check()
    facts |= {"settings": json.loads(json.dumps(config.model_dump(mode="json", exclude={"trials", "time_limit"})))}
    with search_folder(out, facts, resume=resume, overwrite=overwrite):
        logger.info(f"searching {', '.join(names)}: {config.trials} trials, by {subject.monitor} of valid users")
        return _search(subject, out, task, config)


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError("optuna is not installed", remedy="pip install 'peterrec[tune]'") from error


def _check_roles(backbone: str | Path | UserModel | None, task: str | None, config: TuneConfig) -> None:
    """Refuse settings that nothing is trained with.

    Raises:
        ConfigError: settings of `adapt` without a task, or of `pretrain` for a backbone that is there.
    """
    if task is None and config.adapt:
        raise ConfigError("settings of adapt are searched by a task, and none is named", remedy="name it: --task TASK")
    if backbone is not None and task is None:
        raise ConfigError("a backbone is given, but no task to adapt it to", remedy="name a task, or no backbone")
    if backbone is not None and config.pretrain:
        raise ConfigError(
            "settings of pretrain are searched, but a backbone is given that is pre-trained already",
            remedy="leave out the backbone, or the settings of pretrain",
        )


def _search(subject: Subject, out: Path, task: str | None, config: TuneConfig) -> TuneResult:
    from peterrec.tuning.study import Study  # noqa: PLC0415 - Optuna is an extra

    start = time.monotonic()
    distributions = {name: values for space in subject.spaces for name, values in space.distributions().items()}
    with Study.open(out, subject.mode, config.seed) as study:
        try:
            while len(study.finished) < config.trials and not _is_late(start, config, study):
                trial = study.ask(distributions)
                try:
                    _run_trial(subject, study, trial, out, prune=config.pruning)
                except BaseException as error:
                    if not isinstance(error, InterruptedRun | KeyboardInterrupt | SystemExit):
                        study.give_up(trial)
                    raise
                _log_trial(subject, study)
        except InterruptedRun as error:
            raise InterruptedRun(error.message, remedy="continue with --resume", path=out) from error
        except Exception:
            if not study.finished:  # nothing to go on with, such as where a class of `class_weights` is none
                with contextlib.suppress(OSError):
                    remove_folder(out)
            raise
        return _conclude(subject, study, out, task)


def _is_late(start: float, config: TuneConfig, study: Study) -> bool:
    late = config.time_limit is not None and time.monotonic() - start > config.time_limit
    return late and len(study.finished) > 0


def _run_trial(subject: Subject, study: Study, trial: Trial, out: Path, *, prune: bool) -> None:
    """Train a trial and tell the study what came of it; one that is stopped leaves no artifact of its own."""
    from optuna import TrialPruned  # noqa: PLC0415 - an extra

    from peterrec.tuning.pruning import ReportEpochs  # noqa: PLC0415 - Optuna is an extra

    place = f"trials/{len(study.finished):04}"
    reporter = ReportEpochs(trial, subject.monitor, prune=prune)
    try:
        outcome = subject.run(trial.params, place, [reporter])
    except (TrialPruned, TrainingError) as error:
        if isinstance(error, TrainingError):
            trial.set_user_attr("diverged", error.message)
        for unfinished in (out / f"{place}.training", *out.glob("backbones/*.training")):
            if unfinished.exists():
                remove_folder(unfinished)
        study.tell(trial, None)
        return
    reporter.report(outcome.curve)
    trial.set_user_attr("places", outcome.places)
    study.tell(trial, outcome.value)


def _log_trial(subject: Subject, study: Study) -> None:
    (*_, trial) = summaries = _trials(study, subject)
    value = "diverged" if trial.value is None else f"{subject.monitor} {trial.value:.4f}"
    state = " (pruned)" if trial.state == "pruned" else ""
    settings = ", ".join(f"{name} {shown}" for name, shown in trial.settings.items())
    best = _best(summaries, subject)
    so_far = "" if best is None else f"; best {best.value:.4f} of trial {best.number}"
    logger.info(f"trial {trial.number}: {value}{state} with {settings}{so_far}")


def _trials(study: Study, subject: Subject) -> list[TuneTrial]:
    pick: Callable[..., float] = min if subject.mode == "min" else max
    trials = []
    for number, trial in enumerate(study.finished):
        values = list(trial.intermediate_values.values())
        facts: dict[str, Any] = trial.user_attrs
        # Optuna gives a pruned trial its last value.
        state = "diverged" if "diverged" in facts else "finished" if trial.state.name == "COMPLETE" else "pruned"
        stopped_at = pick(values) if values and state == "pruned" else None
        value = trial.value if state == "finished" else stopped_at
        seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
        places = facts.get("places", {})
        trials.append(TuneTrial(number, state, value, trial.params, len(values), seconds, places))  # type: ignore[arg-type]
    return trials


def _best(trials: list[TuneTrial], subject: Subject) -> TuneTrial | None:
    finished = [trial for trial in trials if trial.state == "finished"]
    pick: Callable[..., TuneTrial] = min if subject.mode == "min" else max
    return pick(finished, key=lambda trial: trial.value) if finished else None


def _conclude(subject: Subject, study: Study, out: Path, task: str | None) -> TuneResult:
    """Write the best settings and the tables."""
    trials = _trials(study, subject)
    best = _best(trials, subject)
    if best is None:
        raise TrainingError(
            "no trial was finished: all diverged",
            remedy="search lower learning rates, and pass --overwrite",
        )
    configs = {space.verb: without_runner(space.of_trial(best.settings)) for space in subject.spaces}
    result = TuneResult(
        out, "pretrain" if task is None else f"task {task!r}", subject.monitor, subject.mode, tuple(trials), best,
        configs.get("adapt"), configs.get("pretrain"), study.importance(),
    )  # fmt: skip
    files = {"best.yaml": configs["pretrain"]} if task is None else {"best.yaml": configs["adapt"]}
    if task is not None and "pretrain" in configs:
        files["best-pretrain.yaml"] = configs["pretrain"]
    for name, settings in files.items():
        write_file(out / name, dump_yaml(settings).encode())
    write_file(out / MARKDOWN, result.to_markdown().encode())
    return result
