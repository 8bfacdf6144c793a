"""The machine underneath: what is held back, what is found, and what is said where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumolib import runtime
from pneumolib.errors import DataNotFoundError

NATIVE_NOISE = b"noise of native code\n"


def fresh(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter, whose standard error nobody has touched."""
    surroundings = {**os.environ, "PNEUMOLIB_TF_LOGS": "", **variables}
    return subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False)


class TestQuiet:
    def test_native_noise_is_held_back_and_later_lines_are_not(self, capfd: pytest.CaptureFixture[str]) -> None:
        with runtime.quiet():
            os.write(2, NATIVE_NOISE)
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "after\n"

    def test_error_lets_the_noise_through(self, capfd: pytest.CaptureFixture[str]) -> None:
        @runtime.quiet()
        def fail_noisily() -> None:
            os.write(2, NATIVE_NOISE)
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            fail_noisily()
        assert capfd.readouterr().err == NATIVE_NOISE.decode()

    def test_switch_lets_it_through(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PNEUMOLIB_TF_LOGS", "1")
        with runtime.quiet():
            os.write(2, NATIVE_NOISE)
        assert capfd.readouterr().err == NATIVE_NOISE.decode()

    def test_no_file_descriptor_is_lost(self) -> None:
        before = os.dup(2)
        os.close(before)
        for _ in range(20):
            with runtime.quiet():
                pass
        after = os.dup(2)
        os.close(after)
        assert after == before


def test_keras_and_tensorflow_come_without_a_word() -> None:
    pytest.importorskip("tensorflow")
    done = fresh(
        # What tells TensorFlow that a person is there, as in a notebook.
        "import sys; sys.ps1 = '>>> '\n"
        "from pneumolib import runtime\n"
        "tf = runtime.tensorflow()\n"
        "print(runtime.keras().backend.backend(), float(tf.reduce_sum(tf.ones(3))))\n"
        # Eight new models in a row make TensorFlow advise against retracing, then on standard output.
        "for _ in range(8):\n"
        "    model = runtime.keras().Sequential([runtime.keras().Input((2,)), runtime.keras().layers.Dense(1)])\n"
        "    model.predict(tf.ones((1, 2)), verbose=0)\n"
    )
    assert done.stdout == "tensorflow 3.0\n"
    assert done.stderr == ""


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_missing_package_names_the_extra(missing: str) -> None:
    done = fresh(
        f"import sys\nsys.modules[{missing!r}] = None\n"
        "from pneumolib import errors, runtime\n"
        "try:\n    runtime.tensorflow()\n"
        "except errors.MissingExtraError as error:\n    print(error)"
    )
    assert "pip install 'pneumolib[train]'" in done.stdout, done.stderr


class TestHardware:
    @pytest.fixture(autouse=True)
    def forget(self) -> Any:
        runtime._cpu_has_bfloat16.cache_clear()
        yield
        runtime._cpu_has_bfloat16.cache_clear()

    def test_without_a_driver_nothing_is_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "_has_nvidia_driver", lambda: False)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(runtime, "tensorflow", lambda: pytest.fail("TensorFlow was imported"))
        assert runtime.has_gpu() is False

    def test_driver_without_a_device_is_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "_has_nvidia_driver", lambda: True)
        monkeypatch.setattr(runtime, "tensorflow", lambda: None)
        monkeypatch.setattr(runtime, "_tensorflow_devices", list)
        assert runtime.has_gpu() is False

    @pytest.mark.parametrize(
        ("capability", "expected"), [((7, 5), "mixed_float16"), ((9, 0), "mixed_float16"), ((6, 1), "float32")]
    )
    def test_precision_of_a_gpu(
        self, capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tf = ModuleType("tensorflow")
        details = {"compute_capability": capability, "device_name": "Tesla T4"}
        experimental = type("experimental", (), {"get_device_details": staticmethod(lambda device: details)})
        tf.config = type("config", (), {"experimental": experimental})  # type: ignore[attr-defined]
        monkeypatch.setattr(runtime, "has_gpu", lambda: True)
        monkeypatch.setattr(runtime, "tensorflow", lambda: tf)
        monkeypatch.setattr(runtime, "_tensorflow_devices", lambda: ["GPU:0"])
        assert runtime.best_precision() == expected
        assert "GPU Tesla T4" in runtime.describe()

    @pytest.mark.parametrize(
        ("flags", "expected"),
        [("avx512f avx512_bf16", "mixed_bfloat16"), ("amx_bf16", "mixed_bfloat16"), ("avx2 fma", "float32")],
    )
    def test_precision_of_a_cpu(self, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "has_gpu", lambda: False)
        monkeypatch.setattr(Path, "read_text", lambda self, **options: f"flags : {flags}")
        assert runtime.best_precision() == expected

    def test_machine_that_does_not_tell_computes_in_float32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Path, **options: str) -> str:
            raise FileNotFoundError

        monkeypatch.setattr(runtime, "has_gpu", lambda: False)
        monkeypatch.setattr(Path, "read_text", refuse)
        assert runtime.best_precision() == "float32"
        monkeypatch.undo()

    def test_description_of_a_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "has_gpu", lambda: False)
        monkeypatch.setattr(runtime, "in_colab", lambda: True)
        assert runtime.describe() == f"Colab, CPU with {runtime.available_cores()} cores, {runtime.best_precision()}"


class TestColab:
    def test_found_by_its_module_or_its_tag(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
        assert runtime.in_colab() is False
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
        assert runtime.in_colab() is True
        monkeypatch.delenv("COLAB_RELEASE_TAG")
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        assert runtime.in_colab() is True

    def test_drive_elsewhere_is_refused_with_a_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "in_colab", lambda: False)
        with pytest.raises(DataNotFoundError, match="Elsewhere, pass a folder of yours"):
            runtime.drive_folder()

    def test_drive_is_mounted_and_the_folder_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mounted: list[str] = []
        made: list[Path] = []
        google, colab = ModuleType("google"), ModuleType("google.colab")
        colab.drive = type("drive", (), {"mount": staticmethod(mounted.append)})  # type: ignore[attr-defined]
        google.colab = colab  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "google", google)
        monkeypatch.setitem(sys.modules, "google.colab", colab)
        monkeypatch.setattr(Path, "mkdir", lambda self, **options: made.append(self))
        assert runtime.drive_folder("runs") == Path("/content/drive/MyDrive/runs")
        assert mounted == ["/content/drive"]
        assert made == [Path("/content/drive/MyDrive/runs")]


class TestAvailableCores:
    @pytest.fixture(autouse=True)
    def eight_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    @pytest.mark.parametrize(
        ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("", 8)]
    )
    def test_a_containers_quota_counts(self, quota: str, cores: int, tmp_path: Path) -> None:
        (tmp_path / "cpu.max").write_text(quota)
        assert runtime.available_cores(tmp_path) == cores

    @pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3), ("5000000", 8)])
    def test_of_the_older_kind_too(self, quota: str, cores: int, tmp_path: Path) -> None:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        assert runtime.available_cores(tmp_path) == cores

    def test_without_control_groups_it_is_the_affinity(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert runtime.available_cores(tmp_path) == 8
        monkeypatch.delattr(os, "sched_getaffinity")
        assert runtime.available_cores(tmp_path) == os.cpu_count()


def test_a_detector_leaves_nothing_of_its_use_behind(tmp_path: Path) -> None:
    code = "import pneumolib as pn\npn.load_detector().self_check()"
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    surroundings = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], check=True, env=surroundings | places)
    assert list(tmp_path.rglob("*")) == []
