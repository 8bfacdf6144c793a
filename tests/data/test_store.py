"""The store: decoded once, right, whole after any kill, and never taken for another."""

import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pneumolib.data import store
from pneumolib.data.dataset import Dataset, ImageSet, load_dataset
from pneumolib.data.images import load_square
from pneumolib.data.phantom import make_phantom
from pneumolib.data.store import open_store
from pneumolib.errors import DataError, ImageError

SIZE = 24

# Decodes slowly, in small blocks. Arguments: data set, cache.
SLOW = """
import sys, time
from pneumolib.data import store
from pneumolib.data.dataset import load_dataset
real = store.load_square
def slow(*arguments):
    time.sleep(0.02)
    return real(*arguments)
store.load_square, store.BLOCK = slow, 8
store.open_store(load_dataset(sys.argv[1]).test, 24, cache=sys.argv[2], workers=2)
"""

# Begins to decode when two processes are about to. Arguments: data set, cache, an empty folder where they meet.
TOGETHER = """
import os, sys, time
from pathlib import Path
import numpy as np
from pneumolib.data import store
from pneumolib.data.dataset import load_dataset
real, here, name = store.load_square, Path(sys.argv[3]), str(os.getpid())
def together(*arguments):
    (here / name).touch()
    while len(list(here.iterdir())) < 2:
        time.sleep(0.005)
    return real(*arguments)
store.load_square, store.BLOCK = together, 8
images = store.open_store(load_dataset(sys.argv[1]).test, 24, cache=sys.argv[2])
np.save(here.with_name(f"seen-{name}.npy"), images)
"""


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK", 8)


@pytest.fixture
def part(phantom: Dataset) -> ImageSet:
    """Five blocks of eight."""
    return phantom.test


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every image that is decoded."""
    made: list[int] = []

    def counted(content: bytes, size: int) -> np.ndarray:
        made.append(size)
        return load_square(content, size)

    monkeypatch.setattr(store, "load_square", counted)
    return made


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A data set whose files a test may damage: 24 images in test."""
    return make_phantom(tmp_path / "own", n_train=8, n_val=2, n_test=24, size=(64, 72))


def expected(part: ImageSet, size: int = SIZE) -> np.ndarray:
    return np.stack([load_square(part.read(i), size) for i in range(len(part))])


def stores(cache: Path) -> list[str]:
    """The stores that look finished."""
    return sorted(p.name for p in (cache / "stores").iterdir() if p.is_dir() and not p.name.endswith(".partial"))


def partial(cache: Path) -> Path:
    (found,) = (cache / "stores").glob("*.partial")
    return found


def interrupt_after(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """From now on, the decoder stops like a person at the keyboard, after that many images."""
    made: list[int] = []

    def stopped(content: bytes, size: int) -> np.ndarray:
        if len(made) >= images:
            raise KeyboardInterrupt
        made.append(1)
        return load_square(content, size)

    monkeypatch.setattr(store, "load_square", stopped)


# === What it holds ===


def test_it_holds_every_image_in_order_as_a_map_that_cannot_be_written(part: ImageSet, tmp_path: Path) -> None:
    images = open_store(part, SIZE, cache=tmp_path)
    assert isinstance(images, np.memmap)
    assert (images.dtype, images.shape) == (np.uint8, (40, SIZE, SIZE))
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, expected(part))
    assert len(stores(tmp_path)) == 1
    assert list((tmp_path / "stores").glob("*.partial")) == []


def test_a_second_opening_decodes_nothing(part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(open_store(part, SIZE, cache=tmp_path))
    monkeypatch.setattr(store, "load_square", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(ImageSet, "read", lambda *_: pytest.fail("read again"))
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), first)


def test_another_size_or_other_files_have_a_store_of_their_own(part: ImageSet, tmp_path: Path) -> None:
    for chosen, size in ((part, SIZE), (part, 16), (part.take(range(10)), SIZE), (part.take(range(10, 20)), SIZE)):
        np.testing.assert_array_equal(open_store(chosen, size, cache=tmp_path), expected(chosen, size))
    assert len(stores(tmp_path)) == 4


def test_a_file_that_has_changed_has_a_store_of_its_own(own: Path, tmp_path: Path) -> None:
    before = load_dataset(own).test
    old = np.array(open_store(before, SIZE, cache=tmp_path))
    changed, other = own / before.names[0], own / before.names[1]
    changed.write_bytes(other.read_bytes() + b"\0")
    new = open_store(load_dataset(own).test, SIZE, cache=tmp_path)
    np.testing.assert_array_equal(new[0], old[1])
    np.testing.assert_array_equal(new[1:], old[1:])


