"""The project's own facts for the tools: its root, its public address, its version and what it requires."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
COLAB_REQUIREMENTS = ROOT / "requirements-colab.txt"


def pyproject() -> dict[str, Any]:
    """Return pyproject.toml as a dict."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def address() -> str:
    """Return the public address of the repository, as [project.urls] says it, without a slash at the end."""
    return str(pyproject()["project"]["urls"]["Repository"]).rstrip("/")


def version() -> str:
    """Return the version that the package states."""
    text = (ROOT / "pneumolib" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if not found:
        raise SystemExit("pneumolib/__init__.py states no __version__.")
    return found[1]


def tag() -> str:
    """Return the tag that a release of this version carries; badges and set-up cells point to it."""
    return f"v{version()}"


def colab_lacks() -> dict[str, str]:
    """Return name -> version of what requirements-colab.txt installs on top of Colab."""
    return _pins(r"^([\w.-]+)==(\S+)$")


def colab_pins() -> dict[str, str]:
    """Return name -> version of what requirements-colab.txt relies on in Colab."""
    return _pins(r"^# colab: ([\w.-]+)==(\S+)$")


def normal(name: str) -> str:
    """Return a package's name in the one spelling that all its spellings share (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(pattern: str) -> dict[str, str]:
    text = COLAB_REQUIREMENTS.read_text(encoding="utf-8")
    return {normal(name): number for name, number in re.findall(pattern, text, flags=re.MULTILINE)}
