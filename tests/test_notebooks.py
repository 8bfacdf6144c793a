"""The notebooks' pairs, their frame, and the shape of what they show; nbval tests that they run."""

from __future__ import annotations

import base64
import importlib.util
import re
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("01_download", "02_explore", "03_augment", "04_train", "05_evaluate", "06_serve")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The tool that keeps the pairs; it lies outside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        import notebooks  # type: ignore[import-not-found]

        yield notebooks
    for name in ("notebooks", "project"):
        sys.modules.pop(name, None)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def notebook(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def tagged(notebook: Any, tag: str) -> list[Any]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def bullets(text: str) -> list[str]:
    """The items of the first bullet list in `text`."""
    items = re.search(r"(?:^- .*\n?(?:^  .*\n?)*)+", text, flags=re.MULTILINE)
    return re.findall(r"^- ", items[0], flags=re.MULTILINE) if items else []


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code(notebook) for output in cell.outputs]


class TestPairs:
    def test_the_folder_holds_the_series_and_nothing_else(self) -> None:
        found = {path.name for path in NOTEBOOKS.glob("*.py")} | {path.name for path in NOTEBOOKS.glob("*.ipynb")}
        assert found == {f"{name}.{kind}" for name in NAMES for kind in ("py", "ipynb")} | {"conftest.py"}

    def test_pair_is_in_step_and_the_frame_is_fresh(self, tool: ModuleType, name: str) -> None:
        assert tool.drift(name) == []

    def test_ipynb_renders_to_the_very_text_of_the_py(self, name: str) -> None:
        # Times of files say nothing after a checkout; the rendered text does.
        rendered = jupytext.writes(jupytext.read(NOTEBOOKS / f"{name}.ipynb"), fmt="py:percent")
        assert rendered == (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")

    def test_drift_is_seen(self, tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind in ("py", "ipynb"):
            (tmp_path / f"01_download.{kind}").write_bytes((NOTEBOOKS / f"01_download.{kind}").read_bytes())
        monkeypatch.setattr(tool, "names", lambda: list(NAMES))
        for later in NAMES[1:]:
            (tmp_path / f"{later}.py").write_bytes((NOTEBOOKS / f"{later}.py").read_bytes())
        monkeypatch.setattr(tool, "NOTEBOOKS", tmp_path)
        assert tool.drift("01_download") == []
        source = tmp_path / "01_download.py"
        source.write_text(source.read_text(encoding="utf-8") + "\n# %%\nprint(1)\n", encoding="utf-8")
        assert tool.drift("01_download") == ["01_download.ipynb and 01_download.py differ"]

    def test_readme_table_is_fresh(self, tool: ModuleType) -> None:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert "<!-- series:start -->" in text
        assert tool.readme_text(text) == text

    def test_public_address_is_one(self, tool: ModuleType) -> None:
        owner = tool.address().removeprefix("https://")
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for path in tracked.splitlines():
            if path.startswith("tests/") or not (ROOT / path).is_file():
                continue
            text = (ROOT / path).read_bytes().decode("utf-8", errors="ignore")
            other = {f"github.com/{found}" for found in re.findall(r"github\.com/([\w-]+/pneumolib)\b", text)}
            assert other <= {owner}, path


class TestFrame:
    def test_cells_of_the_frame_stand_where_they_should(self, tool: ModuleType, name: str, notebook: Any) -> None:
        cells = notebook.cells
        assert cells[0].source == tool.badge(name)
        assert f"/blob/{tool.tag()}/notebooks/{name}.ipynb" in cells[0].source
        assert cells[1].source.startswith(f"# {int(name[:2])} · ")
        assert cells[2].source == tool.setup_cell()
        assert cells[2].metadata.cellView == "form"
        assert cells[-1].source == tool.next_cell(name)

    def test_opening_says_what_to_expect(self, notebook: Any) -> None:
        opening = notebook.cells[1].source
        _, goals = opening.split("**In this notebook you**")
        assert 3 <= len(bullets(goals)) <= 5
        for label in ("Time", "Hardware", "Needs", "Leaves"):
            assert f"**{label}**" in opening

    def test_ending_takes_up_the_goals_and_asks_three_questions(self, notebook: Any) -> None:
        text = prose(notebook)
        goals = bullets(notebook.cells[1].source.split("**In this notebook you**")[1])
        done, asked = text.split("## What you have done")[1].split("## Three questions")
        assert len(bullets(done)) == len(goals)
        asked = asked.split("<details>")[0]
        assert re.findall(r"^(\d)\. ", asked, flags=re.MULTILINE) == ["1", "2", "3"]

    def test_links_between_notebooks_lead_somewhere(self, notebook: Any) -> None:
        for target in re.findall(r"\]\(([\w./-]+\.(?:ipynb|md|py))\)", prose(notebook)):
            assert (NOTEBOOKS / target).exists(), target

    def test_set_up_cell_installs_in_colab_and_changes_nothing_there(
        self, tool: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[list[str]] = []
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(subprocess, "check_call", calls.append)
        exec(tool.setup_cell(), {})
        assert len(calls) == 2
        for call in calls:
            assert call[:4] == [sys.executable, "-m", "pip", "install"]
            assert "--no-deps" in call
            assert tool.address() in call[-1]
            assert tool.tag() in call[-1]

    def test_set_up_cell_only_imports_elsewhere(self, tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[list[str]] = []
        monkeypatch.setattr(subprocess, "check_call", calls.append)
        names: dict[str, Any] = {}
        exec(tool.setup_cell(), names)
        assert calls == []
        assert names["pn"].__name__ == "pneumolib"

    def test_gpu_is_asked_for_where_a_net_is_trained(self, name: str, notebook: Any) -> None:
        assert (notebook.metadata.get("accelerator") == "GPU") == (name == "04_train")


class TestShape:
    def test_cells_are_short(self, notebook: Any) -> None:
        lengths = [len(cell.source.splitlines()) for cell in code(notebook)]
        assert statistics.median(lengths) <= 8
        assert max(lengths) <= 25

    def test_prose_accompanies_code(self, notebook: Any) -> None:
        assert len(notebook.cells) - len(code(notebook)) >= 0.7 * len(code(notebook))

    def test_code_is_plain_python_without_tricks(self, notebook: Any) -> None:
        for cell in code(notebook)[1:]:
            compile(cell.source, "cell", "exec")
            assert not re.search(r"^\s*[%!]", cell.source, flags=re.MULTILINE)
            assert not re.search(r"google\.colab|\binput\(|filterwarnings|os\.environ", cell.source)
            assert not cell.source.rstrip().endswith(";")

    def test_notebook_tests_itself(self, notebook: Any) -> None:
        contracts = tagged(notebook, "nbval-check-output")
        assert len(contracts) >= 3
        for cell in contracts:
            assert cell.outputs, f"nothing to compare:\n{cell.source}"
            assert all("text/html" not in output.get("data", {}) for output in cell.outputs)
        assert any(re.search(r"^assert ", cell.source, flags=re.MULTILINE) for cell in code(notebook))

    def test_pictures_are_read(self, notebook: Any) -> None:
        for cell, following in zip(notebook.cells, notebook.cells[1:], strict=False):
            if cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs):
                assert following.cell_type == "markdown", f"no reading after the picture of:\n{cell.source}"


class TestStoredOutput:
    def test_notebook_was_run_from_top_to_bottom(self, notebook: Any) -> None:
        counts = [cell.execution_count for cell in code(notebook)]
        assert counts == list(range(1, len(counts) + 1))

    def test_no_errors_and_no_log_lines(self, notebook: Any) -> None:
        for output in outputs(notebook):
            assert output.output_type != "error"
            assert output.get("name") != "stderr"

    def test_no_path_of_a_machine(self, notebook: Any) -> None:
        for output in outputs(notebook):
            text = output.get("text", "") or "".join(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"/(?:tmp|home|root|Users|work|content)/|[A-Z]:\\", text), text

    def test_size_is_fit_for_reading_online(self, name: str, notebook: Any) -> None:
        assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size <= 1_000_000
        for output in outputs(notebook):
            png = output.get("data", {}).get("image/png")
            assert png is None or len(base64.b64decode(png)) <= 100_000
