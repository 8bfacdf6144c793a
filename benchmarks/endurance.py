"""Does the API keep its promises over 10,000 requests at full load: nothing lost, nothing leaked, nothing broken?

Good files in every form, pictures that are no X-rays, damaged files, bombs, bodies that are too large, of a wrong type,
malformed, slow, or given up half-way come in a random order from more callers than the server has lanes and places in
its queue, so that it has to refuse some (429), with a deadline so short that some wait too long (504). Now and
then a decoding process is killed. Then it is counted:

- every request was answered or was given up by its caller, and each with a status that it may have;
- ``/metrics`` tells the same counts as the callers;
- after a tenth, half and all of the requests, the processes take as much memory as before.

What is otherwise ends with status 1.

    python benchmarks/endurance.py

The script writes benchmarks/results/endurance.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from http_load import PATIENCE, Connection, form, request, run
from http_servers import Server, free_port, machine, metrics, our_server, serving
from PIL import Image

from pneumolib.data.radiograph import SUBTYPES, draw
from pneumolib.serving.settings import Settings

RESULTS = Path(__file__).parent / "results" / "endurance.json"
CALLERS, QUEUE, DEADLINE = 36, 24, 0.12
LEGS = {"10 %": 0.1, "50 %": 0.4, "100 %": 0.5}  # what part of the requests comes before memory is measured
KILL_SECONDS = 1.5
PAUSE = 0.2  # seconds until a caller who was refused for want of room asks again
GROWTH = 1.1  # how many times what the server takes after a tenth it may take at the end
MEGABYTE = bytes(2**20)
BUSY = frozenset({429, 504})
JPEG, BINARY, TOO_LARGE = "image/jpeg", "application/octet-stream", frozenset({413})


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: how they are sent, and what may come back."""

    share: float  # of all, in per cent
    requests: list[bytes]
    allowed: frozenset[int]
    way: str = "at once"  # or: slowly, given up


