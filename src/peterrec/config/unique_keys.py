"""YAML in which no key of a mapping may stand twice: the standard allows none, and the parser keeps the last one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

TWICE = "the same key stands twice"
MAPPING, MERGE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:merge"


class UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which refuses a key that stands twice."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
    keys = set()
    for key, _ in node.value:
        if key.tag == MERGE or not isinstance(key, yaml.ScalarNode):
            continue
        if (key.tag, key.value) in keys:
            raise yaml.constructor.ConstructorError(None, None, TWICE, key.start_mark)
        keys.add((key.tag, key.value))
    tree: dict[Any, Any] = {}
    yield tree  # an alias within may mean it before it is whole
    tree.update(loader.construct_mapping(node))


UniqueKeyLoader.add_constructor(MAPPING, _construct_mapping)


def load_yaml(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        yaml.YAMLError: it is not YAML, or a key stands twice.
    """
    return yaml.load(text, UniqueKeyLoader)
