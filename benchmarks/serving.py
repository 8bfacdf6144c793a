"""How long does a caller of the API wait, how many can it answer, and what would the API of a tutorial do?

Two servers take turns, round after round, so that a busy machine slows both: ``pneumolib serve`` with its defaults, and
`naive_api.py`: FastAPI, Pillow and `model.predict` in TensorFlow, for the same detector. Of each:

- seconds from its start until it takes pictures, and the memory that it takes;
- latency, one request at a time, for the small copies of the data set and for pictures of the size that users send,
  with and without a heat map;
- requests a second with eight callers at once;
- latency at 50 % and 80 % of that, in an open loop: requests are due at even distances, whatever became of the ones
  before, and each counts from when it was due. The naive server cannot follow the rates of the other; so it runs at
  50 % and 80 % of its own, and the other also at the higher of those.

Server and client share the machine: the cores that the client takes are missing to the server.

    PNEUMOLIB_DATA=... python benchmarks/serving.py

The script writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from http_load import closed_loop, form, open_loop, quantiles, run
from http_servers import Server, free_port, machine, our_server, serving
from PIL import Image

from pneumolib.config import environment
from pneumolib.data.dataset import load_dataset
from pneumolib.models.detector import load_detector

RESULTS = Path(__file__).parent / "results" / "serving.json"
N_FILES = 32
LARGE = (1800, 1400)  # width and height of the pictures as users send them, in pixels
CALLERS = 8
SHARES = (0.5, 0.8)  # of the most that a server answered
SECONDS = {
    "pneumolib": {"one": 1.5, "most": 3.0, "open": 12.0},
    "naive": {"one": 2.5, "most": 4.0, "open": 5.0},
}

# What is asked for: the files, and the query of ours and of the naive server.
CASES = {
    "small, no heat map": ("small", "", ""),
    "small, heat map as a layer": ("small", "?heatmap=layer", None),
    "small, heat map over the picture": ("small", "?heatmap=overlay", "?heatmap=true"),
    "large, no heat map": ("large", "", ""),
    "large, heat map as a layer": ("large", "?heatmap=layer", None),
    "large, heat map over the picture": ("large", "?heatmap=overlay", "?heatmap=true"),
}
LOADED = ("small, no heat map", "large, no heat map")  # those that are also measured under load
Measured = dict[str, Any]
Rates = dict[str, dict[str, float]]


def files() -> tuple[dict[str, list[bytes]], str]:
    """Return files that the detector takes for X-rays, small and large, and where they come from."""
    detector = load_detector(threads=1)
    train = load_dataset(environment().data or "phantom").train
    candidates = [train.read(int(place)) for place in np.linspace(0, len(train) - 1, 3 * N_FILES)]
    small = [content for content in candidates if detector.predict(content).input.ok][:N_FILES]
    pictures = [Image.open(io.BytesIO(content)).convert("L") for content in small]
    large = [_jpeg(picture.resize(LARGE, Image.Resampling.BICUBIC)) for picture in pictures]
    return {"small": small, "large": large}, "PHANTOM" if train.phantom else train.origin


def measure(server: Server, sent: dict[str, list[bytes]], seconds: dict[str, float], rates: Rates) -> Measured:
    """Return what one round finds of a server.

    Args:
        server: it has just been started.
        sent: the requests of each case.
        seconds: how long each part takes.
        rates: requests a second at which it is measured besides those of its own, by case and name.
    """
    found: Measured = {"start_seconds": {"p50": server.start_seconds}, "one": {}, "most": {}, "open": {}}
    for case, requests in sent.items():
        run(closed_loop(server.port, requests, 2, 0.4))  # warm
        found["one"][case] = quantiles(run(closed_loop(server.port, requests, 1, seconds["one"]))[0])
        if case in LOADED:
            most = run(closed_loop(server.port, requests, CALLERS, seconds["most"]))[1]
            found["most"][case] = {"per_second": most}
            own = {f"{share:.0%} of its most": share * most for share in SHARES}
            found["open"][case] = {
                name: at_rate(server, requests, rate, seconds["open"])
                for name, rate in {**own, **rates.get(case, {})}.items()
            }
    found["memory_mb"] = {name: size / 1e6 for name, size in server.memory().items()}
    return found


def at_rate(server: Server, requests: list[bytes], rate: float, seconds: float) -> dict[str, float]:
    """Return the latency in an open loop, in milliseconds, and how many requests did not succeed."""
    loop = run(open_loop(server.port, requests, rate, seconds))
    found = quantiles(loop.seconds)
    return {
        "rate": rate,
        **found,
        "p99_over_p50": found["p99"] / found["p50"],
        "client_late_p99": quantiles(loop.late)["p99"],
        "failed": loop.lost + sum(n for status, n in loop.statuses.items() if status != 200),
    }


def one_round(contents: dict[str, list[bytes]], folder: Path) -> dict[str, Measured]:
    """Return what one round finds of both servers; the naive one comes first, since the other is held to its rates."""
    found: dict[str, Measured] = {}
    rates: Rates = {}
    for name in ("naive", "pneumolib"):
        port = free_port()
        ours = name == "pneumolib"
        command = our_server(port) if ours else naive_server(port)
        sent = {
            case: [form(("/v1/predict" if ours else "/predict") + query, [content]) for content in contents[size]]
            for case, (size, *queries) in CASES.items()
            if (query := queries[0 if ours else 1]) is not None
        }
        with serving(command, ready="/v2/health/ready" if ours else "/ready", port=port, log=folder / name) as server:
            found[name] = measure(server, sent, SECONDS[name], rates)
        rates = {
            case: {"as busy as naive": loops[f"{SHARES[-1]:.0%} of its most"]["rate"]}
            for case, loops in found[name]["open"].items()
        }
    return found


def naive_server(port: int) -> list[str]:
    """Return the command of the naive server, run as its framework says."""
    here = str(Path(__file__).parent)
    options = ["--app-dir", here, "--port", str(port), "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "naive_api:app", *options]


def merged(rounds: list[Any]) -> Any:
    """Return the median over rounds of each number, in the same nested dictionaries."""
    if isinstance(rounds[0], dict):
        return {name: merged([each[name] for each in rounds]) for name in rounds[0]}
    return round(statistics.median(rounds), 3)


def ratios(rounds: list[dict[str, Measured]]) -> Measured:
    """Return how many times better the API is than the naive server, for what both were asked."""
    shorter = {
        case: [r["naive"]["one"][case]["p50"] / r["pneumolib"]["one"][case]["p50"] for r in rounds]
        for case in rounds[0]["naive"]["one"]
    }
    more = {
        case: [r["pneumolib"]["most"][case]["per_second"] / r["naive"]["most"][case]["per_second"] for r in rounds]
        for case in rounds[0]["naive"]["most"]
    }
    return {
        name: {case: round(statistics.median(values), 1) for case, values in found.items()}
        for name, found in (("times_shorter_p50", shorter), ("times_more_per_second", more))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    contents, origin = files()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            rounds.append(one_round(contents, Path(folder)))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    result = {
        "machine": machine(),
        "files": {
            "origin": origin,
            "n": len(contents["small"]),
            "mean_bytes": {size: round(statistics.mean(map(len, found))) for size, found in contents.items()},
        },
        "rounds": len(rounds),
        **ratios(rounds),
        **merged(rounds),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(result)))


def table(result: Measured) -> list[str]:
    """Return the result in lines for a person."""
    lines = [f"{result['files']['n']} X-rays ({result['files']['origin']}), medians of {result['rounds']} rounds; ms"]
    lines.append(f"{'one request at a time':<34}{'p50':>8}{'p99':>8}{'naive p50':>12}{'p99':>8}{'shorter':>9}")
    for case, ours in result["pneumolib"]["one"].items():
        line = f"{case:<34}{ours['p50']:>8.1f}{ours['p99']:>8.1f}"
        if theirs := result["naive"]["one"].get(case):
            line += f"{theirs['p50']:>12.1f}{theirs['p99']:>8.1f}{result['times_shorter_p50'][case]:>8.1f}x"
        lines.append(line)
    lines.append(f"{'open loop':<52}{'rate':>8}{'p50':>8}{'p99':>8}{'p99/p50':>9}{'failed':>8}")
    for name in ("pneumolib", "naive"):
        for case, loops in result[name]["open"].items():
            for rate, loop in loops.items():
                label = f"{name}, {case}, {rate}"
                numbers = f"{loop['rate']:>8.1f}{loop['p50']:>8.1f}{loop['p99']:>8.1f}{loop['p99_over_p50']:>9.2f}"
                numbers += f"{loop['failed']:>8.0f}"
                lines.append(f"{label:<52}{numbers}")
    for name in ("pneumolib", "naive"):
        most = ", ".join(f"{case}: {rate['per_second']:.0f}/s" for case, rate in result[name]["most"].items())
        memory = ", ".join(f"{part} {size:.0f} MB" for part, size in result[name]["memory_mb"].items())
        start = result[name]["start_seconds"]["p50"]
        lines.append(f"{name}: {most} with {CALLERS} callers; ready after {start:.1f} s; {memory}")
    more = ", ".join(f"{case}: {ratio:.1f}" for case, ratio in result["times_more_per_second"].items())
    lines.append(f"times more requests a second: {more}")
    return lines


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
