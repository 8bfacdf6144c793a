"""The download: what is there already is taken, the rest is asked of a stand-in for Kaggle on this machine."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import kagglehub
import pytest
import requests
from kagglehub import exceptions
from kagglesdk import kaggle_env

from pneumolib.data import download
from pneumolib.data.card import CARD
from pneumolib.data.dataset import load_dataset
from pneumolib.data.phantom import make_phantom
from pneumolib.data.sources import FolderSource, open_source
from pneumolib.errors import DataError, DownloadError

FILES = {f"{part}/NORMAL/IM-{i:04d}-0001.jpeg": bytes([i]) * (50 + i) for part in ("train", "test") for i in range(5)}
# As in Kaggle's archive: the whole set a second time inside itself, and what a Mac leaves behind.
ARCHIVE = {
    **{f"chest_xray/{name}": content for name, content in FILES.items()},
    **{f"chest_xray/chest_xray/{name}": content for name, content in FILES.items()},
    **{f"chest_xray/__MACOSX/chest_xray/{Path(name).parent}/._{Path(name).name}": b"mac" for name in FILES},
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no mount, no account, no way out of this machine, and room on the disk."""
    for name in list(os.environ):
        if name.startswith(("KAGGLE", "TBE_", "COLAB_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home" / ".kaggle"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    # It walks through the whole stack, which is deep under pytest, and takes a second.
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "test")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, nobody)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def cache_entry() -> Path:
    return Path(os.environ["KAGGLEHUB_CACHE"], "datasets", "paultimothymooney", "chest-xray-pneumonia")


@pytest.fixture
def cached() -> Path:
    """The data set where kagglehub leaves it."""
    folder = write(cache_entry() / "versions" / "2", ARCHIVE)
    (cache_entry() / "2.complete").touch()
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", lambda *_, **__: pytest.fail("asked the network"))


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: str) -> str:
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", fail)


def refusal() -> str:
    """What the error of a download says."""
    with pytest.raises(DownloadError) as caught:
        download.download()
    said = str(caught.value)
    if (response := getattr(caught.value.__cause__, "response", None)) is not None:
        response.close()  # kagglehub leaves its connection open
    assert "\n" not in said
    assert said.endswith(".")
    return said


