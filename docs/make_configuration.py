"""Write docs/configuration.md from the models in peterrec.config: python docs/make_configuration.py"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from peterrec import config

PAGE = Path(__file__).with_name("configuration.md")
VERBS = {
    "AmazonConfig": "`peterrec convert amazon`",
    "PrepareConfig": "`peterrec prepare`",
    "PretrainConfig": "`peterrec pretrain`",
    "AdaptConfig": "`peterrec adapt`",
    "GrowConfig": "`peterrec grow`",
    "MigrateConfig": "`peterrec migrate`",
    "TuneConfig": "`peterrec tune`",
    "EvaluateConfig": "`peterrec evaluate`",
    "AuditConfig": "`peterrec audit`",
    "RunConfig": "`peterrec run`",
    "ExperimentConfig": "`peterrec experiment`",
    "ServeConfig": "`peterrec serve`",
}
INTRODUCTION = """# Configuration

<!-- Written by docs/make_configuration.py from the models in src/peterrec/config: change those, not this page. -->

Every verb takes a YAML file (`--config FILE`, or the file itself for `peterrec run` and `peterrec experiment`) and
single settings on top of it (`--set KEY=VALUE`, repeatable, dotted for settings within settings:
`--set optim.lr=0.01`; a number is an entry of a list, counted from 0: `tasks.0.min_item_events=2`). Keys that do
not exist are errors, and what may have been meant is named. Paths in a file count from the working directory, as those
of the command line do, and not from the file: `configs/demo.yaml` is for the root of the repository. The resolved
configuration is written beside every artifact as `config.yaml`, and can be passed to `--config`.

In Python, the same models take keyword arguments: `peterrec.PretrainConfig(epochs=5)`.
A default of *required* must be given; an empty default means none. Of a group only what differs must be given:
`--set optim.lr=0.001` leaves the weight decay that the verb has by default.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page."""
    models = [
        value
        for value in vars(config).values()
        if inspect.isclass(value) and issubclass(value, config.Config) and value is not config.Config
    ]
    order = [*VERBS, *(model.__name__ for model in models)]
    models.sort(key=lambda model: order.index(model.__name__))
    kinds = config.PATCH_SETTINGS.values()
    sections = [
        _section(model) + (_kinds() if model is config.PatchConfig else "") for model in models if model not in kinds
    ]
    return "\n".join([INTRODUCTION, *sections])


def _kinds() -> str:
    """Return what each registered kind of patch has of its own: the table that `patch.kind` chooses from."""
    lines = ["", "### Kinds of patches", "", "| `kind` | what it is | insertion | position | its own settings |"]
    lines += ["|---|---|---|---|---|"]
    for name, model in config.PATCH_SETTINGS.items():
        places = [_type(model.model_fields[place].annotation) for place in ("insertion", "position")]
        kind_settings = (
            f"`{setting}` ({_type(field.annotation)}; {_default(field)}): {field.description}"
            for setting, field in model.model_fields.items()
            if setting not in config.PatchConfig.model_fields
        )
        cells = (f"`{name}`", (inspect.getdoc(model) or "").rstrip("."), *places, "<br>".join(kind_settings))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _section(model: type[config.Config]) -> str:
    verb = VERBS.get(model.__name__)
    lines = [f"## {model.__name__}", *(["", f"Of {verb}."] if verb else []), "", inspect.getdoc(model) or "", ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", _type(field.annotation), _default(field), field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not NoneType)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if inspect.isclass(annotation) and issubclass(annotation, config.Config):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {int: "integer", float: "number", str: "text", bool: "`true`, `false`"}.get(annotation, "anything")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "*required*" if field.default_factory is None else ""
    if isinstance(value, config.Config):
        values = value.model_dump(exclude_defaults=True)
        return ", ".join(f"`{key}: {item}`" for key, item in values.items())
    if value is None or value == ():
        return ""
    return f"`{list(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    main()
