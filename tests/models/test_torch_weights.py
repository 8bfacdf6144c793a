"""Reading PyTorch's old weights files without PyTorch, and without running what is in them."""

import collections
import io
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pneumolib.errors import ArtifactError
from pneumolib.models.torch_weights import read_torch_weights


class Storage:
    def __init__(self, kind: str, key: str, values: NDArray[np.generic]) -> None:
        self.identity, self.values = ("storage", Kind(kind), key, "cpu", len(values), None), values


class Kind:
    """Pickled as the class of that name in the module torch, as PyTorch does it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> str:
        return self.name


class Tensor:
    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.parts = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self) -> tuple[object, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


class Writer(pickle.Pickler):
    def persistent_id(self, thing: object) -> object:
        return thing.identity if isinstance(thing, Storage) else None

    def reducer_override(self, thing: object) -> object:
        if isinstance(thing, Kind):
            return getattr(sys.modules["torch"], thing.name).__name__
        return NotImplemented


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of PyTorch's names, as far as its files speak of them."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(package, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write(tensors: dict[str, Tensor], storages: list[Storage], magic: int = 0x1950A86A20F9469CFC6C) -> bytes:
    file = io.BytesIO()
    for part in (magic, 1001, {"little_endian": True}):
        pickle.dump(part, file, protocol=2)
    for storage in storages:
        kind = storage.identity[1]
        storage.identity = ("storage", getattr(sys.modules["torch"], kind.name), *storage.identity[2:])  # type: ignore[attr-defined,assignment]
    Writer(file, protocol=2).dump(collections.OrderedDict(tensors))
    pickle.dump([storage.identity[2] for storage in storages], file, protocol=2)
    for storage in storages:
        file.write(np.int64(len(storage.values)).tobytes() + storage.values.tobytes())
    return file.getvalue()


@pytest.fixture
def written(torch: None) -> bytes:
    numbers = Storage("FloatStorage", "17", np.arange(30, dtype=np.float32))
    count = Storage("LongStorage", "18", np.array([7], np.int64))
    tensors = {
        "plain": Tensor(numbers, 0, (2, 3), (3, 1)),
        "axes exchanged": Tensor(numbers, 6, (3, 2), (1, 3)),
        "shared, with gaps": Tensor(numbers, 10, (2, 2), (10, 5)),
        "count": Tensor(count, 0, (), ()),
    }
    return write(tensors, [numbers, count])


def test_tensors_are_read_whatever_the_order_of_their_axes(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(written)
    found = read_torch_weights(path)
    np.testing.assert_array_equal(found["plain"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["axes exchanged"], np.arange(6, 12).reshape(2, 3).T)
    np.testing.assert_array_equal(found["shared, with gaps"], [[10, 15], [20, 25]])
    assert found["count"].shape == ()
    assert found["count"] == 7
    assert found["plain"].dtype == np.float32


@pytest.mark.parametrize("keep", [0, 20, 200, -4])
def test_a_file_that_is_cut_off_is_refused(written: bytes, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(written[:keep])
    with pytest.raises(ArtifactError, match=r"cut\.pth is no file of weights"):
        read_torch_weights(path)


def test_other_files_are_refused(torch: None, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(b"PK\x03\x04 a newer file, which is a zip")
    with pytest.raises(ArtifactError, match="Allowed: a state dict"):
        read_torch_weights(path)
    storage = Storage("FloatStorage", "0", np.zeros(3, np.float32))
    path.write_bytes(write({"a": Tensor(storage, 0, (3,), (1,))}, [storage], magic=5))
    with pytest.raises(ArtifactError, match="another magic number"):
        read_torch_weights(path)
    storage = Storage("FloatStorage", "0", np.zeros(3, np.float32))
    path.write_bytes(write({"a": Tensor(storage, 1, (3,), (1,))}, [storage]))
    with pytest.raises(ArtifactError, match="beyond its storage"):
        read_torch_weights(path)
    storage = Storage("HalfStorage", "0", np.zeros(3, np.float16))
    path.write_bytes(write({"a": Tensor(storage, 0, (3,), (1,))}, [storage]))
    with pytest.raises(ArtifactError, match=r"it asks for torch\.HalfStorage"):
        read_torch_weights(path)


def test_nothing_that_a_file_names_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ArtifactError, match="it asks for"):
        read_torch_weights(path)
    assert not (tmp_path / "sprung").exists()
