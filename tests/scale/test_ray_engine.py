"""The engine ray: the same bytes as the local one, with a worker that is killed and a file that kills its workers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pneumolib import runtime
from pneumolib.errors import MissingExtraError
from pneumolib.scale.core import ScoringError
from pneumolib.scale.ray_engine import run_ray

Archive = Callable[..., Path]


@pytest.fixture
def own_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster that is started now is of our own, whatever else runs on this machine."""
    # Sockets stand in it, whose paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    shutil.rmtree(folder, ignore_errors=True)


# One call for all of it: a cluster takes its time to start.
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.usefixtures("hooks", "own_cluster")
def test_both_engines_write_the_same_bytes_whatever_dies(archive: Archive, tmp_path: Path) -> None:
    bad = {"0/bad.png": b"no image", "1/kill.png": b"KILL ", "2/once.png": f"KILL-ONCE {tmp_path}/flag ".encode()}
    place = archive(40, bad)
    said = {}
    for engine in ("ray", "local"):
        command = [sys.executable, "-m", "pneumolib", "score", str(place), "--out", str(tmp_path / f"{engine}.parquet")]
        command += ["--engine", engine, "--workers", "2", "--shard-size", "8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 1, done.stderr
        said[engine] = done.stdout
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    rows = pq.read_table(tmp_path / "ray.parquet").to_pylist()
    assert len(rows) == len({row["path"] for row in rows}) == 43
    assert {row["path"] for row in rows if row["error"]} == set(bad)
    assert "died and were replaced: 4" in said["ray"]
    assert "died and were replaced: 3" in said["local"]  # the flag stands: what kills once has killed
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "flag", "hooks", "local.parquet", "ray.parquet"}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime.ray.cache_clear()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pneumolib\[ray\]'"):
        next(run_ray(tmp_path, [0]))


def test_a_cluster_that_is_slow_to_start_gets_two_more_chances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ray:
        tries = stopped = 0
        error: Exception = Exception("The current node timed out during startup.")

        def is_initialized(self) -> bool:
            return False

        def init(self, **_: object) -> None:
            self.tries += 1
            raise self.error

        def shutdown(self) -> None:
            self.stopped += 1

    ray = Ray()
    monkeypatch.setattr(runtime, "ray", lambda: ray)
    with pytest.raises(ScoringError, match="cannot be started or reached: The current node timed out"):
        next(run_ray(tmp_path, [0]))
    assert (ray.tries, ray.stopped) == (3, 3)
    ray.error = ConnectionError("no cluster at that address")
    with pytest.raises(ScoringError, match="no cluster at that address"):
        next(run_ray(tmp_path, [0]))
    assert ray.tries == 4
