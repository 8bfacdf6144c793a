"""A folder that stands whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pneumolib.errors import ArtifactError


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of `folder` when all went well and else is gone.

    What stood at `folder` stays until then, and comes back where its place cannot be taken. Whether it may be replaced
    is for the caller to see beforehand.

    Raises:
        ArtifactError: nothing can be written there.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new"
        >>> with replaced(target) as partial:
        ...     written = (partial / "a.txt").write_text("whole")
        >>> [path.name for path in target.iterdir()]
        ['a.txt']
    """
    partial, before = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.replaced")
    for left_behind in (partial, before):
        shutil.rmtree(left_behind, ignore_errors=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise ArtifactError(f"This cannot be written to: {folder} ({error.strerror}).") from error
    try:
        yield partial
        if folder.exists():
            os.replace(folder, before)
        try:
            os.replace(partial, folder)
        except OSError:
            if before.exists():
                os.replace(before, folder)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)
