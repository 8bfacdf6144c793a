"""The machine underneath: quiet TensorFlow, GPUs, number formats, Colab and Drive. No other file knows of them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from pneumolib.config import environment
from pneumolib.errors import ConfigError, DataNotFoundError, MissingExtraError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what native code writes to standard error; an exception lets it through.

    TensorFlow's C++ logs go past `sys.stderr` to the file descriptor, so that is what is redirected. With
    ``PNEUMOLIB_TF_LOGS=1`` nothing is held back.
    """
    if environment().tensorflow_logs:
        yield
        return
    sys.stderr.flush()
    with _held() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _held() -> IO[bytes]:
    """A file that is in memory where the system offers one: not every place may be written to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pneumolib"), "w+b")
    return tempfile.TemporaryFile()


@functools.cache
def onnxruntime() -> ModuleType:
    """Return the `onnxruntime` module, imported without log noise.

    It comes without telling its makers of its use, which it does by itself from version 1.29 on: where X-rays are
    looked at, nothing goes out that nobody asked for. Set ``ORT_DISABLE_TELEMETRY=0`` to have it otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with quiet():
        import onnxruntime as module
    return module


@functools.cache
def keras() -> ModuleType:
    """Return the `keras` module, imported without log noise.

    Raises:
        MissingExtraError: Keras or its backend is not installed.
    """
    if not environment().tensorflow_logs:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet():
            import keras as module

            if module.backend.backend() == "tensorflow":
                # The first look at the devices starts the drivers, which log; let it happen here.
                _tensorflow_devices()
                if not environment().tensorflow_logs:
                    # Python's part of the log, which goes to standard output in a notebook; importing sets its level.
                    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Training and Keras models need a package that is not installed: {error.name}. "
            "Install the extra: pip install 'pneumolib[train]'"
        ) from error
    return module


@functools.cache
def tensorflow() -> ModuleType:
    """Return the `tensorflow` module, imported without log noise; raises `MissingExtraError` where it is missing."""
    backend = keras().backend.backend()
    try:
        with quiet():
            import tensorflow as module

            if backend != "tensorflow":
                # It only feeds another backend, which needs the whole memory of the GPU.
                with contextlib.suppress(RuntimeError):
                    module.config.set_visible_devices([], "GPU")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "This needs TensorFlow, which is not installed. Install the extra: pip install 'pneumolib[train]'"
        ) from error
    return module


def _tensorflow_devices() -> list[Any]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Memory growth can only be set before the first operation; when the user came first, it stays as it is.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def has_gpu() -> bool:
    """Return whether this machine offers a GPU; False, too, where no deep-learning package is installed.

    Without an NVIDIA driver on the machine the answer is given without importing TensorFlow.
    """
    if not _has_nvidia_driver() and sys.platform != "darwin":
        return False
    if importlib.util.find_spec("tensorflow") is None:
        return False
    return _first_gpu() is not None


def _first_gpu() -> dict[str, Any] | None:
    """Return name and compute capability of the backend's first GPU, or None where it has none."""
    if keras().backend.backend() == "jax":
        join_processes()
        import jax

        device = jax.local_devices()[0]
        if device.platform != "gpu":
            return None
        capability = tuple(int(part) for part in str(getattr(device, "compute_capability", "0.0")).split("."))
        return {"device_name": device.device_kind, "compute_capability": capability}
    gpus = _tensorflow_devices()
    return dict(tensorflow().config.experimental.get_device_details(gpus[0])) if gpus else None


@functools.cache
def join_processes() -> tuple[int, int]:
    """Join the processes that a launcher started to train together, and return their number and this one's, from 0.

    Keras's own variables say who they are: ``KERAS_DISTRIBUTION_JOB_ADDRESSES`` (process 0, as HOST:PORT),
    ``KERAS_DISTRIBUTION_NUM_PROCESSES`` and ``KERAS_DISTRIBUTION_PROCESS_ID``. Without the second there is but this
    one. It waits for the others, and comes before the first computation.

    Raises:
        ConfigError: the variables contradict themselves, or the backend of Keras is not JAX.
    """
    names = [f"KERAS_DISTRIBUTION_{name}" for name in ("NUM_PROCESSES", "PROCESS_ID", "JOB_ADDRESSES")]
    if not os.environ.get(names[0]):
        return 1, 0
    allowed = f"Allowed: {names[0]}=N, {names[1]}=0 to N - 1, {names[2]}=HOST:PORT of process 0."
    received = " ".join(f"{name}={os.environ.get(name, '')}" for name in names)
    try:
        processes, process = (int(os.environ.get(name, "")) for name in names[:2])
        good = 0 <= process < processes and (processes == 1 or ":" in os.environ.get(names[2], ""))
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"The processes that train together are not well described. {allowed} Received: {received}")
    if processes == 1:
        return 1, 0
    if keras().backend.backend() != "jax":
        raise ConfigError(
            "Several processes train together with JAX only: set KERAS_BACKEND=jax. "
            f"Received: the backend {keras().backend.backend()}, {received}"
        )
    # Without a seed Keras would have the processes agree on one by a computation of all CPUs.
    with seeded(0):
        keras().distribution.initialize()
    return processes, process


