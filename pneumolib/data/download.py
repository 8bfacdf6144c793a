"""The data set from Kaggle, by kagglehub: looked for where it may already be, then fetched, without an account.

The handle names a version, because kagglehub asks the network for the newest one otherwise, even where the files are
already there.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path, PurePosixPath

from pneumolib.data.card import CARD
from pneumolib.data.sources import FolderSource
from pneumolib.errors import DataError, DownloadError

NEEDED_BYTES = 5 * 10**9  # Kaggle's archive and what it unpacks to stand side by side for a moment
MOUNTS = Path("/kaggle/input")  # where Colab and Kaggle show data sets, read-only


def find_cached() -> Path | None:
    """Return the folder where the data set already is: kagglehub's cache, or Colab's or Kaggle's mount; else None.

    The network is not asked. An unpacking that was interrupted does not count, nor does a folder that may not be read.
    """
    owner, slug, _, version = CARD.kaggle_handle.split("/")
    candidates = [MOUNTS / slug, MOUNTS / "datasets" / owner / slug]
    candidates += [folder / "versions" / version for folder in candidates]
    cache = _cache_folder()
    if cache is not None and _stands(cache / "datasets" / owner / slug / f"{version}.complete"):
        candidates.insert(0, cache / "datasets" / owner / slug / "versions" / version)
    for folder in candidates:
        if any(_stands(folder / top / part) for top in ("", "chest_xray") for part in ("train", "test")):
            return folder
    return None


def download(to: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds the data set, fetching it first where it is not there yet.

    Args:
        to: a new or empty folder that is to hold the images (once, without the archive's second copy); None leaves
            them in kagglehub's cache. An interrupted copy goes on where it was.

    Raises:
        DownloadError: it could not be fetched; one sentence says why and what to do.
        DataError: `to` holds other files, or the phantom; or ``.partial`` beside it is not from an earlier copy.
    """
    target = Path(to).absolute() if to is not None else None
    if target is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        return _already_there(target)
    folder = find_cached() or _fetch()
    return folder if target is None else _copy(folder, target)


def _fetch() -> Path:
    try:
        import kagglehub
    except ModuleNotFoundError as error:
        raise DownloadError("Fetching needs kagglehub, which is not installed: pip install kagglehub.") from error
    try:
        _require_space(_cache_folder() or Path.home())
        return Path(kagglehub.dataset_download(CARD.kaggle_handle))
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(_in_words(error)) from error


def _in_words(error: Exception) -> str:
    """Say in one sentence what kagglehub's error means and what to do about it."""
    import requests
    from kagglehub import exceptions

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, exceptions.DataCorruptionError):
        return "The archive came damaged and was removed; run the same command again to fetch it anew."
    if isinstance(error, requests.HTTPError | exceptions.BackendError):
        status = status or getattr(error, "error_code", None)
        if status is None:
            return f"Kaggle answered with an error ({error}); try again later, or get the zip from {CARD.url}."
        if status in (401, 403):
            return (
                f"Kaggle refused access ({status}): a wrong or old Kaggle token is in use; remove it (the data set is "
                "public and needs none), or accept the data set's terms on its page."
            )
        if status == 404:
            return f"Kaggle does not know {CARD.kaggle_handle} (404): get the zip from {CARD.url} and pass its path."
        if status == 429:
            return "Kaggle is asked too often from here (429): wait some minutes and run the same command again."
        return f"Kaggle answered with an error ({status}); try again later, or get the zip from {CARD.url}."
    if isinstance(error, requests.Timeout) or (
        isinstance(error, requests.ConnectionError) and "timed out" in str(error)
    ):
        return "Kaggle did not answer in time; run the same command again, it goes on where it was."
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "The connection broke off; run the same command again, it goes on where it was."
    if isinstance(error, requests.exceptions.InvalidProxyURL):
        return f"The proxy that this machine's settings name is none ({error}); mend HTTP_PROXY and HTTPS_PROXY."
    if isinstance(error, requests.ConnectionError):
        return (
            "Kaggle cannot be reached from here: there is no network, or a proxy or firewall is in the way; run the "
            "same command again where there is one."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk is full: fetching needs about {NEEDED_BYTES / 1e9:.0f} GB. Free some space, or set "
            "KAGGLEHUB_CACHE to a folder on another disk."
        )
    if isinstance(error, PermissionError):
        return f"kagglehub may not write {error.filename}: set KAGGLEHUB_CACHE to a folder of yours."
    if isinstance(error, exceptions.CredentialError) or (
        isinstance(error, ValueError) and "credentials" in str(error).lower()
    ):
        return (
            f"kagglehub cannot read your Kaggle credentials ({error}): mend or remove kaggle.json or the token; "
            "this public data set needs none."
        )
    if isinstance(error, ValueError) and "archive" in str(error).lower():
        return (
            "What was sent in the data set's place is no archive: a log-in page of the network, perhaps; run the same "
            f"command again on another network, or get the zip from {CARD.url} and pass its path."
        )
    return f"kagglehub failed ({type(error).__name__}: {error}); get the zip from {CARD.url} and pass its path."


def _stands(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above it may not be entered
        return False


def _cache_folder() -> Path | None:
    try:
        from kagglehub.config import get_cache_folder
    except ModuleNotFoundError:
        return None
    return Path(get_cache_folder())


def _require_space(folder: Path) -> None:
    while not _stands(folder) and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise DownloadError(
            f"There is too little space on the disk of {folder}: fetching needs about {NEEDED_BYTES / 1e9:.0f} GB, "
            f"{free / 1e9:.1f} GB are free. Free some, or set KAGGLEHUB_CACHE to a folder on another disk."
        )


def _already_there(target: Path) -> Path:
    """Return `target` if it holds a data set; else say that it holds other files."""
    try:
        phantom = FolderSource(target).phantom
    except (DataError, OSError) as error:
        raise DataError(f"That folder holds other files. Name a new or an empty one. Received: {target}") from error
    if phantom:
        raise DataError(f"That folder holds synthetic X-rays. Name a new or an empty one. Received: {target}")
    return target


def _copy(folder: Path, target: Path) -> Path:
    """Copy the images to `target` by way of a neighbour with another name, so that `target` is whole or not there."""
    source = FolderSource(folder)
    partial = target.with_name(target.name + ".partial")
    known = {path for name in source.names() for path in (name, *map(str, PurePosixPath(name).parents))}
    if partial.exists() and any(path.relative_to(partial).as_posix() not in known for path in partial.rglob("*")):
        raise DataError(f"{partial} is needed for the copy, and holds other files. Move it, or name another folder.")
    try:
        for name, size in source.names().items():
            file = partial / name
            if file.is_file() and file.stat().st_size == size:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source.read(name))
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"The disk of {target} is full. Free some space and run the same command again; "
                "it goes on where it was."
            ) from error
        raise DownloadError(f"The images could not be copied to {target}: {error}.") from error
    return target
