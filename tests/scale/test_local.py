"""The engine for one machine, with workers that die: nothing is lost, nothing doubled, one bad file stops nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pneumolib.models.detector import Detector
from pneumolib.scale import local
from pneumolib.scale.core import ScoringError
from pneumolib.scale.inputs import Input
from pneumolib.scale.local import run_local
from pneumolib.scale.manifest import DETECTOR, open_job
from pneumolib.scale.parts import part_path

Archive = Callable[..., Path]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(number) for task in tasks for number in (task / "children").read_text().split()]


def gone(process: int) -> bool:
    """Has a process ended, be it that nobody has asked for its status yet?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def job(tmp_path: Path, archive: Archive, detector: Detector) -> Callable[..., tuple[Path, int]]:
    """Return a function that opens a job over n X-rays and some files, and returns its folder and number of shards."""

    def begin(n: int, extra: dict[str, bytes] | None = None) -> tuple[Path, int]:
        folder = tmp_path / "job"
        folder.mkdir()
        manifest = open_job(folder, Input(archive(n, extra)), detector, shard_size=8)
        return folder, manifest.shards

    return begin


def paths(folder: Path, shards: int) -> list[str]:
    return [path for s in range(shards) for path in pq.read_table(part_path(folder, s))["path"].to_pylist()]


def test_every_shard_is_done_once_and_every_image_counted(job: Callable[..., tuple[Path, int]]) -> None:
    folder, shards = job(30)
    events = list(run_local(folder, range(shards), workers=2))
    assert Counter(event["done"] for event in events if "done" in event) == Counter(range(shards))
    assert sum(event.get("images", 0) for event in events) == 30
    assert len(set(paths(folder, shards))) == 30
    assert children(os.getpid()) == []


def test_workers_that_are_killed_in_the_middle_lose_and_double_nothing(job: Callable[..., tuple[Path, int]]) -> None:
    folder, shards = job(64)
    killed, events = 0, []
    for event in run_local(folder, range(shards), workers=2):
        events.append(event)
        if killed < 3 and "done" in event:
            killed += 1
            os.kill(children(os.getpid())[0], signal.SIGKILL)
    assert killed == 3
    assert Counter(event["done"] for event in events if "done" in event) == Counter(range(shards))
    assert sum(event.get("images", 0) for event in events) == 64
    assert len(paths(folder, shards)) == len(set(paths(folder, shards))) == 64


@pytest.mark.usefixtures("hooks")
def test_files_that_kill_hang_or_fill_the_memory_become_rows(
    job: Callable[..., tuple[Path, int]], tmp_path: Path
) -> None:
    bad = {"1/kill.png": b"KILL ", "2/hang.png": b"HANG ", "2/memory.png": b"MEMORY "}
    once = {"0/once.png": f"KILL-ONCE {tmp_path}/flag ".encode()}
    folder, shards = job(20, bad | once)
    events = list(run_local(folder, range(shards), workers=2))
    rows = [row for s in range(shards) for row in pq.read_table(part_path(folder, s)).to_pylist()]
    assert len(rows) == len({row["path"] for row in rows}) == 24
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert set(errors) == {*bad, *once}
    assert all("ended 3 times" in errors[path] for path in bad)
    # It killed its reader once: then it was read, and is no image.
    assert "no image" in errors["0/once.png"]
    assert sum(event["tally"]["deaths"] for event in events if "done" in event) == 10
    assert not list(folder.glob("*.doing"))


@pytest.mark.usefixtures("hooks")
def test_workers_end_with_a_call_that_ends_early_and_blame_no_file(
    job: Callable[..., tuple[Path, int]], tmp_path: Path
) -> None:
    folder, shards = job(8, {"9/wait.png": f"WAIT {tmp_path}/flag ".encode()})
    events = run_local(folder, range(shards), workers=2)
    assert "done" in [*(next(events) for _ in range(2))][-1]
    started = children(os.getpid())
    assert started
    events.close()
    assert all(map(gone, started))
    assert [note.read_bytes()[:12].strip() for note in folder.glob("*.doing")] == [b""]


def test_a_worker_that_cannot_start_stops_the_job_with_its_last_word(
    job: Callable[..., tuple[Path, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shards = job(3)
    monkeypatch.setattr(local, "_PROGRAM", "raise SystemExit('no such thing')")
    with pytest.raises(ScoringError, match=r"before they are ready \(no such thing; status 1\)"):
        list(run_local(folder, range(shards), workers=1))


def test_a_worker_that_finds_its_detector_damaged_stops_the_job(job: Callable[..., tuple[Path, int]]) -> None:
    folder, shards = job(3)
    (folder / DETECTOR / "model.onnx").write_bytes(b"x")
    with pytest.raises(ScoringError, match="not the file that was saved"):
        list(run_local(folder, range(shards), workers=2))


@pytest.mark.usefixtures("hooks")
def test_a_job_that_is_killed_leaves_no_workers_and_goes_on_where_it_was(archive: Archive, tmp_path: Path) -> None:
    place = archive(40, {"2/wait.png": f"WAIT {tmp_path}/flag ".encode()})
    out = tmp_path / "scores"
    command = [sys.executable, "-m", "pneumolib", "score", str(place), "--out", str(out)]
    command += ["--workers", "2", "--shard-size", "8"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(out.glob("part-*"))) == 5)  # the sixth waits
        workers = children(first.pid)
    finally:
        first.kill()
        first.wait()
    assert workers
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    (tmp_path / "flag").touch()
    wait_for(lambda: all(map(gone, workers)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # wait.png is no image
    assert "41 images" in done.stdout
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert finished.items() <= kept.items()
    assert len(kept) == 6
    rows = pq.read_table(out)["path"].to_pylist()
    assert len(rows) == len(set(rows)) == 41


@pytest.mark.usefixtures("hooks")
def test_ctrl_c_keeps_what_is_finished(archive: Archive, tmp_path: Path) -> None:
    place = archive(16, {"2/wait.png": f"WAIT {tmp_path}/flag ".encode()})
    command = [sys.executable, "-m", "pneumolib", "score", str(place), "--out", str(tmp_path / "s.parquet")]
    command += ["--workers", "1", "--shard-size", "8"]
    job = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: len(list((tmp_path / "s.parquet.parts").glob("part-*"))) == 2)
        os.killpg(job.pid, signal.SIGINT)
        _, err = job.communicate(timeout=120)
    finally:
        job.kill()
        job.communicate()
    assert (job.returncode, err) == (130, "pneumolib: interrupted; what was finished is kept\n")
    assert len(list((tmp_path / "s.parquet.parts").glob("part-*"))) == 2
