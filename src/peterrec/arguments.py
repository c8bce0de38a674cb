"""Arguments of public functions, checked against their annotations before anything else is done."""

from __future__ import annotations

import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TextIO, TypeVar, Union

from peterrec.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

TEXTS = (str, bytes, bytearray, memoryview)
VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
FRAME_ATTRIBUTES = ("columns", "column_names", "__dataframe__")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, which then refuses arguments of other types than its annotations name.

    So a DataFrame is not taken for a list (of its column names), nor a text for a list (of its letters). Elements of
    lists and values of mappings are checked too; a `Literal` is checked for its type only: which words there are, the
    function itself says best. `Any`, and what takes further keywords, is let through.

    Raises:
        ConfigError: with the name of the argument, what it is and what it may be.
    """
    signature = inspect.signature(function)

    @functools.cache
    def hints() -> dict[str, Any]:  # when first called: a class may be named in its own methods
        return typing.get_type_hints(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            variadic = signature.parameters[name].kind in (
                inspect.Parameter.VAR_KEYWORD,
                inspect.Parameter.VAR_POSITIONAL,
            )
            if name in hints() and not variadic:
                check(name, value, hints()[name])
        return function(*args, **kwargs)

    return wrapper


def check(name: str, value: Any, hint: Any) -> None:
    """Refuse a value of another kind than a type hint names.

    Raises:
        ConfigError: with the name of the argument, what it is and what it may be.
    """
    if not _fits(value, hint):
        raise ConfigError(f"{name} is {describe(value)}", remedy=f"give {_describe_hint(hint)}")


def is_frame(value: Any) -> bool:
    """Return whether a value is a table with named columns, of whatever library."""
    return any(hasattr(type(value), name) for name in FRAME_ATTRIBUTES)


def describe(value: Any) -> str:
    """Describe a value in few words, such as `a pandas DataFrame`."""
    if isinstance(value, NoneType | bool):
        return str(value)
    kind = type(value)
    library, name = kind.__module__.partition(".")[0].lstrip("_"), kind.__name__
    if is_frame(value) or library not in ("builtins", "collections"):
        return f"a {library} {name}" if library != "builtins" else f"a {name}"
    if isinstance(value, str | int | float):
        return f"{'the text' if isinstance(value, str) else 'the number'} {value!r:.40}"
    if isinstance(value, list | tuple) and value:
        return f"a {name} with {describe(value[0])}"
    return f"{'an empty' if isinstance(value, list | tuple) else 'a'} {name}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a name that is none: ` (did you mean 'x'?)`, or nothing if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def names_there(name: str, names: Iterable[str], label: str) -> str:
    """Return the end of a message about a name that is none, with those there are: ` (did you mean 'x'? it has: x, y)`.

    Args:
        name: that was asked for.
        names: that there are.
        label: what stands before them, such as `it has`.
    """
    names = list(names)
    near = did_you_mean(name, names).strip(" ()")
    return f" ({f'{near} ' if near else ''}{label}: {', '.join(names) or 'none'})"


def with_suggestions(missing: Iterable[str], names: Iterable[str]) -> str:
    """Return names that are not there, such as of columns, each with the one that may have been meant."""
    names = list(names)
    return ", ".join(f"{name!r}{did_you_mean(name, names)}" for name in missing)


def unordered(value: Any) -> bool:
    """Return whether a value is a container that must not be taken for a list: a table, a set, an iterator."""
    return isinstance(value, Set | Iterator) or is_frame(value)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, element) for element in arguments)
    if origin is Literal:
        return any(type(value) is type(element) for element in arguments)
    if isinstance(hint, TypeVar):
        return hint.__bound__ is None or _fits(value, hint.__bound__)
    if origin is type:
        bound = getattr(arguments[0], "__bound__", None) or arguments[0]
        return isinstance(value, type) and issubclass(value, bound)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, arguments[0]) and _fits(element, arguments[1]) for key, element in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return (
            isinstance(value, Sequence)
            and not isinstance(value, TEXTS)
            and all(_fits(element, arguments[0]) for element in value)
        )
    if origin is Callable or hint is Callable:
        return callable(value)
    return _is_a(value, hint)


def _is_a(value: Any, kind: type) -> bool:
    if kind is TextIO:
        return hasattr(value, "read") and hasattr(value, "__iter__") and not is_frame(value)
    if getattr(kind, "_is_protocol", False):
        return all(hasattr(value, name) for name in vars(kind) if not name.startswith("_"))
    if kind is int or kind is float:
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe_hint(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(
            dict.fromkeys(
                _describe_hint(alternative)
                for alternative in arguments
                if alternative is not str or Path not in arguments
            )
        )
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of {_describe_hint(arguments[0])} to {_describe_hint(arguments[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {_describe_hint(arguments[0])}"
    if origin is type:
        return "a class of settings"
    names = {str: "a text", Path: "a path", NoneType: "None", bool: "True or False", int: "a whole number"}
    names |= {float: "a number", TextIO: "an open text stream"}
    if origin is Callable or hint is Callable:
        return "a function"
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
