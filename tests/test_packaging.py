"""What pyproject.toml, requirements-colab.txt and the other statements about the project say of one another."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import pneumolib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COLAB_TEXT = (ROOT / "requirements-colab.txt").read_text(encoding="utf-8")
COLAB_HAS = dict(re.findall(r"^# colab: ([\w.-]+)==(\S+)$", COLAB_TEXT, flags=re.MULTILINE))
COLAB_LACKS = dict(re.findall(r"^([\w.-]+)==(\S+)$", COLAB_TEXT, flags=re.MULTILINE))
EXTRAS = PROJECT["optional-dependencies"]
# Colab keeps its Pillow, which other packages there need; the server tells what that means.
SERVED_IN_COLAB = [text for text in EXTRAS["serve"] if Requirement(text).name != "pillow"]
NEEDED_IN_COLAB = [Requirement(text) for text in PROJECT["dependencies"] + EXTRAS["train"] + SERVED_IN_COLAB]


def normal(name: str) -> str:
    """A package's name in the one spelling that all its spellings share."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("requirement", NEEDED_IN_COLAB, ids=lambda requirement: requirement.name)
def test_declared_range_admits_what_colab_has_or_is_given(requirement: Requirement) -> None:
    number = {normal(name): number for name, number in (COLAB_HAS | COLAB_LACKS).items()}[normal(requirement.name)]
    assert requirement.specifier.contains(number)


def test_nothing_is_given_to_colab_that_it_has() -> None:
    assert not set(COLAB_HAS) & set(COLAB_LACKS)


def test_every_line_for_colab_is_understood() -> None:
    lines = [line for line in COLAB_TEXT.splitlines() if line and not line.startswith("# ")]
    assert len(lines) == len(COLAB_LACKS) > 0


def test_python_range_is_what_the_classifiers_say() -> None:
    named = [text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in allowed] == named
    assert Version("{}.{}.{}".format(*sys.version_info[:3])) in allowed


@pytest.mark.parametrize("requirement", NEEDED_IN_COLAB, ids=lambda requirement: requirement.name)
def test_every_range_has_a_lower_end(requirement: Requirement) -> None:
    assert any(part.operator == ">=" for part in requirement.specifier)


def test_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf'^version: "?{re.escape(pneumolib.__version__)}"?$', citation, flags=re.MULTILINE)
    assert re.search(rf"^## \[?{re.escape(pneumolib.__version__)}\b", changes, flags=re.MULTILINE)


def test_licence_is_the_whole_apache_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"
