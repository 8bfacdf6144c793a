"""Fills the tables of docs/serving.md from the code of the server, and its numbers from what was measured."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from project import ROOT
from results import RESULTS, fill

from pneumolib.cli import serving
from pneumolib.serving import settings
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import PROBLEMS, RETRIED
from pneumolib.serving.settings import Settings

PAGE = ROOT / "docs" / "serving.md"


def problems() -> str:
    """Return the codes of problems with their statuses."""
    rows = ["| status | `code` | title | `Retry-After` |", "|---|---|---|---|"]
    for code, (status, title) in PROBLEMS.items():
        rows.append(f"| {status} | `{code}` | {title} | {'yes' if status in RETRIED else ''} |")
    return "\n".join(rows)


def limits() -> str:
    """Return the settings with their defaults, how to set them on the command line, and the comments of the code."""
    rows = ["| setting | default | on the command line | |", "|---|---|---|---|"]
    comments = dict(_comments(Path(settings.__file__)))
    options = _options()
    for field in dataclasses.fields(Settings):
        option = options.get(field.name, "")
        comment = comments.get(field.name, "").replace("|", "\\|")
        rows.append(f"| `{field.name}` | {_value(field.name, field.default)} | {option} | {comment} |")
    return "\n".join(rows)


def metrics() -> str:
    """Return what ``/metrics`` gives."""
    rows = ["| name | type | labels | |", "|---|---|---|---|"]
    # No public way leads to the names of labels that have no values yet.
    collectors: list[Any] = list(Metrics(name="", version="", sha256="")._registry._collector_to_names)
    for metric in collectors:
        (about,) = metric.describe()
        name = about.name + ("_total" if about.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {about.type} | {labels} | {about.documentation} |")
    return "\n".join(rows)


def numbers() -> str:
    """Return what a server of this kind took and gave where it was measured."""
    path = RESULTS / "serving.json"
    if not path.is_file():
        return "Not measured yet: `python benchmarks/serving.py`."
    found = json.loads(path.read_text(encoding="utf-8"))
    ours, files, machine = found["pneumolib"], found["files"], found["machine"]
    rows = ["| | median, ms | 99 % within, ms | requests a second, at most |", "|---|---|---|---|"]
    for case, one in ours["one"].items():
        most = f"{ours['most'][case]['per_second']:.0f}" if case in ours["most"] else ""
        rows.append(f"| {case} | {one['p50']:.1f} | {one['p99']:.1f} | {most} |")
    table = "\n".join(rows)
    memory = ", ".join(f"{name} {size:.0f} MB" for name, size in ours["memory_mb"].items())
    tails: dict[str, list[float]] = {}
    for loops in ours["open"].values():
        for share, loop in loops.items():
            tails.setdefault(share, []).append(loop["p99_over_p50"])
    loaded = "; ".join(
        f"at {share.replace('% of its', ' % of the')} {min(tails[share]):.1f} to {max(tails[share]):.1f}"
        for share in tails
        if "its most" in share
    )
    return f"""\
{table}

{files["n"]} X-rays, on {machine["cores"]} cores that server and callers share, medians of {found["rounds"]} rounds;
latency with one caller. It takes pictures {ours["start_seconds"]["p50"]:.1f} s after its start. Memory: {memory}.
With requests that come at fixed times, the slowest in a hundred waits, in medians:
{loaded}.
`python benchmarks/serving.py` measures all of it."""


def page(text: str) -> str:
    """Return `text`, the page's, with each part made anew."""
    for part in (problems, limits, metrics, numbers):
        text = fill(text, part.__name__, part())
    return text


def _comments(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each field of `Settings` and the comment behind it."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, lines[node.lineno - 1][node.end_col_offset or 0 :].strip().removeprefix("# ")


def _options() -> dict[str, str]:
    commands = argparse.ArgumentParser().add_subparsers()
    serving.add(commands)
    names = {action.dest: action.option_strings[-1] for action in commands.choices["serve"]._actions}
    fields = [field.name for field in dataclasses.fields(Settings)]
    found = {name: f"`{names[short]}`" for name in fields if (short := name.removesuffix("_seconds")) in names}
    return {**found, "api_key": "`PNEUMOLIB_API_KEY`"}


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "none", False: "no", True: "yes"}[value]
    if name.endswith("_seconds"):
        return f"{value:g} s"
    if name.endswith("_bytes"):
        return f"{value / 2**20:g} MiB"
    return f"{value:,}" if isinstance(value, int) and name != "port" else f"`{value}`"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where out of step")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text)
    if check and text != wanted:
        print("docs/serving.md is out of step with the code. Run: python tools/serving_page.py", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