@pytest.mark.parametrize("chosen", [[2, 1, 0], [0, 0, 1, 2], [0, 1, 2, 2]], ids=str)
def test_the_same_files_in_another_order_or_number_are_another_set(
    part: ImageSet, tmp_path: Path, chosen: list[int]
) -> None:
    open_store(part.take([0, 1, 2]), SIZE, cache=tmp_path)
    other = part.take(chosen)
    np.testing.assert_array_equal(open_store(other, SIZE, cache=tmp_path), expected(other))


def test_the_number_of_threads_changes_nothing(part: ImageSet, tmp_path: Path) -> None:
    for workers in (1, 7):
        images = open_store(part, SIZE, cache=tmp_path / str(workers), workers=workers)
        np.testing.assert_array_equal(images, expected(part))


def test_it_stands_where_the_environment_says(part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMOLIB_CACHE", str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(part.images(SIZE), expected(part))
    assert len(stores(tmp_path / "elsewhere")) == 1


# === Interruptions ===


def test_killed_at_any_moment_it_goes_on_where_it_was(
    phantom_folder: Path, part: ImageSet, tmp_path: Path, calls: list[int]
) -> None:
    """Kill -9 twice: nothing looks finished, and no finished block is decoded again."""
    command = [sys.executable, "-c", SLOW, str(phantom_folder), str(tmp_path)]
    finished = 0
    for _ in range(2):
        process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE)
        while True:
            done = [p.read_text().count("\n") for p in (tmp_path / "stores").glob("*.partial/done")]
            if done and done[0] > finished:
                break
            assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert stores(tmp_path) == []
        finished = (partial(tmp_path) / "done").read_text().count("\n")
    assert 2 <= finished < 5
    images = open_store(part, SIZE, cache=tmp_path)
    assert len(calls) == len(part) - 8 * finished
    np.testing.assert_array_equal(images, expected(part))
    assert len(stores(tmp_path)) == 1


def test_interrupted_by_hand_it_goes_on_too(part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            open_store(part, SIZE, cache=tmp_path)
    assert stores(tmp_path) == []
    assert (partial(tmp_path) / "done").read_text() == "0\n1\n"
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))


@pytest.mark.parametrize("reason", [KeyboardInterrupt, PermissionError])
def test_stopped_just_before_its_name_is_given_it_is_made_whole(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: type[BaseException]
) -> None:
    def stopped(*_: object) -> None:
        raise reason

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stopped)
        with pytest.raises(reason):
            open_store(part, SIZE, cache=tmp_path)
    assert stores(tmp_path) == []
    assert (partial(tmp_path) / "images.npy").is_file()
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))


def test_a_line_that_was_cut_off_does_not_count(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            open_store(part, SIZE, cache=tmp_path)
    with open(partial(tmp_path) / "done", "a") as file:
        file.write("1")
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))
    assert len(calls) == len(part) - 8


