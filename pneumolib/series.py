"""Run the notebooks in order, as Colab's *Run all* would, and write each as HTML."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pneumolib.config import environment
from pneumolib.errors import DataNotFoundError, MissingExtraError, PneumolibError


class SeriesError(PneumolibError, RuntimeError):
    """A notebook stopped with an error; the message names the notebook and holds the error."""


def run_series(
    notebooks: str | Path, *, out: str | Path = "artifacts", preset: str = "auto", data: str | None = None
) -> list[Path]:
    """Execute the numbered notebooks of a folder in order and return the paths of the HTML pages.

    Each notebook runs in a kernel of its own. They share the folder `out`, so that what one leaves behind (a prepared
    data set, a finished or interrupted training run) the next finds. The notebooks' own files are not changed.

    Args:
        notebooks: the folder that holds ``01_….ipynb`` and so on.
        out: where ``series/*.html`` and all artefacts go.
        preset: settings, as in `Config.preset`.
        data: where the X-rays are, as in `load_dataset`.

    Raises:
        DataNotFoundError: the folder holds no numbered notebook.
        MissingExtraError: the packages that execute notebooks are not installed.
        SeriesError: a notebook stopped with an error; its page shows how far it came.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
        from nbconvert import HTMLExporter
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Running the notebooks needs {error.name}. Install the extra: pip install 'pneumolib[notebooks]'"
        ) from error

    paths = sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise DataNotFoundError(
            f"There are no numbered notebooks in that folder. Get them with the repository. Received: {notebooks}"
        )
    out = Path(out).resolve()
    (out / "series").mkdir(parents=True, exist_ok=True)
    settings = {"PNEUMOLIB_HOME": str(out)}
    if preset != "auto":
        settings["PNEUMOLIB_PRESET"] = preset
    data = data or environment().data
    if data is not None:
        # The kernels run in the notebooks' folder: a relative path must not change its meaning.
        settings["PNEUMOLIB_DATA"] = data if data in ("kaggle", "phantom") else str(Path(data).resolve())

    pages = []
    with _environment(settings):
        for path in paths:
            print(f"{path.stem:<14}", end=" ", flush=True)
            began = time.perf_counter()
            notebook = nbformat.read(path, as_version=4)
            client = NotebookClient(
                notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
            )
            failure = None
            try:
                client.execute(stderr=subprocess.DEVNULL)
            except CellExecutionError as error:
                failure = error
            html, _ = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(
                notebook, resources={"metadata": {"name": path.stem}}
            )
            page = out / "series" / f"{path.stem}.html"
            page.write_text(html, encoding="utf-8")
            if failure is not None:
                print("stopped")
                raise SeriesError(f"{path.name} stopped with an error; see {page}\n{failure}") from failure
            print(f"{time.perf_counter() - began:6.0f} s   {page}", flush=True)
            pages.append(page)
    _print_result(out / "report.json")
    return pages


def _print_result(path: Path) -> None:
    """Print the few numbers of the report that notebook 05 left behind."""
    if not path.is_file():
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    title = "Result on the test images" + (
        " — PHANTOM: synthetic X-rays, no result at all" if report["phantom"] else ""
    )
    print(f"\n{title} (n = {report['n']}, operating point {report['operating_point']!r})")
    for name in ("auc", "accuracy", "sensitivity", "specificity", "f1", "brier", "ece"):
        low, high = report[f"{name}_ci"] or (float("nan"),) * 2
        if report[name] is not None:
            print(f"  {name:<12} {report[name]:.3f}   95 % interval {low:.3f} to {high:.3f}")
    print(f"  full report  {path}")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Give the kernels these variables: they inherit this process's environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
