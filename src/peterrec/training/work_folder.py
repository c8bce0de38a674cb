"""`OUT.training`: the files of an unfinished run, and reading them back."""

from __future__ import annotations

import contextlib
import copy
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from peterrec.config import Config, dump_yaml, same_settings
from peterrec.errors import ArtifactError, ConfigError, FingerprintError, InterruptedRun, PeterRecError
from peterrec.storage import (
    check_output,
    read_json,
    remove_folder,
    replace_file,
    storage_errors,
    write_file,
    write_json,
)
from peterrec.training.distributed import is_rank_zero, on_rank_zero

START_OVER = "start over with --overwrite"
RESUME_POINT = "last.ckpt"
RESULT = "-result.json"  # what a finished stage found, behind its name


class WorkFolder:
    """`OUT.training`: resume points of a run that is not finished, beside where its artifact will be.

    Args:
        out: folder of the artifact.
        config: resolved configuration of the run; a resume must have the same.
        inputs: fingerprints and names of what the run reads; a resume must have the same.
        resume: go on from the resume point, if there is one.
        overwrite: an artifact at `out` may be replaced, and an unfinished run that is not (or cannot be) resumed.
        kind: of the artifact; nothing else at `out` is replaced.

    Raises:
        ArtifactError: without `overwrite`: `out` exists; or an unfinished run is there that is not to be resumed, that
            had other inputs, or whose resume point is damaged.
        ConfigError: without `overwrite`: the unfinished run had another configuration.
        StorageError: the place is not writable.
    """

    def __init__(
        self,
        out: Path,
        config: Config,
        inputs: Mapping[str, str],
        *,
        resume: bool,
        overwrite: bool,
        kind: str | None = None,
    ) -> None:
        out = out if out.name else out.absolute()
        self.path = self.root = out.with_name(out.name + ".training")
        on_rank_zero(lambda: self._prepare(out, config, inputs, resume=resume, overwrite=overwrite, kind=kind))

    def _prepare(
        self, out: Path, config: Config, inputs: Mapping[str, str], *, resume: bool, overwrite: bool, kind: str | None
    ) -> None:
        check_output(out, overwrite=overwrite, kind=kind)
        if self.path.exists():
            obstacle = self._obstacle(config, inputs) if resume else self._unfinished()
            if obstacle is not None:
                if not overwrite:
                    raise obstacle
                with storage_errors(self.path):
                    remove_folder(self.path)
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.path / "config.yaml", dump_yaml(config).encode())
        write_json(self.path / "inputs.json", dict(inputs))

    def _unfinished(self) -> PeterRecError:
        return ArtifactError(
            "holds an unfinished run", remedy=f"continue it with --resume, or {START_OVER}", path=self.path
        )

    def _obstacle(self, config: Config, inputs: Mapping[str, str]) -> PeterRecError | None:
        """Return why the run that is there cannot be gone on with, or None; it may have saved nothing yet."""
        if not self._saved():
            return None
        settings_file = self.path / "config.yaml"
        if not same_settings(settings_file, config):
            return ConfigError(
                "the unfinished run had another configuration",
                remedy=f"resume with the same settings, or {START_OVER}",
                path=settings_file,
            )
        changed = _changed(self.path / "inputs.json", inputs)
        if changed:
            return FingerprintError(
                f"the unfinished run had another {changed}",
                remedy=f"resume with the same, or {START_OVER}",
                path=self.path,
            )
        damaged = [path for path in self._saved() if not _intact(path)]
        return ArtifactError("is damaged", remedy=START_OVER, path=damaged[0]) if damaged else None

    def _saved(self) -> list[Path]:
        """Return all that there is to go on with: resume points, and what finished stages found."""
        return [*sorted(self.root.rglob(RESUME_POINT)), *sorted(self.root.glob(f"*{RESULT}"))]

    @property
    def resume_point(self) -> Path:
        """Path of the resume point, once there is one."""
        return self.path / RESUME_POINT

    def stage(self, name: str, do: Callable[[WorkFolder], dict[str, Any]]) -> dict[str, Any]:
        """Run a stage that comes before the training itself, or read its result where a killed run has finished it.

        Args:
            name: of the stage; a folder of its own, with its own resume point, is called so.
            do: the stage, in that folder; returns plain values.

        Returns:
            The plain values, as they were kept.

        Raises:
            StorageError: the disk is full or the place is not writable.
        """
        result = self.root / f"{name}{RESULT}"
        if not on_rank_zero(result.exists):
            part = copy.copy(self)
            part.path = self.root / name
            on_rank_zero(part.make)
            values = do(part)
            on_rank_zero(lambda: write_json(result, values))
        return on_rank_zero(lambda: self._result(name))

    def make(self) -> None:
        """Make the folder, if it is not there."""
        with storage_errors(self.path):
            self.path.mkdir(exist_ok=True)

    def _result(self, name: str) -> dict[str, Any]:
        shutil.rmtree(self.root / name, ignore_errors=True)
        return read_json(self.root / f"{name}{RESULT}")

    @contextlib.contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        """Remove the folder when the block fails before there is anything to go on with; a stopped run keeps it."""
        try:
            yield
        except InterruptedRun:
            raise
        except BaseException:
            if is_rank_zero() and not self._saved():
                with contextlib.suppress(OSError):
                    remove_folder(self.root)
            raise

    def remove(self) -> None:
        """Remove it: the artifact is written."""
        with storage_errors(self.root):
            remove_folder(self.root)


def _changed(path: Path, inputs: Mapping[str, str]) -> str:
    """Name what differs from the inputs kept at `path`; empty where nothing does."""
    try:
        stored_inputs = read_json(path)
    except ArtifactError:
        stored_inputs = {}
    names = dict.fromkeys([*inputs, *stored_inputs])
    return ", ".join(name for name in names if stored_inputs.get(name) != inputs.get(name))


def _intact(path: Path) -> bool:
    if path.suffix == ".json":
        try:
            return bool(read_json(path))
        except ArtifactError:
            return False
    # torch.load notices a file cut short, but not one flipped bit; the checksums of its zip notice both.
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoint files, written to a temporary name and renamed, so that a kill never leaves half of one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save atomically.

        Raises:
            StorageError: the disk is full or the place is not writable.
        """
        with replace_file(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # torch hides the system's error behind its own
                    raise error.__context__ from error
                raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Load onto the CPU; tensors and plain values only, whatever Lightning's default."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded
