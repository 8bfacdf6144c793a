"""Shared by the tests of scoring: archives of small synthetic X-rays, and workers that files can kill."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pneumolib.data.radiograph import SUBTYPES, draw
from pneumolib.models.detector import Detector, load_detector

# Read by Python when a worker starts: content that begins with one of these words does to its reader what it says.
HOOKS = """
import os, signal, sys, time

if "pneumolib.scale.worker" in " ".join(sys.orig_argv) or "default_worker.py" in " ".join(sys.orig_argv):
    from pneumolib.models.detector import Detector
    from pneumolib.scale import core

    core.Worker.__init__.__defaults__, prepare = (1,), Detector.prepare

    def hooked(self, source):
        word, _, rest = bytes(source[:200]).partition(b" ")
        flag = rest.partition(b" ")[0].decode("latin-1")
        if word == b"KILL" or (word == b"KILL-ONCE" and not os.path.exists(flag)):
            if word == b"KILL-ONCE":
                open(flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == b"HANG":
            time.sleep(1000)
        if word == b"MEMORY":
            raise MemoryError
        if word == b"WAIT":
            signal.setitimer(signal.ITIMER_REAL, 0)
            parent = os.getppid()
            while not os.path.exists(flag) and os.getppid() == parent:  # nor longer than whoever started it
                time.sleep(0.05)
        return prepare(self, source)

    Detector.prepare = hooked
"""


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The detector in the package."""
    return load_detector(threads=1)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """JPEG files of synthetic X-rays."""
    return [jpeg(number) for number in range(12)]


@pytest.fixture
def archive(pictures: list[bytes], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a folder of n X-rays and of the files given by name, and returns its path."""

    def make(n: int, extra: dict[str, bytes] | None = None, name: str = "archive") -> Path:
        files = {f"{number % 3}/{number:04d}.jpeg": pictures[number % len(pictures)] for number in range(n)}
        for below, content in (files | (extra or {})).items():
            path = tmp_path / name / below
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / name

    return make


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are started now obey the words in `HOOKS`."""
    folder = tmp_path / "hooks"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOKS)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def jpeg(number: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(draw(SUBTYPES[number % 3], number, size=(96, 128))).save(data, "JPEG", quality=85)
    return data.getvalue()
