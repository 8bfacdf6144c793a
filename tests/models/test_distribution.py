"""Several devices and several processes give what one gives; one that dies ends all, and the run goes on after it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.dataset import Dataset
from pneumolib.errors import ConfigError, DistributionError
from pneumolib.models import distribution
from pneumolib.models.distribution import Distribution, distribute
from pneumolib.models.training import Run, train

TINY = dict(name="tiny", size=32, width=4, epochs=2, batch_size=20, augmentation="light", precision="float32")
SECONDS = 500  # after which a test fails rather than waits

CHECKPOINT = "checkpoints/epoch-0002.safetensors"  # weights, seeds of random layers and the optimizer's state

# Arguments: data, folder, settings, number of logical CPUs, and the epoch in which process 1 kills itself.
PROGRAM = """
import json, os, signal, sys
import keras
if int(sys.argv[4]) > 1:
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[4])
    )
from pneumolib.config import Config
from pneumolib.data.dataset import load_dataset
from pneumolib.models.training import train

class Die(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == int(sys.argv[5]) and os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID") == "1":
            os.kill(os.getpid(), signal.SIGKILL)

train(load_dataset(sys.argv[1]), Config(**json.loads(sys.argv[3])), out=sys.argv[2], callbacks=[Die()])
"""


def start(
    data: Path,
    out: Path,
    settings: dict[str, object],
    *,
    devices: int = 1,
    dies: int = 99,
    **variables: str,
) -> subprocess.Popen[str]:
    arguments = [str(data), str(out), json.dumps(settings), str(devices), str(dies)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit status, standard output and standard error; a process that hangs is ended, and fails the test."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


def differences(one: Run, other: Run, *files: str) -> dict[str, float]:
    """The largest difference in each of the files of tensors, and in the history."""
    worst = {}
    for file in files:
        a, b = load_file(one.folder / file), load_file(other.folder / file)
        worst[file] = max(float(np.abs(a[name].astype(float) - b[name].astype(float)).max()) for name in a)
    assert [row.keys() for row in one.history] == [row.keys() for row in other.history]
    rows = [[v for k, v in sorted(row.items()) if k != "seconds"] for run in (one, other) for row in run.history]
    worst["history"] = float(np.abs(np.array(rows[:2]) - np.array(rows[2:])).max())
    return worst


def test_two_devices_of_one_host_equal_one(phantom: Dataset, phantom_folder: Path, tmp_path: Path) -> None:
    """Mirrored, with a last batch that leaves a device without images: the rounding of sums is all that differs."""
    one = train(phantom, Config(**TINY), out=tmp_path / "one", progress=False)
    lines = (one.folder / "predictions.csv").read_text().splitlines()
    assert sum(",shifted," in line for line in lines) <= TINY["batch_size"] // 2
    status, _, err = finish(start(phantom_folder, tmp_path / "two", TINY | {"devices": "all"}, devices=2))
    assert status == 0, err
    two = Run.load(tmp_path / "two")
    assert max(differences(one, two, CHECKPOINT, "detector/weights.safetensors").values()) < 1e-4


def test_two_processes_equal_one_and_one_that_dies_ends_both(phantom_folder: Path, tmp_path: Path) -> None:
    """With JAX on the loopback, random layers included: killed in the second epoch, started again, and as one."""
    settings = TINY | {"mix_style": 0.5, "dropout": 0.3}
    jax = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def pair(dies: int) -> list[tuple[int, str, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [
            start(
                phantom_folder,
                tmp_path / "two",
                settings,
                dies=dies,
                KERAS_DISTRIBUTION_JOB_ADDRESSES=f"127.0.0.1:{port}",
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(number),
                **jax,
            )
            for number in (0, 1)
        ]
        return [finish(process) for process in processes]

    (status, out, err), (killed, *_) = pair(dies=1)
    assert killed == -9
    assert status == 1, err
    assert "DistributionError: Process 0 of 2 cannot go on" in err
    assert "epoch   1/2" in out
    assert len(Run.load(tmp_path / "two").history) == 1

    (status, out, err), (second, silent, err2) = pair(dies=99)
    assert (status, second) == (0, 0), err + err2
    assert "epoch   2/2" in out
    assert "epoch" not in silent

    two = Run.load(tmp_path / "two")
    assert two.finished
    status, _, err = finish(start(phantom_folder, tmp_path / "one", settings, **jax))
    assert status == 0, err
    one = Run.load(tmp_path / "one")
    assert max(differences(one, two, CHECKPOINT, "detector/weights.safetensors").values()) < 1e-4
    x = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    np.testing.assert_allclose(one.detector.predict_images(x), two.detector.predict_images(x), atol=1e-4)


def test_each_process_reads_its_share_and_all_of_a_batch_is_read() -> None:
    shares = [Distribution(devices=8, processes=4, process=number).share(64) for number in range(4)]
    assert np.concatenate([np.arange(64)[share] for share in shares]).tolist() == list(range(64))


def test_one_device_is_no_distribution_whatever_the_setting() -> None:
    assert distribute(Config()) == distribute(Config(devices="all")) == Distribution()


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [type("Device", (), {"name": f"GPU:{i}"}) for i in range(3)]
    monkeypatch.setattr(runtime.tensorflow().config, "list_logical_devices", lambda kind: devices)
    with pytest.raises(ConfigError, match=r"a multiple of their number, 3\. Received: batch_size=32"):
        distribute(Config(devices="all"))


def test_an_error_of_one_process_of_several_is_named_and_ends_it_at_its_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    leaving: list[object] = []
    monkeypatch.setattr(distribution.atexit, "register", leaving.append)
    second = Distribution(devices=2, processes=2, process=1)
    with pytest.raises(DistributionError, match=r"Process 1 of 2 cannot go on.*closed by peer"), second.together():
        raise ValueError("Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(ConfigError, match="other settings"), Distribution(devices=2, processes=2).together():
        raise ConfigError("other settings")
    assert len(leaving) == 2
    with pytest.raises(ValueError, match="as it was"), Distribution().together():
        raise ValueError("as it was")
    assert len(leaving) == 2


class TestJoining:
    @pytest.fixture(autouse=True)
    def forget(self) -> object:
        runtime.join_processes.cache_clear()
        yield
        runtime.join_processes.cache_clear()

    def set(self, monkeypatch: pytest.MonkeyPatch, processes: str, process: str, address: str) -> None:
        monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", processes)
        monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", process)
        monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", address)

    def test_without_a_launcher_there_is_one(self) -> None:
        assert runtime.join_processes() == (1, 0)

    @pytest.mark.parametrize(
        ("processes", "process", "address"),
        [("two", "0", "a:1"), ("2", "", "a:1"), ("2", "2", "a:1"), ("2", "-1", "a:1"), ("2", "0", "a"), ("0", "0", "")],
    )
    def test_a_description_that_does_not_hold_is_refused(
        self, processes: str, process: str, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.set(monkeypatch, processes, process, address)
        with pytest.raises(ConfigError, match=f"Received: KERAS_DISTRIBUTION_NUM_PROCESSES={processes}"):
            runtime.join_processes()

    def test_several_with_tensorflow_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set(monkeypatch, "2", "0", "127.0.0.1:1")
        with pytest.raises(ConfigError, match="set KERAS_BACKEND=jax"):
            runtime.join_processes()

    def test_one_of_one_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set(monkeypatch, "1", "0", "")
        assert runtime.join_processes() == (1, 0)
