"""The servers that the benchmarks of the API share: each in a process of its own, and what can be seen of it."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """A server in a process of its own, with the seconds that it took from its start until it took pictures."""

    port: int
    pid: int
    start_seconds: float

    def memory(self) -> dict[str, int]:
        """Return the resident bytes of the process, and of all of its children together."""
        rows = _processes()
        return {
            "server": sum(1024 * rss for pid, _, rss in rows if pid == self.pid),
            "decoders": sum(1024 * rss for _, parent, rss in rows if parent == self.pid),
        }

    def children(self) -> list[int]:
        """Return the numbers of the decoding processes that live."""
        return [pid for pid, parent, rss in _processes() if parent == self.pid and rss]


@contextlib.contextmanager
def serving(command: Sequence[str], *, ready: str, port: int, log: Path) -> Iterator[Server]:
    """Run a server until the end of the block.

    Args:
        command: its process.
        ready: the path that answers 200 when pictures are taken.
        port: where it listens.
        log: the file that its standard error goes to.
    """
    began = time.perf_counter()
    with open(log, "wb") as errors, subprocess.Popen(command, stdout=errors, stderr=errors) as process:
        try:
            while not _answers(port, ready):
                if process.poll() is not None or time.perf_counter() > began + START_SECONDS:
                    raise RuntimeError(f"the server did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
                time.sleep(0.01)
            yield Server(port, process.pid, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()


def our_server(port: int, *options: str) -> list[str]:
    """Return the command of the API with the detector that ships."""
    return [str(Path(sys.executable).with_name("pneumolib")), "serve", "--port", str(port), *options]


def metrics(port: int) -> dict[str, float]:
    """Return what ``/metrics`` says, by name with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def machine() -> dict[str, Any]:
    """Return what the numbers of a run depend on."""
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}


def _processes() -> list[tuple[int, int, int]]:
    """Return number, parent and resident kilobytes of each process; of a dead one that is still listed, 0."""
    done = subprocess.run(["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in done.stdout.splitlines())
    return [(int(pid), int(parent), int(rss)) for pid, parent, rss in rows]


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False
