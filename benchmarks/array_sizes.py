"""Bytes that models take: arrays in memory, arrays by content, and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType

import numpy as np
from torch import Tensor

Arrays = Sequence[np.ndarray | Tensor]


def arrays_in(root: object) -> Arrays:
    """Return the arrays that an object has in attributes, containers and functions' closures; each once."""
    pending, visited, arrays = [root], dict[int, object](), list[np.ndarray | Tensor]()
    while pending:
        value = pending.pop()
        if id(value) in visited or isinstance(value, type | ModuleType):
            continue
        visited[id(value)] = value  # it stays alive, so that no id is used again
        if isinstance(value, np.ndarray | Tensor):
            arrays.append(value)
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            pending += value
        elif isinstance(value, FunctionType):
            pending += [cell.cell_contents for cell in value.__closure__ or ()]
        elif isinstance(value, MethodType):
            pending += [value.__self__]
        elif isinstance(value, partial):
            pending += [value.func, value.args, value.keywords]
        elif hasattr(value, "__dict__"):
            pending += vars(value).values()
    return arrays


def memory_bytes(arrays: Arrays) -> int:
    """Return the memory of arrays; what several are views of counts once, and whole."""
    sizes: dict[tuple[type, int], int] = {}
    for array in arrays:
        if isinstance(array, Tensor):
            storage = array.untyped_storage()
            sizes[Tensor, storage.data_ptr()] = storage.nbytes()
        else:
            whole_array = array
            while isinstance(whole_array.base, np.ndarray):
                whole_array = whole_array.base
            sizes[np.ndarray, id(whole_array)] = whole_array.nbytes
    return sum(sizes.values())


def content_bytes(arrays: Arrays) -> int:
    """Return what arrays of NumPy would take in files; equal ones count once."""
    numpy_arrays = [array for array in arrays if isinstance(array, np.ndarray)]
    return sum({hashlib.sha256(array.tobytes()).digest(): array.nbytes for array in numpy_arrays}.values())


def folder_bytes(folder: Path) -> int:
    """Return the sizes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
