"""The way that dependencies point, read from the imports; and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pneumolib

PACKAGE = Path(pneumolib.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import from its own and from those that stand before it in its row. The rooms of one row do not know each
# other, save the three at the bottom.
ALLOWED = {
    "errors": {"errors"},
    "config": {"errors", "config", "runtime"},
    "runtime": {"errors", "config", "runtime"},
    "data": {"errors", "config", "runtime", "data"},
    "evaluation": {"errors", "config", "runtime", "evaluation"},
    "models": {"errors", "config", "runtime", "data", "evaluation", "models"},
    "serving": {"errors", "config", "runtime", "data", "evaluation", "models", "serving"},
    "scale": {"errors", "config", "runtime", "data", "evaluation", "models", "scale"},
    "series": {"errors", "config", "runtime", "series"},
}
LIGHT = ("errors", "config", "runtime", "data", "evaluation")
DEEP = ("tensorflow", "keras")
HEAVY = (
    *DEEP,
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "seaborn",
    "cv2",
    "onnxruntime",
    "numpy",
    "PIL",
    "kagglehub",
)


def room(path: Path) -> str:
    """The room of a file: its folder in the package, or its own name at the top level."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where an arrow points"
            if node.module == "pneumolib":
                yield from (f"pneumolib.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def rooms_used(path: Path) -> set[str]:
    """The rooms of the package that a file imports from, with public names resolved to their homes."""
    firsts = {name.split(".")[1] for name in imported(path) if name.startswith("pneumolib.")}
    firsts |= {name.split(".")[1] for name in attributes(path) if name.startswith("pneumolib.")}
    return {pneumolib._HOME.get(first, first).split(".")[0] for first in firsts if not first.startswith("__")}


def attributes(path: Path) -> set[str]:
    """The dotted names that a file uses, such as `os.environ`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}


def run(code: str) -> str:
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(*rooms: str) -> list[Path]:
    return [path for path in FILES if room(path) in rooms]


def label(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in ALLOWED], ids=label)
def test_no_arrow_points_up(path: Path) -> None:
    assert rooms_used(path) <= ALLOWED[room(path)]


def test_every_file_has_a_place_in_the_order() -> None:
    assert {room(path) for path in FILES} <= {*ALLOWED, "cli", "__init__", "__main__"}


def test_nothing_below_imports_the_command_line() -> None:
    assert [label(path) for path in FILES if "cli" in rooms_used(path) and room(path) not in ("cli", "__main__")] == []


@pytest.mark.parametrize("path", [p for p in files_of(*LIGHT) if room(p) != "runtime"], ids=label)
def test_light_rooms_name_no_deep_learning_package(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & set(DEEP)
    assert not attributes(path) & {"runtime.keras", "runtime.tensorflow"}


def test_data_and_evaluation_can_be_imported_without_tensorflow() -> None:
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files_of(*LIGHT)]
    modules = [name.removesuffix(".__init__") for name in modules]
    run(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({DEEP!r}))\n"
        f"for name in {modules!r}:\n    importlib.import_module(name)"
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert run(f"import sys, pneumolib\nprint([name for name in {HEAVY!r} if name in sys.modules])") == "[]\n"


def test_only_config_reads_the_projects_environment_variables() -> None:
    readers = [path for path in FILES if attributes(path) & {"os.environ", "os.getenv", "environ", "getenv"}]
    assert {room(path) for path in readers} <= {"config", "runtime", "series"}
    for path in readers:
        if room(path) != "config":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Subscript | ast.Call) and ast.unparse(node).startswith(
                    ("os.environ", "os.getenv")
                ):
                    reads = isinstance(node, ast.Call) or isinstance(node.ctx, ast.Load)
                    assert not (reads and "PNEUMOLIB_" in ast.unparse(node)), f"{label(path)}: {ast.unparse(node)}"


def test_only_runtime_knows_colab() -> None:
    assert [label(path) for path in FILES if "google.colab" in path.read_text(encoding="utf-8")] == ["runtime.py"]


@pytest.mark.parametrize("name", pneumolib.__all__)
def test_public_name_is_there_and_no_module_stands_in_for_it(name: str) -> None:
    value = getattr(pneumolib, name)
    assert isinstance(value, ModuleType) == (name in ("errors", "plots"))


def test_public_names_are_the_same_for_type_checkers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typed = {alias.asname for block in blocks for node in block.body for alias in getattr(node, "names", [])}
    assert typed == set(pneumolib._HOME)


def test_a_wrong_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pneumolib.nothing
