"""Which devices compute a batch: one, all of this host, or those of several processes that train together.

A batch keeps its size and its images, whatever their number: each device computes an equal share of it, and gradients
and the statistics of batch normalisation are those of the whole batch. So several devices give what one gives, but for
the rounding of sums.

================  ===================================  ==============================================================
backend of Keras  several devices of one host          several processes, on one host or on many
================  ===================================  ==============================================================
``tensorflow``    `tf.distribute.MirroredStrategy`     refused: `fit` under MultiWorkerMirroredStrategy is broken in
                                                       Keras 3 (keras-team/keras#20585)
``jax``           `keras.distribution.DataParallel`    the same, over the devices of all processes
================  ===================================  ==============================================================

Each process of several reads and augments only its share of a batch. Process 0 alone validates, writes the run's folder
and finishes the detector; what it finds out, the others are told, so that all of them take the same decisions.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.errors import ConfigError, DistributionError, PneumolibError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Distribution:
    """How many devices share a batch, in how many processes, and which of the processes this one is."""

    devices: int = 1  # of all processes together
    processes: int = 1
    process: int = 0
    strategy: Any = None  # MirroredStrategy, DataParallel, or None for one device

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and finishes; of one process, it is."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which the model is built, compiled and trained."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def share(self, batch_size: int) -> slice:
        """Return which images of a batch this process reads.

        Examples:
            >>> Distribution(devices=4, processes=2, process=1).share(32)
            slice(16, 32, None)
        """
        part = batch_size // self.processes
        return slice(self.process * part, (self.process + 1) * part)

    def synchronise(self, model: keras.Model) -> None:
        """Let batch normalisation see the whole batch; with JAX an array is the whole batch already."""
        keras = runtime.keras()
        if self.devices > 1 and keras.backend.backend() == "tensorflow":
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True

    def plain(self, model: keras.Model, build: Callable[[], keras.Model]) -> keras.Model:
        """Return a model of this process and one device, in the state of `model`; it itself, where it is one.

        Args:
            model: as it was trained.
            build: makes one of the same architecture.
        """
        if self.strategy is None:
            return model
        with self.alone():
            copy = build()
            for mine, trained in zip(copy.layers, model.layers, strict=True):
                mine.trainable = trained.trainable
                # Not the weights alone: the seeds of random layers are variables too.
                for variable, value in zip(mine.variables, trained.variables, strict=True):
                    variable.assign(np.asarray(value))
        return copy

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Leave Keras's distribution over devices inside the block: what is built there is this process's own."""
        keras = runtime.keras()
        if keras.backend.backend() != "jax":
            yield
            return
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)

    def from_first(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what process 0 passes, in every process, bit for bit; all call it, with arrays of one shape."""
        if self.processes == 1:
            return values
        from jax.experimental import multihost_utils

        # Bits, not numbers: JAX would make float32 of them.
        bits = multihost_utils.broadcast_one_to_all(np.ascontiguousarray(values, np.float64).view(np.uint32))
        return np.asarray(bits, np.uint32).view(np.float64)

    def first_is_ready(self) -> None:
        """Wait until process 0 has come to the same place."""
        self.from_first(np.zeros(1))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let no process of several wait for one that has failed: an error inside the block ends this one at its exit.

        Raises:
            DistributionError: a step that the processes compute together failed, as it does when one of them dies.
        """
        if self.processes == 1:
            yield
            return
        try:
            yield
        except PneumolibError:
            _leave_at_exit()
            raise
        except (RuntimeError, ValueError) as error:
            _leave_at_exit()
            raise DistributionError(
                f"Process {self.process} of {self.processes} cannot go on: a step that all of them compute together "
                "failed, as it does when one of them ends or cannot be reached; look at what the others wrote. Start "
                "all of them again with the same folder: the run goes on after its last whole epoch. "
                f"The cause: {error}"
            ) from error
        except BaseException:
            _leave_at_exit()
            raise


ONE = Distribution()


def distribute(config: Config) -> Distribution:
    """Return the devices that train as `config` and the launcher's environment say; joins the other processes.

    Raises:
        ConfigError: the batch cannot be divided evenly, the processes have unequal numbers of devices, or several were
            started with another backend than JAX.
    """
    keras, tf = runtime.keras(), runtime.tensorflow()  # TensorFlow feeds JAX, too
    backend = keras.backend.backend()
    processes, process = runtime.join_processes()
    if backend == "jax":
        import jax

        everywhere = jax.devices()
    else:
        everywhere = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    of_process: dict[int, list[Any]] = {}
    for device in everywhere:
        of_process.setdefault(getattr(device, "process_index", 0), []).append(device)
    if config.devices == "one":
        # One of each process: a process that is started for each GPU has but one.
        of_process = {number: devices[:1] for number, devices in of_process.items()}
    if len({len(devices) for devices in of_process.values()}) > 1:
        counts = ", ".join(f"process {number}: {len(devices)}" for number, devices in sorted(of_process.items()))
        raise ConfigError(f"Processes that train together need equally many devices each. Received: {counts}")
    everywhere = [device for _, devices in sorted(of_process.items()) for device in devices]
    if len(everywhere) == 1:
        return ONE
    if config.batch_size % len(everywhere):
        raise ConfigError(
            "A batch is divided evenly over the devices. Allowed: batch_size a multiple of their number, "
            f"{len(everywhere)}. Received: batch_size={config.batch_size}"
        )
    if backend == "jax":
        names = [f"{device.platform}:{device.id}" for device in everywhere]
        # Each process is given its share of the images, not the whole batch to cut its share from.
        strategy = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    else:
        strategy = tf.distribute.MirroredStrategy([device.name for device in everywhere])
    return Distribution(len(everywhere), processes, process, strategy)


def _leave_at_exit() -> None:
    """End this process without a farewell to the others: JAX would wait for them, and they wait for this one."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    # What is registered last runs first, before what JAX registered.
    atexit.register(leave)
