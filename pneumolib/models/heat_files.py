"""Heat maps of pictures as files in a folder."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from pneumolib.data.images import decode
from pneumolib.data.pictures import is_below
from pneumolib.errors import DataError
from pneumolib.evaluation.heat_png import LONGEST, heat_png, is_heat_png
from pneumolib.models.detector import Detector
from pneumolib.models.explain import Explanation
from pneumolib.models.files import PHANTOM_WARNING

_numbers = itertools.count()


@dataclass(frozen=True)
class HeatFolder:
    """A folder for heat maps; it is made where it is not there.

    Raises:
        DataError: it cannot be made.
    """

    path: Path

    def __post_init__(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"The folder {self.path} cannot be made: {error.strerror}.") from error

    def write(self, name: Path, source: Path, found: Explanation, detector: Detector) -> Path:
        """Write the heat map of a file, whole or not at all, over an older one, and return its path.

        Args:
            name: its path in the folder, to which ``.png`` is added.
            source: the file of the picture, of which the whole is drawn.
            found: as `explain` gives it for that file.
            detector: which gave it.

        Raises:
            ImageError: the picture cannot be read any more.
            DataError: the name leads out of the folder, a file that is no heat map has it, or it cannot be written.
        """
        target = self.path / name.with_name(f"{name.name}.png")
        picture = decode(source, at_least=LONGEST)
        warning = PHANTOM_WARNING if found.phantom else ""
        content = heat_png(picture, found.on(picture), description=_description(found, detector), warning=warning)
        if not is_below(target.parent, self.path):
            raise DataError(f"{source}: its heat map would stand outside {self.path}, behind a link: {target}")
        if os.path.lexists(target) and not is_heat_png(target):
            raise DataError(f"{source}: its heat map is not written over another file: {target}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, content)
        except OSError as error:
            raise DataError(f"{source}: its heat map cannot be written to {target}: {error.strerror}.") from error
        return target


def _write(target: Path, content: bytes) -> None:
    # A name of its own, since a file given twice is drawn by two threads.
    partial = target.with_name(f".{os.getpid()}-{next(_numbers)}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _description(found: Explanation, detector: Detector) -> str:
    answer = found.prediction
    return (
        f"Where the detector {detector.name} found what speaks for {found.target} (heat map, method {found.method}). "
        f"Its answer: {answer.decision}, probability {answer.probability:.3f} (threshold {answer.threshold:.3f}, "
        f"{answer.operating_point}). Research and teaching software; not for diagnosis."
    )
