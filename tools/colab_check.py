"""Prove that installing the project in Colab changes nothing that Colab has.

    python tools/colab_check.py pip-freeze.txt

The file lists Colab's packages as `name==version` lines. With them as constraints, the project, its extras for training
and serving (but for the newest Pillow: Colab keeps its own) and requirements-colab.txt are resolved together; what the
solution adds must be what requirements-colab.txt installs, and what the project relies on there must be what the list
says.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from project import COLAB_REQUIREMENTS, ROOT, colab_lacks, colab_pins, normal, pyproject

COLAB_PYTHON = "3.13"


def read_pins(text: str) -> dict[str, str]:
    """Return name -> version of the `name==version` lines in `text`."""
    return {normal(name): number for name, number in re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)}


def resolve(constraints: Path) -> dict[str, str]:
    """Return name -> version of all that the project needs under `constraints`; ends the program if nothing fits."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", COLAB_PYTHON, "--constraints", str(constraints.resolve()), "--extra", "train"]
    command += [str(COLAB_REQUIREMENTS), "pyproject.toml", "-"]
    served = pyproject()["project"]["optional-dependencies"]["serve"]
    served = "\n".join(line for line in served if not line.startswith("pillow"))
    done = subprocess.run(command, cwd=ROOT, input=served, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Colab's packages and the project's cannot be had together:\n{done.stderr}")
    return read_pins(done.stdout)


def problems(colab: dict[str, str], solution: dict[str, str]) -> list[str]:
    """Return a line for each way in which the solution and requirements-colab.txt disagree with Colab's list."""
    lacks, relied_on = colab_lacks(), colab_pins()
    added = {name: number for name, number in solution.items() if name not in colab}
    found = [
        f"{name} changes from {colab[name]} to {number}"
        for name, number in solution.items()
        if colab.get(name, number) != number
    ]
    found += [
        f"{name}=={number} is needed and missing in requirements-colab.txt"
        for name, number in added.items()
        if lacks.get(name) != number
    ]
    found += [f"{name} is listed as lacking, but Colab has {colab[name]}" for name in lacks if name in colab]
    found += [
        f"# colab: {name}=={number} should be {colab.get(name, 'absent')}"
        for name, number in relied_on.items()
        if colab.get(name) != number
    ]
    return found


def main() -> int:
    """Print the proof, or what speaks against it; the exit status is 0 or 1."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    freeze = Path(sys.argv[1])
    colab, solution = read_pins(freeze.read_text(encoding="utf-8")), resolve(freeze)
    found = problems(colab, solution)
    for line in found:
        print(f"wrong: {line}")
    if not found:
        added = ", ".join(f"{name} {number}" for name, number in colab_lacks().items())
        print(f"{len(solution)} packages needed, {len(solution) - len(colab_lacks())} there already and unchanged")
        print(f"added: {added}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