def _has_nvidia_driver() -> bool:
    return (
        Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    )


def best_precision() -> str:
    """Return the fastest number format that this machine computes natively.

    ``mixed_float16`` on an NVIDIA GPU with tensor cores (compute capability 7.0 and up, so a T4), ``mixed_bfloat16``
    on a CPU with bfloat16 instructions, else ``float32``.
    """
    if has_gpu():
        details = _first_gpu() or {}
        return "mixed_float16" if details.get("compute_capability", (0, 0)) >= (7, 0) else "float32"
    return "mixed_bfloat16" if _cpu_has_bfloat16() else "float32"


@functools.cache
def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and Keras inside the block; Python's and NumPy's own state is as before after it."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    keras().utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def describe() -> str:
    """Return one line that says what this run computes on: the accelerator or the cores, and the number format."""
    where = "Colab, " if in_colab() else ""
    if has_gpu():
        details = _first_gpu() or {}
        return f"{where}GPU {details.get('device_name', 'of unknown name')}, {best_precision()}"
    return f"{where}CPU with {available_cores()} cores, {best_precision()}"


def available_cores(controls: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores this process may use: those of the machine, of its affinity, of its container's quota.

    A container that may use one core of 64 sees all of them; as many threads would halt each other.

    Args:
        controls: where Linux shows the container's control group, version 2 or 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        if (controls / "cpu.max").is_file():
            quota, period = (controls / "cpu.max").read_text().split()
        else:
            quota, period = ((controls / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        # Without a quota it says "max" in version 2, which is no number, and -1 in version 1.
        if int(quota) > 0:
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def bare_environment() -> dict[str, str]:
    """Return the environment variables that say how programs run here, and none that may hold anybody's secret."""
    names = ("HOME", "LANG", "PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
    return {name: os.environ[name] for name in names if name in os.environ}


def in_colab() -> bool:
    """Return whether this is a Google Colab runtime."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def in_notebook() -> bool:
    """Return whether this runs in a notebook's kernel, Colab's included, which can show a page."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")


def show_port(port: int, height: int) -> None:
    """Show what a server of this machine serves on `port` in the notebook, `height` pixels high.

    In Colab the frame goes through Colab's own proxy, which only the notebook's user can reach. Elsewhere it asks for
    127.0.0.1, so the browser has to run on the kernel's machine.

    Raises:
        MissingExtraError: this is no notebook and IPython is not installed.
    """
    if in_colab():
        from google.colab import output

        output.serve_kernel_port_as_iframe(port, height=height)
        return
    try:
        from IPython.display import IFrame, display
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "A page can be shown in a notebook only. Open its address in a browser instead, or install the extra: "
            "pip install 'pneumolib[notebooks]'"
        ) from error
    display(IFrame(f"http://127.0.0.1:{port}/", "100%", height))


def drive_folder(name: str = "pneumolib") -> Path:
    """Mount Google Drive and return the folder `name` in it, made if it is missing; Colab asks its user once.

    Raises:
        DataNotFoundError: this is not a Colab runtime.
    """
    if not in_colab():
        raise DataNotFoundError(
            "Google Drive can be mounted in a Colab runtime only. Elsewhere, pass a folder of yours."
        )
    from google.colab import drive

    drive.mount("/content/drive")
    folder = Path("/content/drive/MyDrive") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def single_threaded_environment() -> dict[str, str]:
    """Return this process's environment for worker processes, with numerical libraries held to one thread each."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}


@functools.cache
def ray() -> ModuleType:
    """Return the `ray` module, with its reports of usage off; raises `MissingExtraError` where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would warn that a later version leaves the GPUs visible to workers that ask for none: ours use none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Its native part tells users of Ray Data of a flaw of Ray Data (ray-project/ray#53727), each time.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray as module
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The engine ray needs a package that is not installed: {error.name}. Install the extra: "
            "pip install 'pneumolib[ray]'"
        ) from error
    return module
