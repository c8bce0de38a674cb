"""The base of all configuration models, and types they share."""

from __future__ import annotations

import re
import typing
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from peterrec.arguments import describe, did_you_mean, unordered
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NAME_BYTES = 200  # a name is that of a folder as well, beside which a temporary one is made with a longer name
NAME_RULE = f"letters and digits of any script, _ . and -, first a letter or digit, at most {NAME_BYTES} bytes in UTF-8"

NAME_PATTERN = r"^[\p{L}\p{N}][\p{L}\p{N}\p{M}_.-]*$"  # the same for JSON schemas


def in_names(character: str) -> bool:
    """Return whether a character may stand in a name; accents and vowel signs may, which alone are no letters."""
    return character in "_.-" or unicodedata.category(character)[0] in "LNM"


def check_name(value: str) -> str:
    """Return a name in its composed form (NFC), so that it is one name however it was typed.

    Raises:
        ValueError: it is none.
    """
    value = unicodedata.normalize("NFC", value)
    starts = unicodedata.category(value[0])[0] in "LN" if value else False
    if not (starts and all(map(in_names, value)) and len(value.encode()) <= NAME_BYTES):
        raise ValueError(f"a name is made of {NAME_RULE}")
    return value


Name = Annotated[str, AfterValidator(check_name)]


def _as_text(value: Any) -> Any:
    """Convert YAML's own dates and numbers to text where a text is meant: `before: 2001-02-01`, `domains: [53]`."""
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]


def _check_separator(value: str) -> str:
    value = value.replace("\\t", "\t")  # what arrives of `--separator '\t'`
    if not 1 <= len(value.encode()) <= 4 or set(value) & set('"\r\n'):
        raise ValueError("a separator is 1 to 4 characters, such as , or ; or :: or \\t, and no quote or end of line")
    return value


Separator = Annotated[str, AfterValidator(_check_separator)]


class _ConfigMeta(ModelMetaclass):
    """Metaclass by which `Config(...)` raises errors as `load_config` does; pydantic itself builds them without."""

    def __call__(cls, *values: Any, **settings: Any) -> Any:  # noqa: N805 - of a metaclass
        try:
            return super().__call__(*values, **settings)
        except ValidationError as error:
            raise not_valid(cls, error) from error


def not_valid(cls: Any, error: ValidationError, path: str | Path | None = None) -> ConfigError:
    """Return the error of a configuration that is not valid; the message names the keys, and what may have been meant.

    Args:
        cls: class of settings.
        error: what pydantic says.
        path: of the file, if there is one.
    """
    lines = []
    for problem in error.errors():
        place, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"there is no such setting{did_you_mean(str(place[-1]), _settings_at(cls, place[:-1]))}"
        elif isinstance(chosen := _chosen(problem), str):
            message += did_you_mean(chosen, _choices(problem))
        lines.append(f"{'.'.join(map(str, place)) or 'top level'}: {message}")
    return ConfigError(
        "the configuration is not valid: " + "; ".join(lines),
        remedy=f"see `{cls.__name__}` in docs/configuration.md for the keys and their meaning",
        path=path,
    )


def _chosen(problem: Mapping[str, Any]) -> Any:
    """Return the value that was given where only certain words may stand."""
    return problem["ctx"].get("tag") if problem["type"] == "union_tag_invalid" else problem["input"]


def _choices(problem: Mapping[str, Any]) -> list[str]:
    """Return the words that may stand in a place, where pydantic says which."""
    context = problem.get("ctx", {})
    return re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags") or ""))


def _settings_at(cls: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the names of the settings of a group, by its place in the settings of a class."""
    groups = [cls]
    for key in place:
        named = [group for group in groups if group.__name__ == key or _tag(group) == key]  # an alternative of a union
        fields = [group.model_fields[key].annotation for group in groups if key in group.model_fields]
        groups = named or ([group for field in fields for group in _groups_in(field)] if fields else groups)
    return [name for group in groups for name in group.model_fields]


def _tag(group: type[BaseModel]) -> Any:
    """Return the `kind` by which a union tells a group from others."""
    return group.model_fields["kind"].default if "kind" in group.model_fields else None


def _groups_in(hint: Any) -> list[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [group for argument in typing.get_args(hint) for group in _groups_in(argument)]


class Config(BaseModel, metaclass=_ConfigMeta):
    """Base of all configurations: unknown keys are errors, numbers are finite, values cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_containers(cls, values: Any) -> Any:
        """Refuse what would be taken for a list and is none, such as a DataFrame, of which that is its column names."""
        if isinstance(values, dict):
            for name, value in values.items():
                if unordered(value):
                    raise ValueError(f"{name} is {describe(value)}, not a list")
        return values

    @model_validator(mode="before")
    @classmethod
    def _complete_groups(cls, values: Any) -> Any:
        """Complete a group of which some settings are given with what this class sets in its default of that group.

        The group's class knows its own defaults only: a learning rate alone would otherwise undo the weight decay.
        """
        if not isinstance(values, dict):
            return values
        defaults = {name: cls.model_fields[name].default for name in values if name in cls.model_fields}
        return {name: complete_settings(value, defaults.get(name)) for name, value in values.items()}


def complete_settings(settings: Any, group: Any) -> Any:
    """Return settings of a group with those that are set in the group and not named by them.

    Args:
        settings: a mapping by name, of which those of an inner group are completed too; any other value is returned.
        group: what they start from; they stay alone if this is no group, or one of another `kind`, such as of patches.
    """
    if not (isinstance(settings, Mapping) and isinstance(group, Config)):
        return settings
    kind = getattr(group, "kind", None)
    if settings.get("kind", kind) != kind:
        return settings
    preset = {name: getattr(group, name) for name in group.model_fields_set}
    return preset | {name: complete_settings(value, preset.get(name)) for name, value in settings.items()}


class LaterSettingsConfig(Config):
    """Base of configurations that got settings after their first release.

    These are left out of what is written where they have their default: files of before then compare equal, and what
    does not use them stays byte for byte what it was.
    """

    later_settings: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _omit_unused_later_settings(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)
        for name in self.later_settings:
            if getattr(self, name) == type(self).model_fields[name].default:
                tree.pop(name, None)
        return tree