class Kaggle(ThreadingHTTPServer):
    """Stands in for Kaggle: sends who asks on to the storage, which sends the archive, whole or from a byte on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name, content in ARCHIVE.items():
                archive.writestr(name, content)
            archive.writestr("ballast", bytes(3_000_000))
        self.archive = data.getvalue()
        self.md5 = hashlib.md5(self.archive).digest()
        self.status = 302
        self.breaks_off_after: int | None = None
        self.asked: list[tuple[str, dict, str | None]] = []
        self.sent_from: list[int] = []


class Answer(BaseHTTPRequestHandler):
    server: Kaggle

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.send_header("Location", "/storage/archive.zip")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.sent_from.append(start)
        content = self.server.archive[start:]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("x-goog-hash", f"md5={base64.b64encode(self.server.md5).decode()}")
        self.end_headers()
        self.wfile.write(content[: self.server.breaks_off_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    with Kaggle() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        here = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, here)
        yield server
        server.shutdown()
        thread.join()


def test_a_download_from_end_to_end_needs_no_account_and_happens_once(kaggle: Kaggle):
    folder = download.download()
    assert {name: FolderSource(folder).read(name) for name in FolderSource(folder).names()} == FILES
    path, body, authorization = kaggle.asked[0]
    assert path == "/v1/datasets.DatasetApiService/DownloadDataset"
    assert (body["ownerSlug"], body["datasetSlug"]) == ("paultimothymooney", "chest-xray-pneumonia")
    assert body["datasetVersionNumber"] == 2
    assert authorization is None
    assert download.find_cached() == folder
    assert download.download() == folder
    assert load_dataset().kind == "kaggle"
    assert len(kaggle.asked) == 1


def test_the_handle_that_reaches_kagglehub_names_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: asked.append(handle) or str(tmp_path))
    assert download.download() == tmp_path
    assert asked == ["paultimothymooney/chest-xray-pneumonia/versions/2"]


def test_what_is_in_the_cache_is_taken_without_a_network(cached: Path, monkeypatch: pytest.MonkeyPatch):
    assert kagglehub.dataset_download(CARD.kaggle_handle) == str(cached)
    monkeypatch.setattr(kagglehub, "dataset_download", lambda *_: pytest.fail("asked the network"))
    assert download.find_cached() == download.download() == cached
    assert load_dataset().location == str(cached)


def test_an_unpacking_that_was_interrupted_does_not_count(cached: Path, monkeypatch: pytest.MonkeyPatch):
    (cache_entry() / "2.complete").unlink()
    assert download.find_cached() is None
    asked: list[str] = []
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: asked.append(handle) or str(cached))
    download.download()
    assert len(asked) == 1


def test_a_mark_without_files_or_of_another_version_does_not_count(cached: Path):
    (cache_entry() / "2.complete").rename(cache_entry() / "1.complete")
    assert download.find_cached() is None
    (cache_entry() / "2.complete").touch()
    assert download.find_cached() == cached
    shutil.rmtree(cached)
    assert download.find_cached() is None


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("inner", ["", "chest_xray/"])
@pytest.mark.parametrize(
    "mount",
    [
        "chest-xray-pneumonia",
        "chest-xray-pneumonia/versions/2",
        "datasets/paultimothymooney/chest-xray-pneumonia",
        "datasets/paultimothymooney/chest-xray-pneumonia/versions/2",
    ],
)
def test_the_mounts_of_colab_and_kaggle_are_found(mount: str, inner: str):
    folder = write(download.MOUNTS / mount, {inner + name: content for name, content in FILES.items()})
    assert download.find_cached() == download.download() == folder
    assert len(load_dataset().train) == 5


def test_an_empty_mount_does_not_count_and_the_cache_comes_before_a_mount(cached: Path):
    (cache_entry() / "2.complete").unlink()
    (download.MOUNTS / "chest-xray-pneumonia" / "chest_xray").mkdir(parents=True)
    assert download.find_cached() is None
    write(download.MOUNTS / "chest-xray-pneumonia", FILES)
    assert download.find_cached() == download.MOUNTS / "chest-xray-pneumonia"
    (cache_entry() / "2.complete").touch()
    assert download.find_cached() == cached


@pytest.mark.parametrize(
    ("status", "cause", "way_out"),
    [
        (401, "refused access (401)", "remove it"),
        (403, "refused access (403)", "accept the data set's terms"),
        (404, "does not know paultimothymooney/chest-xray-pneumonia", "get the zip from https://"),
        (429, "too often from here (429)", "wait some minutes"),
        (500, "error (500)", "try again later"),
        (503, "error (503)", "try again later"),
    ],
)
def test_an_answer_that_is_no_archive_becomes_one_sentence_with_a_way_out(
    kaggle: Kaggle, status: int, cause: str, way_out: str
):
    kaggle.status = status
    said = refusal()
    assert cause in said
    assert way_out in said
    assert len(kaggle.asked) == 1
    assert not kaggle.sent_from


def test_an_archive_that_came_damaged_is_removed_and_fetched_anew(kaggle: Kaggle):
    right, kaggle.md5 = kaggle.md5, bytes(16)
    said = refusal()
    assert "damaged and was removed" in said
    assert "run the same command again" in said
    kaggle.md5 = right
    assert len(open_source(download.download()).names()) == len(FILES)
    assert kaggle.sent_from == [0, 0]


def test_a_download_that_broke_off_goes_on_where_it_was(kaggle: Kaggle):
    kaggle.breaks_off_after = 2_000_000
    assert "broke off" in refusal()
    assert download.find_cached() is None
    kaggle.breaks_off_after = None
    assert len(open_source(download.download()).names()) == len(FILES)
    assert kaggle.sent_from[-1] >= 1_000_000


def test_without_a_network_the_error_says_so():
    assert "cannot be reached from here: there is no network" in refusal()
    with pytest.raises(DownloadError, match=r"no network.*Three ways out"):
        load_dataset()


@pytest.mark.parametrize("error", [requests.ConnectTimeout("timed out"), requests.ReadTimeout("timed out")])
def test_a_timeout_says_to_try_again(error: Exception, monkeypatch: pytest.MonkeyPatch):
    fails_with(error, monkeypatch)
    said = refusal()
    assert "did not answer in time" in said
    assert "run the same command again" in said


@pytest.mark.parametrize("text", ["{", '{"username": "somebody"}', '{"key": "secret"}'])
def test_a_malformed_kaggle_json_is_named(text: str):
    write(Path(os.environ["KAGGLE_CONFIG_DIR"]), {"kaggle.json": text.encode()})
    said = refusal()
    assert "cannot read your Kaggle credentials" in said
    assert "mend or remove kaggle.json" in said


def test_a_token_that_a_notebook_lacks_is_a_matter_of_credentials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", "http://127.0.0.1:1")
    said = refusal()
    assert "A JWT Token is required" in said
    assert "this public data set needs none" in said


def test_an_error_of_kaggles_own_keeps_its_number(monkeypatch: pytest.MonkeyPatch):
    fails_with(exceptions.BackendError("overloaded", 500), monkeypatch)
    said = refusal()
    assert "error (500)" in said
    assert CARD.url in said


@pytest.mark.usefixtures("no_network")
def test_too_small_a_disk_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4.9 * 10**9))
    said = refusal()
    assert "about 5 GB, 4.9 GB are free" in said
    assert "KAGGLEHUB_CACHE" in said


def test_the_disk_that_is_measured_is_that_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measured: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: measured.append(path) or SimpleNamespace(free=0))
    (tmp_path / "disk").mkdir()
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "disk" / "not" / "yet"))
    refusal()
    assert measured == [tmp_path / "disk"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_in_the_middle_is_told(number: int, monkeypatch: pytest.MonkeyPatch):
    fails_with(OSError(number, os.strerror(number)), monkeypatch)
    said = refusal()
    assert "disk is full" in said
    assert "Free some space" in said
    assert "KAGGLEHUB_CACHE" in said


def test_a_folder_that_may_not_be_written_is_named(monkeypatch: pytest.MonkeyPatch):
    fails_with(PermissionError(errno.EACCES, "Permission denied", "/locked/datasets"), monkeypatch)
    said = refusal()
    assert "may not write /locked/datasets" in said
    assert "set KAGGLEHUB_CACHE" in said


def test_an_error_that_nobody_foresaw_is_quoted_with_a_way_out(monkeypatch: pytest.MonkeyPatch):
    fails_with(RuntimeError("the moon is full"), monkeypatch)
    said = refusal()
    assert "RuntimeError: the moon is full" in said
    assert f"get the zip from {CARD.url}" in said


def test_who_presses_stop_is_obeyed(monkeypatch: pytest.MonkeyPatch):
    fails_with(KeyboardInterrupt(), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        download.download()


def test_without_kagglehub_a_mount_is_still_found_and_a_download_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    for name in [name for name in sys.modules if name.split(".")[0] == "kagglehub"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install kagglehub" in refusal()
    folder = write(download.MOUNTS / "chest-xray-pneumonia", FILES)
    assert download.download() == folder


@pytest.mark.usefixtures("cached", "no_network")
@pytest.mark.parametrize("there", [True, False])
def test_a_copy_holds_the_images_once_and_nothing_else(tmp_path: Path, there: bool):
    target = tmp_path / "deep" / "data"
    if there:
        target.mkdir(parents=True)
    assert download.download(to=target) == target
    copied = {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert copied == FILES
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.usefixtures("cached", "no_network")
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path):
    target = write(tmp_path / "data", {"thesis.docx": b"precious"})
    with pytest.raises(DataError, match=r"other files\. Name a new or an empty one\. Received: .*data"):
        download.download(to=target)
    with pytest.raises(DataError, match=r"Received: .*thesis\.docx"):
        download.download(to=target / "thesis.docx")
    assert [p.name for p in target.iterdir()] == ["thesis.docx"]
    assert (target / "thesis.docx").read_bytes() == b"precious"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.usefixtures("no_network")
def test_a_folder_that_holds_the_data_set_already_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = write(tmp_path / "data", FILES)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: pytest.fail("written again"))
    assert download.download(to=str(target)) == target


@pytest.mark.usefixtures("cached", "no_network")
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_copy_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException):
    target, read = tmp_path / "data", FolderSource.read
    names: list[str] = []

    def read_seven(source: FolderSource, name: str) -> bytes:
        if len(names) == 7:
            raise stop
        names.append(name)
        return read(source, name)

    monkeypatch.setattr(FolderSource, "read", read_seven)
    with pytest.raises((KeyboardInterrupt, DownloadError)):
        download.download(to=target)
    assert not target.exists()
    half_written = next(tmp_path.glob("*.partial")) / names[-1]
    half_written.write_bytes(b"half")

    again: list[str] = []
    monkeypatch.setattr(FolderSource, "read", lambda source, name: again.append(name) or read(source, name))
    assert download.download(to=target) == target
    assert again == sorted(set(FILES) - set(names[:-1]))
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.usefixtures("cached", "no_network")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"disk of .*data is full.*(?i:free some space).* goes on"),
        (PermissionError(errno.EACCES, "Permission denied", "/locked"), r"could not be copied to .*data.*/locked"),
    ],
)
def test_a_copy_that_cannot_be_written_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
):
    def fail(path: Path, content: bytes) -> int:
        raise error

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DownloadError, match=said):
        download.download(to=tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("cached", "no_network")
def test_a_folder_of_synthetic_x_rays_is_not_taken_for_the_data_set(tmp_path: Path):
    folder = make_phantom(tmp_path / "phantom", n_train=8, n_val=2, n_test=8, size=(64, 64))
    with pytest.raises(DataError, match="synthetic X-rays"):
        download.download(to=folder)


@pytest.mark.usefixtures("cached", "no_network")
def test_the_empty_folder_one_stands_in_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert len(open_source(download.download(to=".")).names()) == len(FILES)


@pytest.mark.usefixtures("cached", "no_network")
def test_a_strangers_folder_beside_the_target_is_not_absorbed(tmp_path: Path):
    write(tmp_path / "data.partial", {"thesis.docx": b"precious"})
    with pytest.raises(DataError, match=r"data\.partial is needed for the copy, and holds other files"):
        download.download(to=tmp_path / "data")
    assert (tmp_path / "data.partial" / "thesis.docx").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("Unsupported archive type."), "is no archive"),
        (requests.exceptions.InvalidProxyURL("bad proxy"), "mend HTTP_PROXY"),
        (requests.exceptions.JSONDecodeError("Expecting value", "", 0), "JSONDecodeError"),
        (requests.exceptions.ChunkedEncodingError("IncompleteRead"), "broke off; run the same command again"),
        (requests.ConnectionError("Read timed out."), "did not answer in time; run the same command again"),
        (requests.ConnectionError("refused"), "no network"),
        (exceptions.BackendError("'slug' missing"), "'slug' missing"),
    ],
)
def test_each_failure_is_called_by_its_own_name(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch):
    fails_with(error, monkeypatch)
    message = refusal()
    assert said in message
    assert "credentials" not in message
    assert CARD.url in message or "again" in message or "mend" in message


def test_a_cache_that_may_not_be_entered_is_told_with_the_ways_out(monkeypatch: pytest.MonkeyPatch):
    exists = Path.exists

    def locked(path: Path, **options: bool) -> bool:
        if "paultimothymooney" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", locked)
    assert download.find_cached() is None
    fails_with(PermissionError(errno.EACCES, "Permission denied", "/locked/datasets"), monkeypatch)
    with pytest.raises(DownloadError, match=r"may not write /locked/datasets:.*Three ways out"):
        load_dataset()
