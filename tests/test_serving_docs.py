"""docs/serving.md: its commands and programs run as they stand, and it says what the code says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.routing import APIRoute
from PIL import Image

from pneumolib.data.radiograph import draw
from pneumolib.models.detector import load_detector
from pneumolib.serving import schema
from pneumolib.serving.app import create_app
from pneumolib.serving.server import BackgroundServer
from pneumolib.serving.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
KEY = "a-key-for-the-tests-only"


def blocks(language: str) -> list[str]:
    """The code of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """The commands of a shell block, those over several lines made one."""
    return [line for line in block.replace("\\\n", "").splitlines() if line.startswith("curl ")]


CURL = [command for block in blocks("sh") for command in commands(block)]
# Commands with the answer that the page shows below them.
SHOWN = [
    (commands(command)[-1], json.loads(answer))
    for command, answer in re.findall(r"^```sh\n([^`]*)^```\n```json\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[bool, str]]:
    """The addresses of a server, and of one that asks for a key."""
    detector = load_detector(threads=1)
    settings = {"port": 0, "lanes": 1}
    with (
        BackgroundServer(detector, Settings(**settings)) as open_to_all,
        BackgroundServer(detector, Settings(**settings, api_key=KEY)) as kept,
    ):
        yield {False: open_to_all.url, True: kept.url}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page sends."""
    folder = tmp_path_factory.mktemp("files")
    pixels = draw("normal", 12, size=(448, 540))
    Image.fromarray(pixels).save(folder / "x-ray.jpeg")
    Image.fromarray(draw("bacterial", 3)).save(folder / "another.png")
    (folder / "x-ray.dcm").write_bytes(dicom(pixels))
    return folder


def dicom(pixels: np.ndarray) -> bytes:
    """An X-ray as the smallest DICOM file that holds one."""
    import io

    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PhotometricInterpretation, data.PresentationIntentType = "DX", "MONOCHROME2", "FOR PRESENTATION"
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.Rows, data.Columns = pixels.shape
    data.PixelData = pixels.tobytes()
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shell(command: str, folder: Path, servers: dict[bool, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the page against the server that it is meant for."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    address = servers["PNEUMOLIB_API_KEY" in command]
    assert "http://127.0.0.1:8000/" in command
    return subprocess.run(
        ["sh", "-c", command.replace("http://127.0.0.1:8000", address).replace("curl ", "curl --silent --show-error ")],
        cwd=folder,
        env={**os.environ, "PNEUMOLIB_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def shape(value: Any) -> Any:
    """The names in an answer, without its values."""
    return {name: shape(part) for name, part in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("command", [c for c in CURL if c not in dict(SHOWN)])
def test_a_command_of_the_page_is_answered_with_success(command: str, folder: Path, servers: dict[bool, str]) -> None:
    done = shell(command.replace("curl ", "curl --fail "), folder, servers)
    if "--output heat.png" in command:
        with Image.open(folder / "heat.png") as picture:
            assert picture.size == (540, 448)
    elif command.endswith("/metrics"):
        assert "pneumolib_ready 1.0" in done.stdout
    else:
        told = json.loads(done.stdout)
        answers = [result["answer"] for result in told.get("results", [])] or [told]
        assert "/v1/predict" not in command or all(answer["input"]["ok"] for answer in answers)


@pytest.mark.parametrize(("command", "answer"), SHOWN, ids=[answer.get("code", "answer") for _, answer in SHOWN])
def test_an_answer_that_is_shown_looks_like_the_one_that_comes(
    command: str, answer: dict[str, Any], folder: Path, servers: dict[bool, str]
) -> None:
    came = json.loads(shell(command, folder, servers).stdout)
    assert shape(came) == shape(answer)
    for name in ("schema", "type", "status", "code", "notice", "decision"):
        assert came.get(name) == answer.get(name)


def test_the_page_shows_commands_and_answers() -> None:
    assert len(CURL) > 8
    assert len(SHOWN) == 2


def test_its_tables_are_those_of_the_code() -> None:
    command = [sys.executable, str(ROOT / "tools" / "serving_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_explains_every_field_of_an_answer() -> None:
    (table,) = re.findall(r"^### The answer\n(.*?)^### ", PAGE, flags=re.DOTALL | re.MULTILINE)
    fields = [field.serialization_alias or name for name, field in schema.Answer.model_fields.items()]
    assert re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) == fields


def test_it_lists_every_address() -> None:
    app = create_app(load_detector(threads=1))
    there = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods
    }
    listed = set(re.findall(r"`(GET|POST) (/v[12]/[\w/:]+|/metrics)`", PAGE))
    assert listed == there


def test_its_programs_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    monkeypatch.setattr("pneumolib.serving.server.run", lambda detector, settings: ran.append(settings))
    notebook, program = blocks("python")
    exec(compile(notebook, "serving.md", "exec"), {})
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    exec(compile(program, "serving.md", "exec"), {})
    assert [settings.max_bytes for settings in ran] == [8 * 2**20]


def test_what_it_links_to_is_there() -> None:
    headings = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in PAGE.split("\n#")[1:]
                for line in [line.split("\n")[0].lstrip("#")]}  # fmt: skip
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert not path or (ROOT / "docs" / path).exists(), link
        assert not anchor or anchor in headings, link


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_proxy_of_the_page_passes_pictures_and_keeps_its_promises(
    folder: Path, servers: dict[bool, str], tmp_path: Path
) -> None:
    nginx, openssl = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("nginx or openssl is not installed")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "pem", "-days", "1",
         "-subj", "/CN=127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    port, (snippet,) = free_port(), blocks("nginx")
    (allowed,) = re.findall(r"client_max_body_size (\d+)m;", snippet)
    assert int(allowed) * 2**20 > max(Settings().max_batch_bytes, Settings().max_bytes)
    for there, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/nginx/tls/x-ray.example.pem", f"{tmp_path}/pem"),
        ("/etc/nginx/tls/x-ray.example.key", f"{tmp_path}/key"),
        ("http://127.0.0.1:8000/", f"{servers[False]}/"),
    ):
        assert there in snippet
        snippet = snippet.replace(there, here)
    places = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {places}\n{snippet}\n}}\n"
    )
    process = subprocess.Popen([nginx, "-e", f"{tmp_path}/error.log", "-c", str(configuration)])
    try:
        context = ssl.create_default_context(cafile=f"{tmp_path}/pem")
        context.check_hostname = False

        def ask(path: str, body: bytes | None = None) -> tuple[int, Any]:
            headers = {"Content-Type": "application/octet-stream"} if body else {}
            request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", body, headers)
            try:
                with urllib.request.urlopen(request, context=context, timeout=30) as response:
                    return response.status, response.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        for _ in range(600):
            try:
                ask("/pneumonia/v2/health/live")
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "error.log").read_text()
                time.sleep(0.05)
        assert ask("/pneumonia/")[1].lstrip().startswith(b"<!DOCTYPE html>")
        assert ask("/pneumonia/metrics")[0] == 404
        status, answer = ask("/pneumonia/v1/predict", (folder / "x-ray.jpeg").read_bytes())
        assert (status, json.loads(answer)["decision"]) == (200, "normal")
        status, problem = ask("/pneumonia/v1/predict", bytes(Settings().max_bytes + 2**20))
        assert (status, json.loads(problem)["code"]) == (413, "body_too_large")
        assert {ask("/pneumonia/v2/health/ready")[0] for _ in range(60)} == {200, 429}
        assert list((tmp_path / "client_body").iterdir()) == []
    finally:
        process.terminate()
        process.wait()
