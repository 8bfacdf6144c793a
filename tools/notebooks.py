"""Keep the notebooks' pairs in step, run them, and write the frame that all of them share.

    python tools/notebooks.py sync    [NAME ...]   py -> ipynb: fills the frame, keeps the outputs
    python tools/notebooks.py execute [NAME ...]   sync, run with the `ci` preset on the phantom, store clean outputs
    python tools/notebooks.py pull    [NAME ...]   ipynb -> py, after an edit in Colab or Jupyter
    python tools/notebooks.py check   [NAME ...]   change nothing; status 1 where a pair or its frame is out of step

NAME is a notebook's name or the number it starts with; without one, all are meant. The `.py` file is the source that is
edited and reviewed. Cells tagged `badge`, `setup` and `next` belong to this tool: it writes them from the public
address in pyproject.toml, so that a move or a release changes one line and one command's output.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image
from project import NOTEBOOKS, ROOT, address, pyproject, tag

Notebook = Any  # nbformat's NotebookNode, which carries no types

FORMAT = "py:percent"
NEEDS_GPU = ("04_train",)
MAX_PNG_BYTES = 100_000
FRAME = ("badge", "setup", "next")


def names(wanted: list[str] | None = None) -> list[str]:
    """Return the notebooks' names in order, only those that `wanted` names or numbers where it is given."""
    every = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.py"))
    if not wanted:
        return every
    chosen = [name for name in every if name in wanted or name[:2] in wanted or name[:2].lstrip("0") in wanted]
    if not chosen:
        raise SystemExit(f"No notebook of that name. There are: {', '.join(every)}. Received: {' '.join(wanted)}")
    return chosen


def colab_url(name: str) -> str:
    """Return the address that opens the released notebook `name` in Colab."""
    path = address().removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{path}/blob/{tag()}/notebooks/{name}.ipynb"


def badge(name: str) -> str:
    """Return the Markdown of the badge that opens `name` in Colab."""
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab_url(name)})"


def setup_cell() -> str:
    """Return the source of the set-up cell: in Colab it installs the release without touching what Colab has."""
    return f'''\
# @title Set-up: in Colab this installs pneumolib, elsewhere it only imports it
import importlib.util
import subprocess
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("pneumolib") is None:
    home = "{address()}"
    # Without dependencies, so that nothing that Colab has can change; the list names all that it lacks.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.check_call([*pip, "--requirement", f"{{home}}/raw/{tag()}/requirements-colab.txt"])
    subprocess.check_call([*pip, f"{{home}}/archive/refs/tags/{tag()}.zip"])

import pneumolib as pn'''


def next_cell(name: str) -> str:
    """Return the Markdown of the last cell: the way to the next notebook, or to the README after the last."""
    every = names()
    later = every[every.index(name) + 1 :]
    if not later:
        return f"**This was the last notebook.** What the series found, in one table: [README]({address()}#readme)"
    title = _title(NOTEBOOKS / f"{later[0]}.py")
    return f"**Next:** [{title}]({later[0]}.ipynb) · {badge(later[0])}"


def _title(path: Path) -> str:
    found = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found[1] if found else path.stem


def framed(name: str, notebook: Notebook) -> Notebook:
    """Return `notebook` with the frame's cells and metadata written anew; its other cells stay as they are."""
    content = {"badge": badge(name), "setup": setup_cell(), "next": next_cell(name)}
    for kind in FRAME:
        cells = [cell for cell in notebook.cells if kind in cell.metadata.get("tags", [])]
        if len(cells) != 1:
            raise SystemExit(f"{name}.py needs exactly one cell tagged {kind!r}. Received: {len(cells)}")
        cells[0].source = content[kind]
        if kind == "setup":
            cells[0].metadata["cellView"] = "form"
    for cell in notebook.cells:
        # nbformat sorts what it writes; the same order here keeps the two files comparable.
        cell.metadata = nbformat.from_dict(dict(sorted(cell.metadata.items())))
    settings = pyproject()["tool"]["jupytext"]
    representation = {"extension": ".py", "format_name": "percent", "format_version": "1.3"}
    notebook.metadata = nbformat.from_dict(
        {
            "jupytext": {**settings, "text_representation": representation},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        }
    )
    if name in NEEDS_GPU:
        notebook.metadata["accelerator"] = "GPU"
    return notebook


def sources(name: str) -> tuple[Notebook, str]:
    """Return the notebook that `name`.py describes, frame filled, and the text that the file should have."""
    notebook = framed(name, jupytext.read(NOTEBOOKS / f"{name}.py", fmt=FORMAT))
    return notebook, jupytext.writes(notebook, fmt=FORMAT)


