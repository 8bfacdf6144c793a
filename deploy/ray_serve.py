"""The API in replicas on a Ray cluster, for when one machine is not enough.

From this folder, with ``pip install 'pneumolib[serve,dicom]' 'ray[serve]>=2.60,<3'`` on every node::

    RAY_USAGE_STATS_ENABLED=0 serve run --working-dir . ray_serve:app

Each replica is the whole server behind Ray's proxy: it bounds bodies, decodes in processes of its own and refuses as it
does alone. Ray spreads requests over replicas, starts and stops them, and queues what no replica has room for.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig

from pneumolib.config import environment
from pneumolib.models.detector import load_detector
from pneumolib.serving.app import create_app
from pneumolib.serving.settings import Settings

LANES = 2  # of a replica, and the cores that it asks for
SETTINGS = Settings(lanes=LANES, api_key=environment().api_key)


@serve.deployment(
    ray_actor_options={
        "num_cpus": LANES,
        "memory": 3 * 2**30,
        "runtime_env": {"env_vars": {"ORT_DISABLE_TELEMETRY": "1"}},
    },
    autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=8, target_ongoing_requests=2 * LANES),
    # So many that the queue of a replica fills first: what it refuses, it refuses as the API says, and a slow
    # body takes no other's place. Beyond them, as many wait at each of Ray's proxies as the next number says.
    max_ongoing_requests=256,
    max_queued_requests=64,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    health_check_period_s=5,
    graceful_shutdown_wait_loop_s=0.5,
    graceful_shutdown_timeout_s=SETTINGS.drain_seconds + SETTINGS.decode_seconds,
    logging_config=LoggingConfig(enable_access_log=False),
)
@serve.ingress()
class Replica:
    """One server.

    Args:
        settings: limits and key; read once, where the application is started, so that no node answers without the key.
    """

    app: FastAPI  # Ray's: what `__serve_build_asgi_app__` gave

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(load_detector(threads=1), self._settings)

    async def check_health(self) -> None:
        """Return once pictures are taken; Ray asks before it sends the first, then again and again.

        Raises:
            RuntimeError: they never will be; Ray then starts another replica.
        """
        lanes = self.app.state.lanes
        while not lanes.ready:
            if lanes.failure:
                raise RuntimeError(lanes.failure)
            await asyncio.sleep(0.05)


app = Replica.bind(SETTINGS)
