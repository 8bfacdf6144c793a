"""uvicorn with the API in it: one that can be waited for, and that ends with status 0 when it is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from types import FrameType

import uvicorn

from pneumolib.errors import ServerError
from pneumolib.models.detector import Detector
from pneumolib.serving.app import create_app
from pneumolib.serving.connection import Connection
from pneumolib.serving.decoder import Decoder
from pneumolib.serving.settings import Settings

START_SECONDS = 60.0


class Server(uvicorn.Server):
    """A server on a socket that listens already.

    Args:
        detector: as `load_detector` gives it.
        settings: limits.
        listener: the socket.
        decoders: as `Lanes` takes them.
    """

    def __init__(
        self, detector: Detector, settings: Settings, listener: socket.socket, decoders: Sequence[Decoder]
    ) -> None:
        app = create_app(detector, settings, decoders=decoders)
        self._lanes, self._listener = app.state.lanes, listener
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(Connection, settings, app.state.metrics),  # type: ignore[arg-type]
                lifespan="on",
                log_config=None,  # whose process this is decides how it logs
                log_level="error",  # what callers do wrong is counted, not logged
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
                ws="none",
            )
        )

    def work(self) -> None:
        """Serve until it is asked to stop."""
        self.run(sockets=[self._listener])

    def wait_until_ready(self) -> None:
        """Return when pictures are taken, or when the server is to stop.

        Raises:
            ServerError: the detector failed its self-check, or a minute went by.
        """
        until = time.monotonic() + START_SECONDS
        while not self.should_exit:
            if self.started and self._lanes.ready:
                return
            if self._lanes.failure or time.monotonic() > until:
                reason = self._lanes.reason
                self.ask_to_stop()
                raise ServerError(f"The server did not start: {reason}.")
            time.sleep(0.01)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a wish to stop; unlike uvicorn's own, do not raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def ask_to_stop(self) -> None:
        """Take no more pictures, finish those that were taken, and end."""
        self._lanes.draining = self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Do as `ask_to_stop` says; a second SIGINT ends the server at once."""
        super().handle_exit(sig, frame)
        self.ask_to_stop()
