"""Prepared once: every image of a set decoded to a square, in one memory map that opens in milliseconds.

A store is a folder named after the images' fingerprint and the side of the squares. While it is built it has another
name (``….partial``) and a file that says which blocks of images are done; at the end it is renamed. A process that is
killed at any moment leaves a partial store that the next one goes on with, never one that looks finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.config import environment
from pneumolib.data.images import load_square
from pneumolib.errors import ArtifactError, DataError, ImageError

if TYPE_CHECKING:
    from pneumolib.data.dataset import ImageSet

BLOCK = 64  # images that are decoded, flushed and marked as done together
FORMAT = 3  # raised when the same files would give other pixels


def open_store(
    imageset: ImageSet,
    size: int,
    *,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> NDArray[np.uint8]:
    """Return the images of a set as squares: a read-only memory map, uint8 ``[N, size, size]``.

    The first call decodes them, in threads (decoders work outside Python's lock); later calls open what is there.

    Args:
        imageset: whose images, in its order.
        size: side of the squares, pixels.
        cache: where stores stand; None takes ``PNEUMOLIB_CACHE``.
        workers: threads; None takes the number of cores.
        progress: show a bar on a terminal, a line elsewhere, while images are decoded.

    Raises:
        ArtifactError: the store stands there, and its file is damaged.
        ImageError: a file cannot be read; the message names it. What was decoded before is kept.
        DataError: the set is empty, the size is less than 8, or the disk is full.
    """
    if size < 8:
        raise DataError(f"The side of the squares must be 8 pixels or more. Received: {size!r}")
    if not len(imageset):
        raise DataError(f"The {imageset.name!r} part of the data set is empty: there is nothing to prepare.")
    root = Path(cache) if cache is not None else environment().cache
    folder = root / "stores" / f"{imageset.fingerprint()}-{size}-v{FORMAT}"
    if not (folder / "images.npy").is_file():
        with _full_disk_named(folder):
            _build(imageset, size, folder, workers, progress)
    try:
        return np.load(folder / "images.npy", mmap_mode="r")
    except ValueError as error:
        raise ArtifactError(f"The prepared images in {folder} are damaged ({error}). Delete that folder.") from error


def _build(imageset: ImageSet, size: int, folder: Path, workers: int | None, progress: bool) -> None:
    partial = folder.with_name(folder.name + ".partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(partial) as alone:
        if (folder / "images.npy").is_file():
            return
        if not alone:
            # Another builds this store already: make one of our own, and let whoever ends first have the name.
            partial = folder.with_name(f"{folder.name}.{os.getpid()}-{threading.get_ident()}.partial")
        partial.mkdir(exist_ok=True)
        pixels = _open_pixels(partial / "images.npy", (len(imageset), size, size))
        done = _done_blocks(partial / "done", len(imageset))
        _decode_blocks(imageset, size, pixels, partial / "done", done, workers, progress)
        pixels.flush()
        del pixels
        index = {"size": size, "names": list(imageset.names), "format": FORMAT}
        (partial / "index.json").write_text(json.dumps(index), encoding="utf-8")
        (partial / "done").unlink()
        try:
            os.rename(partial, folder)
        except OSError:
            if not (folder / "images.npy").is_file():
                raise
            shutil.rmtree(partial)


def _open_pixels(path: Path, shape: tuple[int, ...]) -> np.memmap:
    if path.is_file():
        with contextlib.suppress(ValueError):
            pixels = np.lib.format.open_memmap(path, mode="r+")
            if pixels.shape == shape:
                return pixels
    path.with_name("done").unlink(missing_ok=True)
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # A disk that fills up under a memory map is no error but a signal that ends the process: take the room now.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels


def _done_blocks(path: Path, n_images: int) -> set[int]:
    """The blocks that are wholly on disk; a line that was cut off by a kill does not count, and is taken away."""
    if not path.is_file():
        return set()
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    lines = content[:whole].decode("ascii", errors="replace").split("\n")
    return {int(line) for line in lines if line.isdigit() and int(line) * BLOCK < n_images}


def _decode_blocks(
    imageset: ImageSet, size: int, pixels: np.memmap, log: Path, done: set[int], workers: int | None, progress: bool
) -> None:
    def one(index: int) -> None:
        try:
            pixels[index] = load_square(imageset.read(index), size)
        except ImageError as error:
            raise type(error)(f"{imageset.records[index].name}: {str(error).removeprefix('image: ')}") from error

    todo = [block for block in range(-(-len(imageset) // BLOCK)) if block not in done]
    if progress and not sys.stderr.isatty():
        print(f"Preparing {len(imageset):,} images ({imageset.name}) at {size} x {size} ...", flush=True)
    with (
        ThreadPoolExecutor(workers or runtime.available_cores()) as pool,
        open(log, "a", encoding="utf-8") as written,
        _bar(len(imageset), progress) as bar,
    ):
        bar.update(len(imageset) - sum(min(BLOCK, len(imageset) - b * BLOCK) for b in todo))
        for block in todo:
            indices = range(block * BLOCK, min((block + 1) * BLOCK, len(imageset)))
            list(pool.map(one, indices))
            pixels.flush()
            written.write(f"{block}\n")
            written.flush()
            bar.update(len(indices))


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[tqdm]:  # type: ignore[name-defined]  # noqa: F821
    from tqdm import tqdm

    with tqdm(total=total, unit="image", desc="preparing", disable=not (shown and sys.stderr.isatty())) as bar:
        yield bar


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold a lock on the folder for as long as the block runs; False where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows: a store of one's own each time, which is correct, if slower to resume
        yield False
        return
    with open(folder.with_name(folder.name + ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    import errno

    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"The disk is full: the prepared images did not fit below {folder.parent}. Free some space, or set "
            "PNEUMOLIB_CACHE to a folder on another disk; what was done is kept."
        ) from error