def kinds() -> dict[str, Kind]:
    """Return what is sent. X-rays are synthetic, so that the script runs anywhere; the detector works on them alike."""
    rays = [draw(SUBTYPES[seed % 3], seed) for seed in range(12)]
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    large = Image.fromarray(rays[0]).resize((1800, 1400), Image.Resampling.BICUBIC)
    jpegs, pngs, tiffs = ([_file(Image.fromarray(ray), kind) for ray in rays] for kind in ("JPEG", "PNG", "TIFF"))
    odd = [_file(Image.fromarray(noise), "PNG"), _file(Image.fromarray(255 - rays[0]), "JPEG")]
    bomb = _file(Image.new("L", (8000, 8000)), "PNG")
    damaged = [jpeg[: len(jpeg) // 2] for jpeg in jpegs[:4]] + [b"\xff\xd8\xff" + bytes(500), pngs[0][:60] + pngs[1]]
    good, bad = frozenset({200}) | BUSY, frozenset({422}) | BUSY
    one, malformed = "/v1/predict", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nno end"
    too_long = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    limit, chunk = Settings().max_bytes, b"%x\r\n%s\r\n" % (len(MEGABYTE), MEGABYTE)
    return {
        "JPEG": Kind(30, [request(one, c, JPEG) for c in jpegs], good),
        "JPEG in a form": Kind(10, [form(one, [c]) for c in jpegs], good),
        "PNG": Kind(8, [request(one, c, "image/png") for c in pngs], good),
        "TIFF as bytes": Kind(5, [request(one, c, BINARY) for c in tiffs], good),
        "large JPEG": Kind(5, [request(one, _file(large, "JPEG"), JPEG)], good),
        "heat map as a layer": Kind(5, [request(f"{one}?heatmap=layer", c, JPEG) for c in jpegs], good),
        "heat map and picture": Kind(4, [request(f"{one}?heatmap=overlay&picture=true", c, JPEG) for c in jpegs], good),
        "heat map as PNG": Kind(2, [request("/v1/heatmap", c, JPEG) for c in jpegs], good | bad),
        "batch, good and bad": Kind(
            4, [form("/v1/predict:batch", [c, damaged[0], odd[0]], name="files") for c in jpegs], frozenset({200, 429})
        ),
        "no X-ray": Kind(5, [request(one, c, BINARY) for c in odd], good),
        "damaged": Kind(5, [request(one, c, BINARY) for c in damaged], bad),
        "bomb": Kind(2, [request(one, bomb, "image/png")], TOO_LARGE | BUSY),
        "no picture": Kind(2, [request(one, b"%PDF-1.7 and so on", BINARY)], frozenset({415}) | BUSY),
        "wrong type": Kind(2, [request(one, b"{}", "application/json")], frozenset({415})),
        "length too large": Kind(1, [too_long + b"Content-Length: %d\r\n\r\n" % (2 * limit) + MEGABYTE], TOO_LARGE),
        "no end in sight": Kind(
            0.2,
            [too_long + b"Transfer-Encoding: chunked\r\n\r\n" + (limit // len(MEGABYTE) + 2) * chunk],
            TOO_LARGE | BUSY,
        ),
        "malformed form": Kind(2, [request(one, malformed, "multipart/form-data; boundary=x")], frozenset({400})),
        "wrong parameter": Kind(1, [request(f"{one}?heatmap=pink", jpegs[0], JPEG)], frozenset({400})),
        "wrong address": Kind(1, [request("/v1/predictions", jpegs[0], JPEG)], frozenset({404})),
        "wrong method": Kind(0.8, [request(one, b"", JPEG, method="PUT")], frozenset({405})),
        "health": Kind(1, [request("/v2/health/ready", b"", BINARY, method="GET")], frozenset({200})),
        "slow": Kind(2, [request(one, c, JPEG) for c in jpegs], good, "slowly"),
        "given up": Kind(2, [request(one, c, JPEG) for c in jpegs], good, "given up"),
    }


class Callers:
    """Those who ask, and what they were told."""

    def __init__(self, port: int, sent: dict[str, Kind]) -> None:
        self._port, self._sent = port, sent
        self._random = random.Random(1)
        self.told: dict[str, Counter[str]] = {name: Counter() for name in sent}
        self.surprises: list[str] = []

    async def work_off(self, plan: list[str]) -> None:
        """Send a request of each kind in `plan`, all callers side by side, and wait for every answer."""
        await asyncio.gather(*(self._caller(plan) for _ in range(CALLERS)))

    async def _caller(self, plan: list[str]) -> None:
        connection = await Connection.to(self._port)
        while plan:
            name = plan.pop()
            if not connection.open:
                connection = await Connection.to(self._port)
            try:
                status = await self._ask(connection, self._sent[name], name)
            except (OSError, TimeoutError) as error:
                status = "lost"
                self.surprises.append(f"{name}: {type(error).__name__}: {error}")
            self.told[name][status] += 1
            if status == "429":
                await asyncio.sleep(PAUSE)
        connection.close()

    async def _ask(self, connection: Connection, kind: Kind, name: str) -> str:
        sent = self._random.choice(kind.requests)
        if kind.way == "given up":
            connection.write(sent if self._random.random() < 0.5 else sent[: len(sent) // 2])
            await asyncio.sleep(self._random.uniform(0, 0.05))
            connection.close()
            return "given up"
        answer = connection.expect()
        step = len(sent) if kind.way == "at once" else len(sent) // 4
        for start in range(0, len(sent), step):
            if start:
                await asyncio.sleep(0.1)
            connection.write(sent[start : start + step])
        reply = await asyncio.wait_for(answer, PATIENCE)
        # A decoding process that is killed over a good file cannot be told from one that the file has killed.
        killed = reply.status == 422 and b"broke the decoder" in reply.body
        if reply.status not in kind.allowed and not killed:
            self.surprises.append(f"{name}: {reply.status} {reply.body[:200]!r}")
        return "422, killed" if killed else str(reply.status)

    @property
    def statuses(self) -> Counter[str]:
        """How often which status was told."""
        return sum(self.told.values(), Counter())


class Killer(threading.Thread):
    """Kills a decoding process every now and then, while it is let."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server, self._random = server, random.Random(2)
        self.let, self.killed = threading.Event(), list[int]()

    def run(self) -> None:
        while True:
            self.let.wait()
            time.sleep(KILL_SECONDS)
            if self.let.is_set() and (alive := self._server.children()):
                self.killed.append(self._random.choice(alive))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.killed[-1], signal.SIGKILL)


def by_status(port: int) -> Counter[str]:
    """Return how many requests the server has counted by status, those for its counts left out."""
    counted: Counter[str] = Counter()
    for name, value in metrics(port).items():
        found = re.match(r'pneumolib_requests_total\{code="(\d+)",method="\w+",route="(.*)"', name)
        if found and found[2] != "/metrics":
            counted[found[1]] += int(value)
    return counted


def disagreements(counted: Counter[str], told: Counter[str]) -> list[str]:
    """Return where the server's counts and the callers' are not the same.

    Of a caller who gave up, the server counts 499, or the answer that was on its way already.
    """
    told_by_number: Counter[str] = Counter()
    for status, n in told.items():
        told_by_number["499" if status == "given up" else status[:3]] += n
    more = {status: counted[status] - told_by_number[status] for status in {*counted, *told_by_number}}
    overtaken = -more.pop("499", 0)
    if sum(more.values()) == overtaken and all(n >= 0 for n in more.values()):
        return []
    return [f"{status}: the server counts {counted[status]}, the callers {told_by_number[status]}" for status in more]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sent = kinds()
    names, shares = list(sent), [kind.share for kind in sent.values()]
    memory, faults = {}, []
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(), Path(folder) / "log"
        command = our_server(port, "--queue", str(QUEUE), "--deadline", str(DEADLINE))
        with serving(command, ready="/v2/health/ready", port=port, log=log) as server:
            callers, killer = Callers(port, sent), Killer(server)
            killer.start()
            before, lanes = by_status(port), len(server.children())
            began = time.perf_counter()
            for part, done in LEGS.items():
                killer.let.set()
                run(callers.work_off(random.Random(part).choices(names, shares, k=round(done * arguments.requests))))
                killer.let.clear()
                # Both are measured at rest, with a decoding process in each lane.
                run(callers.work_off(["JPEG"] * 4 * lanes))
                memory[part] = {name: round(size / 1e6, 1) for name, size in server.memory().items()}
            seconds = time.perf_counter() - began
            counted, restarts = by_status(port) - before, metrics(port)["pneumolib_decoder_restarts_total"]
            children = server.children()
        logged = log.read_text(encoding="utf-8")
    faults += callers.surprises + disagreements(counted, callers.statuses)
    at_first, at_last = memory["10 %"], memory["100 %"]
    faults += [f"{name} grew from {at_first[name]} to {at_last[name]} MB" for name in at_first
               if at_last[name] > GROWTH * at_first[name]]  # fmt: skip
    if len(children) != lanes or set(children) & set(killer.killed):
        faults.append(f"{len(children)} decoding processes for {lanes} lanes")
    if not {"200", "429", "504"} <= set(callers.statuses):
        faults.append("the load was not full: nothing was refused, or nothing came too late")
    if len(logged.splitlines()) > 1:  # the first says that it is ready
        faults.append(f"the server logged: {logged[-1000:]}")
    result = {
        "machine": machine(),
        "requests": callers.statuses.total(),
        "seconds": round(seconds, 1),
        "callers": CALLERS,
        "lanes": lanes,
        "queue": QUEUE,
        "deadline_seconds": DEADLINE,
        "told": {name: dict(sorted(counts.items())) for name, counts in callers.told.items()},
        "statuses": dict(sorted(callers.statuses.items())),
        "counted_by_the_server": dict(sorted(counted.items())),
        "decoders": {"killed": len(killer.killed), "restarts_after_a_file": int(restarts), "at_the_end": len(children)},
        "memory_mb": memory,
        "faults": faults,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['requests']} requests in {seconds:.0f} s, told: {result['statuses']}")
    print(f"counted by the server: {result['counted_by_the_server']}; decoding processes: {result['decoders']}")
    print("memory: " + "; ".join(f"{part}: {found}" for part, found in memory.items()))
    print("\n".join(["faults:", *faults] if faults else ["no faults"]))
    return 1 if faults else 0


def _file(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
