"""Saving, logging and loading models by MLflow."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peterrec._version import __version__
from peterrec.arguments import checked
from peterrec.artifacts.backbone_io import save_backbone
from peterrec.artifacts.bundle_io import save_bundle
from peterrec.errors import ArtifactError, ConfigError
from peterrec.mlflow.pyfunc import NEXT_ITEMS, folder_model
from peterrec.model import UserModel
from peterrec.storage import storage_errors, write_json

FLAVOR_NAME = "peterrec"
DATA = "data/peterrec"  # `mlflow.pyfunc.save_model` copies a folder into `data`
K = 10  # items recommended, where nothing is said


@checked
def save_model(
    model: UserModel,
    path: str | Path,
    bundles: Sequence[str] | None = None,
    *,
    mlflow_model: Any = None,
    signature: Any = None,
    input_example: Any = None,
    metadata: dict[str, Any] | None = None,
    pip_requirements: Sequence[str] | None = None,
) -> None:
    """Save a model with its bundles as a folder of MLflow, with the flavours `peterrec` and `python_function`.

    Args:
        model: a backbone, with bundles.
        path: the folder to make.
        bundles: names of loaded ones; None: all.
        mlflow_model: MLflow's description, where there is one already.
        signature: of MLflow; None: any input, and the parameters `task` and `k`.
        input_example: of MLflow, such as a DataFrame of events.
        metadata: further facts.
        pip_requirements: of an environment that answers; None: this release of peterrec.

    Raises:
        ConfigError: mlflow is not installed, or a bundle is not loaded.
        ArtifactError: something is at `path`.
        StorageError: the disk is full or the place is not writable.
    """
    mlflow = mlflow_package()
    names = list(model.bundles) if bundles is None else list(bundles)
    parts = [model.bundle(name) for name in names]
    folder = Path(path)
    if folder.exists() and any(folder.iterdir()):
        raise ArtifactError("already exists", remedy="choose another folder", path=folder)
    description = mlflow.models.Model() if mlflow_model is None else mlflow_model
    description.add_flavor(FLAVOR_NAME, peterrec_version=__version__, data=DATA, bundles=names)
    with storage_errors(folder), tempfile.TemporaryDirectory(prefix="peterrec-mlflow-") as temporary:
        data = Path(temporary) / Path(DATA).name
        data.mkdir()
        save_backbone(data / "backbone", model.pretrained)
        for number, part in enumerate(parts):  # names of tasks are of any script
            save_bundle(data / f"bundle-{number}", part)
        write_json(data / "bundles.json", {"bundles": names})
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module="peterrec.mlflow",
            data_path=str(data),
            mlflow_model=description,
            signature=signature or _signature(names),
            input_example=input_example,
            pip_requirements=list(pip_requirements or [f"peterrec=={__version__}"]),
            metadata=metadata,
        )


@checked
def log_model(model: UserModel, name: str, bundles: Sequence[str] | None = None, **options: Any) -> Any:
    """Log a model with its bundles to the active run of MLflow, or to a new one.

    Args:
        model: a backbone, with bundles.
        name: of the logged model.
        bundles: names of loaded ones; None: all.
        options: of `save_model`, and of MLflow's `Model.log`, such as `registered_model_name`.

    Returns:
        MLflow's `ModelInfo`; its `model_uri` is what `load_model` takes.

    Raises:
        ConfigError: mlflow is not installed, or a bundle is not loaded.
    """
    mlflow = mlflow_package()
    flavor = importlib.import_module(__package__)  # this package, whose functions MLflow calls
    for bundle in bundles or ():
        model.bundle(bundle)
    return mlflow.models.Model.log(
        artifact_path=None, name=name, flavor=flavor, model=model, bundles=bundles, **options
    )


@checked
def load_model(model_uri: str, dst_path: str | Path | None = None) -> UserModel:
    """Load a model with its bundles.

    Args:
        model_uri: of MLflow: `models:/...`, `runs:/...`, or a folder.
        dst_path: where its files go; None: a temporary folder.

    Returns:
        The model; its `bundles` have the names that they were logged with.

    Raises:
        ConfigError: mlflow is not installed.
        ArtifactError: the files are damaged, or those of another model.
    """
    mlflow = mlflow_package()
    folder = mlflow.artifacts.download_artifacts(
        artifact_uri=model_uri, dst_path=None if dst_path is None else str(dst_path)
    )
    return folder_model(Path(folder) / DATA)


def _signature(names: list[str]) -> Any:
    from mlflow.models import ModelSignature  # noqa: PLC0415 - an extra
    from mlflow.types.schema import ParamSchema, ParamSpec  # noqa: PLC0415 - an extra

    task = names[0] if len(names) == 1 else NEXT_ITEMS
    return ModelSignature(params=ParamSchema([ParamSpec("task", "string", task), ParamSpec("k", "long", K)]))


def mlflow_package() -> Any:
    """Return MLflow.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import mlflow  # noqa: PLC0415 - an extra
        import mlflow.pyfunc  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError("mlflow is not installed", remedy="pip install mlflow") from error
    return mlflow
