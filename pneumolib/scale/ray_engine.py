"""The engine for a cluster: Ray Data hands the shards to a pool of actors, and starts those anew that die.

Actors read the input and write the parts themselves, so both must stand where all nodes see them under the same path.
Only shard numbers and counts travel through Ray. Without ``RAY_ADDRESS`` and without a cluster on this machine, Ray
starts one here for the time of the job. Its reporting of usage is off.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from pneumolib import runtime
from pneumolib.scale.core import ScoringError, Worker


def run_ray(folder: Path, shards: Sequence[int], workers: int | None = None) -> Generator[dict[str, Any], None, None]:
    """Score shards of the job in a folder and yield what was counted, shard by shard.

    Args:
        folder: of the job; absolute, and seen by all nodes.
        shards: their numbers.
        workers: actors, a core each; None takes all cores of the cluster.

    Yields:
        ``{"images": n}`` and ``{"done": shard, "tally": {…}}`` for each shard.

    Raises:
        MissingExtraError: Ray is not installed.
        ScoringError: the job cannot go on, or Ray cannot be reached.
    """
    ray = runtime.ray()
    started = not ray.is_initialized()
    if started:
        _start(ray)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    wanted = min(workers or cores, len(shards))
    pool = ray.data.ActorPoolStrategy(min_size=min(wanted, cores), max_size=wanted)
    work = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
        _Actor, fn_constructor_args=(str(folder),), batch_size=1, num_cpus=1, compute=pool
    )
    try:
        for row in work.iter_rows():
            answer = json.loads(row["answer"])
            if "error" in answer:
                raise ScoringError(answer["error"])
            yield {"images": answer["tally"]["images"]}
            yield answer
    except ray.exceptions.RayError as error:
        raise ScoringError(f"Ray gave up: {error}") from error
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any) -> None:
    """Connect to the cluster that the environment names, or start one here."""
    for last in (False, False, True):
        try:
            with runtime.quiet():
                ray.init(logging_level=logging.ERROR, log_to_driver=False)
            return
        except Exception as error:  # Ray gives a new cluster half a minute, and raises no other class than this
            ray.shutdown()
            if last or isinstance(error, ConnectionError | ValueError):
                raise ScoringError(f"Ray cannot be started or reached: {error}") from error


class _Actor:
    def __init__(self, folder: str) -> None:
        self._worker = Worker(Path(folder))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"answer": [json.dumps(self._worker.attempt(int(shard))) for shard in batch["shard"]]}