def test_a_line_that_was_cut_off_does_not_run_into_the_next(
    phantom: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut 1 before a later 1 would say that block 11 is done, which it is not."""
    part = phantom.train.take(range(12 * 8))
    for images in (8, 8):
        with monkeypatch.context() as patch:
            interrupt_after(patch, images)
            with pytest.raises(KeyboardInterrupt):
                open_store(part, SIZE, cache=tmp_path)
        if (partial(tmp_path) / "done").read_text() == "0\n":
            with open(partial(tmp_path) / "done", "a") as file:
                file.write("1")
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))


@pytest.mark.parametrize("left", [b"", b"\x93NUM", "other shape"], ids=["empty", "4 bytes", "other shape"])
def test_a_file_of_pixels_that_is_not_the_right_one_is_begun_again(
    part: ImageSet, tmp_path: Path, left: bytes | str
) -> None:
    """Then the list of what is done is worth nothing."""
    open_store(part, SIZE, cache=tmp_path)
    (name,) = stores(tmp_path)
    (tmp_path / "stores" / name).rename(tmp_path / "stores" / f"{name}.partial")
    pixels = partial(tmp_path) / "images.npy"
    if isinstance(left, bytes):
        pixels.write_bytes(left)
    else:
        np.save(pixels, np.zeros((40, SIZE, SIZE + 1), np.uint8))
    (partial(tmp_path) / "done").write_text("0\n1\n")
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))


# === Files and disks that fail ===


def test_a_file_that_cannot_be_read_is_named_and_what_was_done_is_kept(
    own: Path, tmp_path: Path, calls: list[int]
) -> None:
    part = load_dataset(own).test
    path = own / part.names[12]
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(ImageError, match=part.names[12]) as caught:
        open_store(part, SIZE, cache=tmp_path)
    assert str(caught.value).startswith(f"{part.names[12]}: the file is no image")
    assert stores(tmp_path) == []
    path.write_bytes(whole)
    calls.clear()
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))
    assert len(calls) == 16


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["beginning", "flush"])
def test_a_full_disk_is_named_and_what_was_done_is_kept(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int], number: int, where: str
) -> None:
    flushed: list[int] = []
    real_flush = np.memmap.flush

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    def full_at_third(self: np.memmap) -> None:
        flushed.append(1)
        if len(flushed) == 3:
            full()
        real_flush(self)

    with monkeypatch.context() as patch:
        if where == "beginning":
            patch.setattr(np.lib.format, "open_memmap", full)
        else:
            patch.setattr(np.memmap, "flush", full_at_third)
        with pytest.raises(DataError, match=r"The disk is full.*PNEUMOLIB_CACHE"):
            open_store(part, SIZE, cache=tmp_path)
    assert stores(tmp_path) == []
    calls.clear()
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))
    assert len(calls) == len(part) - (16 if where == "flush" else 0)


def test_another_failure_of_the_disk_is_not_called_full(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np.lib.format, "open_memmap", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        open_store(part, SIZE, cache=tmp_path)
    assert not isinstance(caught.value, DataError)


def test_room_on_the_disk_is_taken_before_anything_is_decoded(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk met while writing to a map is no error but a signal that ends the process."""
    taken = []

    def looking(content: bytes, size: int) -> np.ndarray:
        taken.append(os.stat(partial(tmp_path) / "images.npy").st_blocks * 512)
        return load_square(content, size)

    monkeypatch.setattr(store, "load_square", looking)
    images = open_store(part, 64, cache=tmp_path, workers=1)
    assert taken[0] >= images.nbytes


# === Several at once ===


def test_two_processes_that_build_the_same_store_both_succeed(
    phantom_folder: Path, part: ImageSet, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-c", TOGETHER, str(phantom_folder), str(tmp_path / "cache"), str(here)]
    both = [subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, b"")
    seen = [np.load(path) for path in tmp_path.glob("seen-*.npy")]
    assert len(seen) == 2
    for images in seen:
        np.testing.assert_array_equal(images, expected(part))
    assert len(stores(tmp_path / "cache")) == 1
    assert list((tmp_path / "cache" / "stores").glob("*.partial")) == []


def test_four_threads_that_build_the_same_store_all_succeed(part: ImageSet, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = [pool.submit(open_store, part, SIZE, cache=tmp_path) for _ in range(4)]
    for one in built:
        np.testing.assert_array_equal(one.result(), expected(part))


def test_one_that_is_finished_by_another_process_meanwhile_is_no_trouble(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other gives it its name after this one has looked for it, and before this one holds the lock."""
    open_store(part, SIZE, cache=tmp_path)
    (name,) = stores(tmp_path)
    finished, unfinished = tmp_path / "stores" / name, tmp_path / "stores" / f"{name}.partial"
    finished.rename(unfinished)
    real_flock = fcntl.flock

    def late(*arguments: int) -> None:
        if unfinished.exists():
            unfinished.rename(finished)
        real_flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    np.testing.assert_array_equal(open_store(part, SIZE, cache=tmp_path), expected(part))


# === What is said ===


def test_sets_and_sizes_that_make_no_store_are_refused(part: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"8 pixels or more\. Received: 7"):
        open_store(part, 7, cache=tmp_path)
    with pytest.raises(DataError, match="The 'test' part of the data set is empty"):
        open_store(part.take([]), SIZE, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_store(part, 8, cache=tmp_path).shape == (40, 8, 8)


def test_progress_is_a_line_where_there_is_no_terminal(
    part: ImageSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    open_store(part, SIZE, cache=tmp_path, progress=True)
    assert capfd.readouterr() == ("Preparing 40 images (test) at 24 x 24 ...\n", "")
    open_store(part, SIZE, cache=tmp_path, progress=True)
    open_store(part, 16, cache=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal_and_counts_what_was_done_before(
    part: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 16)
        with pytest.raises(KeyboardInterrupt):
            open_store(part, SIZE, cache=tmp_path)
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    open_store(part, SIZE, cache=tmp_path, progress=True)
    assert "40/40" in terminal.getvalue()
    assert capfd.readouterr().out == ""
