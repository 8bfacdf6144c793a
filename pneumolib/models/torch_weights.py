"""Arrays out of a file that PyTorch wrote before its version 1.6, without PyTorch and without running what is in it.

Such a file is a row of pickles and, after them, the numbers of each storage. The unpickler here makes nothing but plain
containers and descriptions of tensors; whatever else a pickle asks for is refused.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import ArtifactError

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


def read_torch_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a state dict by name, float32 or int64.

    Raises:
        ArtifactError: the file is of another kind, damaged, or holds more than tensors.
    """
    try:
        with path.open("rb") as file:
            magic, _, _ = (_Unpickler(file).load() for _ in range(3))
            if magic != _MAGIC:
                raise ValueError("another magic number")
            tensors, keys = _Unpickler(file).load(), _Unpickler(file).load()
            types = {storage[2]: np.dtype(_TYPES[storage[1]]) for storage, *_ in tensors.values()}
            storages = {}
            for key in keys:
                count = int(np.frombuffer(file.read(8), "<i8")[0])
                storages[key] = np.frombuffer(file.read(count * types[key].itemsize), types[key], count)
        return {name: _view(storages[storage[2]], *rest) for name, (storage, *rest) in tensors.items()}
    except (pickle.UnpicklingError, ValueError, KeyError, TypeError, AttributeError, EOFError, IndexError) as error:
        raise ArtifactError(
            f"{path} is no file of weights that can be read here. Allowed: a state dict as PyTorch wrote it before "
            f"1.6. The cause: {error}"
        ) from error


def _view(storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[Any]:
    """Return a tensor of a storage, whose axes may lie in any order, as an array of its own."""
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if offset < 0 or min((*shape, *strides, 1)) < 0 or last >= len(storage):
        raise ValueError("a tensor that reaches beyond its storage")
    step = [stride * storage.itemsize for stride in strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[offset:], shape, step)).reshape(shape)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _described
        if module == "torch" and name in _TYPES:
            return name
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, identity: Any) -> Any:
        return identity


def _described(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    return storage, offset, shape, strides