def sync(name: str) -> Notebook:
    """Write both files of `name` from its `.py`, with the outputs that the `.ipynb` had; return the notebook."""
    notebook, text = sources(name)
    notebook = jupytext.reads(text, fmt=FORMAT)
    target = NOTEBOOKS / f"{name}.ipynb"
    if target.exists():
        notebook = combine_inputs_with_outputs(notebook, jupytext.read(target), fmt=FORMAT)
    (NOTEBOOKS / f"{name}.py").write_text(text, encoding="utf-8")
    write(name, notebook)
    return notebook


def pull(name: str) -> None:
    """Write `name`.py from its `.ipynb`, then bring the frame of both up to date."""
    notebook = framed(name, jupytext.read(NOTEBOOKS / f"{name}.ipynb"))
    (NOTEBOOKS / f"{name}.py").write_text(jupytext.writes(notebook, fmt=FORMAT), encoding="utf-8")
    sync(name)


def write(name: str, notebook: Notebook) -> None:
    """Write `notebook` as `name`.ipynb with metadata for Colab and cell ids that stay the same from run to run."""
    notebook.metadata["colab"] = {"provenance": [], "toc_visible": True}
    if name in NEEDS_GPU:
        notebook.metadata["colab"]["gpuType"] = "T4"
    notebook.metadata.pop("language_info", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{name[:2]}-{number:02d}"
    nbformat.validate(notebook)
    (NOTEBOOKS / f"{name}.ipynb").write_text(nbformat.writes(notebook, version=4) + "\n", encoding="utf-8")


def execute(name: str) -> None:
    """Run `name` alone, with the `ci` preset on the phantom, and store its cleaned outputs; an error stores nothing."""
    notebook = sync(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        surroundings = {"PNEUMOLIB_DATA": "phantom", "PNEUMOLIB_PRESET": "ci", "PNEUMOLIB_HOME": home}
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
        )
        try:
            # A kernel repeats its log lines on standard error; errors come back in the notebook.
            client.execute(env={**os.environ, **surroundings}, stderr=subprocess.DEVNULL)
        except (CellExecutionError, DeadKernelError) as error:
            raise SystemExit(f"{name} failed:\n{error}") from None
    clean(notebook)
    write(name, notebook)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def clean(notebook: Notebook) -> None:
    """Take out of the outputs what is of no use to a reader: log lines, progress bars, times of execution, widgets."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept: list[Any] = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue
            if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
            if "data" in output:
                _clean_data(output.data)
            kept.append(output)
        cell.outputs = kept


def _clean_data(data: Any) -> None:
    for kind in [kind for kind in data if kind.startswith("application/vnd.")]:
        del data[kind]
    if "image/png" in data:
        data["image/png"] = _smaller(data["image/png"])


def _smaller(png: str) -> str:
    content = base64.b64decode(png)
    if len(content) <= MAX_PNG_BYTES:
        return png
    held = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256).save(held, format="PNG", optimize=True)
    return base64.b64encode(min(content, held.getvalue(), key=len)).decode()


def drift(name: str) -> list[str]:
    """Return a line for each way in which the pair `name` is out of step, without looking at times."""
    source, pair = NOTEBOOKS / f"{name}.py", NOTEBOOKS / f"{name}.ipynb"
    if not pair.exists():
        return [f"{pair.name} is missing"]
    text = source.read_text(encoding="utf-8")
    found = []
    if sources(name)[1] != text:
        found.append(f"{source.name}: the frame's cells or the header are not what the tool writes")
    if jupytext.writes(jupytext.read(pair), fmt=FORMAT) != text:
        found.append(f"{pair.name} and {source.name} differ")
    return found


def readme_table() -> str:
    """Return the Markdown table of the notebooks with their badges, as the README shows it."""
    rows = [f"| [{_title(NOTEBOOKS / f'{name}.py')}](notebooks/{name}.ipynb) | {badge(name)} |" for name in names()]
    return "\n".join(["| Notebook | Run it |", "|---|---|", *rows])


def readme_text(text: str) -> str:
    """Return the README's `text` with the table of notebooks between its two marks written anew."""
    start, end = "<!-- series:start -->", "<!-- series:end -->"
    if start not in text or end not in text:
        return text
    before, rest = text.split(start, 1)
    return f"{before}{start}\n{readme_table()}\n{end}{rest.split(end, 1)[1]}"


def main() -> int:
    """Carry out the command line; the exit status is 0, or 1 where `check` found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("sync", "execute", "pull", "check"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    chosen = names(options.names)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if options.command == "check":
        found = [line for name in chosen for line in drift(name)]
        if readme_text(text) != text:
            found.append("README.md: the table of notebooks is not what the tool writes")
        print("\n".join(found) or f"{len(chosen)} pairs in step")
        return 1 if found else 0
    action = {"sync": sync, "execute": execute, "pull": pull}[options.command]
    for name in chosen:
        action(name)
    if readme_text(text) != text:
        readme.write_text(readme_text(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
