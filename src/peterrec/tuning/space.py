"""Search spaces: settings of a verb with the values they may have, checked before anything is trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from peterrec.config import AdaptConfig, PretrainConfig, RangeConfig, build_config
from peterrec.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

C = TypeVar("C", AdaptConfig, PretrainConfig)
Settings = dict[str, Any]  # by dotted name

MOST_COMBINATIONS = 2_000  # that are all checked; of more, every two values together
EXAMPLE = "name settings with values to choose from, such as `adapt: {optim.lr: {low: 0.0001, high: 0.01, log: true}}`"

# Settings that say who is asked, or how it is counted. With several of them trials would not be comparable, or the
# luckiest would win.
INCOMPARABLE: dict[type[AdaptConfig] | type[PretrainConfig], tuple[str, ...]] = {
    AdaptConfig: ("seed", "class_weights", "selection", "folds", "runner", "checkpoint_every"),
    PretrainConfig: (
        "seed", "monitor", "valid_fraction", "max_valid_users", "probe", "runner", "checkpoint_every",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Space(Generic[C]):
    """Values that the settings of a verb may have.

    Attributes:
        verb: `adapt` or `pretrain`.
        config_class: of its settings.
        fixed: settings that all trials have.
        choices: the values to choose from, by what each is called.
        ranges: of numbers.
        integer_ranges: names of the ranges that have whole numbers only.
    """

    verb: str
    config_class: type[C]
    fixed: Settings
    choices: dict[str, dict[str, Any]]
    ranges: dict[str, RangeConfig]
    integer_ranges: frozenset[str] = frozenset()

    @classmethod
    def from_settings(cls, verb: str, config_class: type[C], tree: Mapping[str, Any]) -> Space[C]:
        """Return what is searched, as it was written.

        Raises:
            ConfigError: a setting stands twice, has no values, or a range that is none; or it must not vary.
        """
        leaves: Settings = {}
        for name, value in _flatten(tree):
            if name in leaves:
                raise ConfigError(f"{verb}.{name} stands twice in the search space", remedy="name it once")
            leaves[name] = value
        ranges: dict[str, RangeConfig] = {
            name: _range(f"{verb}.{name}", value) for name, value in leaves.items() if _is_range(value)
        }
        choices: dict[str, dict[str, Any]] = {
            name: _choices(f"{verb}.{name}", value) for name, value in leaves.items() if isinstance(value, list)
        }
        # A list of a single value is how a list is written that is a value itself.
        single = {name: next(iter(values.values())) for name, values in choices.items() if len(values) == 1}
        choices = {name: values for name, values in choices.items() if name not in single}
        fixed = {name: value for name, value in leaves.items() if name not in {**ranges, **choices}} | single
        varying: list[str] = [*ranges, *choices]
        for name in varying:
            if name.partition(".")[0] in INCOMPARABLE[config_class]:
                raise ConfigError(
                    f"{verb}.{name} is to vary, but trials with different values of it cannot be compared",
                    remedy="give it a single value",
                )
        space = cls(verb, config_class, fixed, choices, ranges)
        integer_ranges = frozenset(name for name, values in ranges.items() if space._is_whole(name, values))
        return cls(verb, config_class, fixed, choices, ranges, integer_ranges)

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the settings that vary."""
        return (*self.ranges, *self.choices)

    def config(self, values: Settings) -> C:
        """Return the settings of a trial.

        Args:
            values: of what varies; of choices, what they are called.

        Raises:
            ConfigError: they do not fit each other.
        """
        chosen = {name: self.choices[name][value] if name in self.choices else value for name, value in values.items()}
        return build_config(self.config_class, _nested({"runner.progress": False} | self.fixed | chosen))

    def corners(self) -> list[C]:
        """Return the settings at every combination of choices and bounds; of very many, of every two of these.

        Raises:
            ConfigError: one of them is not valid; the message names its values.
        """
        return [self._checked(values) for values in self._combinations()]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what Optuna draws from, by dotted names of settings with the verb before them."""
        from optuna.distributions import (  # noqa: PLC0415 - an extra
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        drawn: dict[str, BaseDistribution] = {}
        for name, values in self.ranges.items():
            if name in self.integer_ranges:
                low, high, step = int(values.low), int(values.high), int(values.step or 1)
                drawn[f"{self.verb}.{name}"] = IntDistribution(low, high, log=values.log, step=step)
            else:
                step_size = None if values.step is None else float(values.step)
                drawn[f"{self.verb}.{name}"] = FloatDistribution(
                    float(values.low), float(values.high), log=values.log, step=step_size
                )
        for name, named_values in self.choices.items():
            drawn[f"{self.verb}.{name}"] = CategoricalDistribution(tuple(named_values))
        return drawn

    def of_trial(self, parameters: Mapping[str, Any]) -> C:
        """Return the settings of a trial from Optuna's parameters, which may be of other verbs, too."""
        prefix = f"{self.verb}."
        return self.config(
            {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
        )

    def _values(self) -> dict[str, Sequence[Any]]:
        bounds: dict[str, Sequence[Any]] = {name: (values.low, values.high) for name, values in self.ranges.items()}
        return bounds | {name: tuple(values) for name, values in self.choices.items()}

    def _combinations(self) -> Iterator[Settings]:
        values = self._values()
        count = 1
        for alternatives in values.values():
            count *= len(alternatives)
        if count <= MOST_COMBINATIONS:
            for combination in itertools.product(*values.values()):
                yield dict(zip(values, combination, strict=True))
            return
        first = {name: alternatives[0] for name, alternatives in values.items()}
        for name, second_name in itertools.combinations(values, 2):
            for pair in itertools.product(values[name], values[second_name]):
                yield first | dict(zip((name, second_name), pair, strict=True))

    def _checked(self, values: Settings) -> C:
        try:
            return self.config(values)
        except ConfigError as error:
            shown = ", ".join(f"{name} {value}" for name, value in values.items())
            combination = f" with {shown}" if shown else ""
            raise ConfigError(
                f"the search space of {self.verb} has settings that are not valid{combination}: {error.message}",
                remedy="leave them out: what needs several settings of its own can be a list of mappings, such as "
                "`patch: [{kind: lora, rank: 4}, {kind: bottleneck, bottleneck: 8}]`",
            ) from error

    def _is_whole(self, name: str, values: RangeConfig) -> bool:
        """Return whether a range of whole numbers has no numbers in between: the setting takes none."""
        if not isinstance(values.low, int) or not isinstance(values.high, int):
            return False
        if values.step is not None and values.step % 1:
            return False
        first = {setting: alternatives[0] for setting, alternatives in self._values().items()}
        try:
            self.config(first | {name: values.low + 0.5})
        except ConfigError:
            return True
        return False


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted name: groups may be written as groups, or with dots.

    What is by class is no group: names of classes may have dots.
    """
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and not _is_range(value) and name != "class_weights":
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _is_range(value: Any) -> bool:
    return isinstance(value, Mapping) and bool({"low", "high"} & set(value))


def _range(name: str, value: Mapping[str, Any]) -> RangeConfig:
    try:
        return build_config(RangeConfig, dict(value))
    except ConfigError as error:
        raise ConfigError(f"the range of {name} is none ({error.message})", remedy=error.remedy) from error


def _choices(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return values by what they are called: text, which all of Optuna's storages can keep."""
    called = {value if isinstance(value, str) else json.dumps(value, sort_keys=True): value for value in values}
    if not called or len(called) < len(values):
        problem = "has no values to choose from" if not called else "has the same value twice"
        raise ConfigError(f"{name} {problem}", remedy="list the values, each once")
    return called


def _nested(settings: Settings) -> Settings:
    """Return settings by dotted name as the tree that they are of; what is of a group comes after the group."""
    tree: Settings = {}
    for name in sorted(settings, key=lambda dotted: dotted.count(".")):
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            inner = place.get(group)
            place[group] = place = dict(inner) if isinstance(inner, Mapping) else {}
        value = settings[name]
        place[last] = dict(value) if isinstance(value, Mapping) else value
    return tree


def searched_by(spaces: Iterable[Space[Any]]) -> list[str]:
    """Return what varies, with the verb before each name.

    Raises:
        ConfigError: nothing does.
    """
    names = [f"{space.verb}.{name}" for space in spaces for name in space.searched]
    if not names:
        raise ConfigError("there is nothing to search: every setting has a single value", remedy=EXAMPLE)
    return names
