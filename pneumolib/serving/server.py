"""Running the API: `run` until the process is asked to stop, `serve` beside a notebook or a program."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pneumolib import runtime
from pneumolib.errors import ConfigError, MissingExtraError, ServerError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.serving.decoder import DecoderMissing, new_decoders
from pneumolib.serving.settings import Settings

if TYPE_CHECKING:
    from pneumolib.serving.asgi import Server

_OTHER_FILES = 256  # beside connections: pipes to decoding processes, modules, the detector
SAFE_PILLOW = 13  # earlier ones have known holes in decoders that a server reaches (CVE-2026-112398, CVE-2026-96639)

_log = logging.getLogger("pneumolib.serving")


def run(detector: Detector, settings: Settings, *, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT; what was begun is finished first, within `Settings.drain_seconds`.

    Args:
        detector: as `load_detector` gives it; with one thread, as the lanes work side by side.
        settings: where to listen, and limits.
        ready: called with the address when pictures are taken.

    Raises:
        ServerError: the address cannot be had, or the detector failed its self-check.
        ConfigError: Pillow is old, and others than this machine can reach the server.
        MissingExtraError: the packages of the extra ``serve`` are not installed.
    """
    _check_pillow(settings)
    with _listening(settings) as listener:
        _allow_files(2 * settings.max_connections + _OTHER_FILES)
        server = _server(detector, settings, listener)
        failures: list[ServerError] = []

        def watch() -> None:
            try:
                server.wait_until_ready()
            except ServerError as error:
                failures.append(error)
            else:
                # What stays for ever need not be looked through for garbage: that would halt everything for 50 ms.
                gc.freeze()
                if not server.should_exit:
                    ready(_url(settings, listener))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        server.work()
        watcher.join()
        if failures:
            raise failures[0]


class BackgroundServer:
    """A server that runs in a thread of this process; as a context manager it stops at the end of the block.

    `serve` makes one.
    """

    def __init__(self, detector: Detector, settings: Settings) -> None:
        _check_pillow(settings)
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(_listening(settings))
            self.url = _url(settings, listener)
            self.port: int = listener.getsockname()[1]
            self._server = _server(detector, settings, listener)
            self._close = opened.pop_all()
        self._thread = threading.Thread(target=self._server.work, name="pneumolib-server", daemon=True)
        self._thread.start()
        try:
            self._server.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def show(self, height: int = 900) -> None:
        """Show the page in the notebook, `height` pixels high: in Colab through Colab's own proxy, never publicly."""
        runtime.show_port(self.port, height)

    def stop(self) -> None:
        """Finish what was begun, and end the server; a second call does nothing."""
        self._server.ask_to_stop()
        self._thread.join()
        self._close.close()

    def __enter__(self) -> BackgroundServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"pneumolib's server at {self.url}" + ("" if self._thread.is_alive() else " (stopped)")


def serve(
    detector: Detector | str | os.PathLike[str] | None = None,
    *,
    show: bool | None = None,
    settings: Settings | None = None,
    allow_phantom: bool = False,
) -> BackgroundServer:
    """Start the API in the background and show its page in the notebook; returns when it takes pictures.

    It listens on this machine only, on a free port, and opens no public address.

    Args:
        detector: a detector, or the folder of one; None takes the one that ships with the package.
        show: show the page; None does so in a notebook.
        settings: port, limits; None takes the defaults and a free port.
        allow_phantom: serve a detector that was trained on synthetic X-rays, whose answers on real ones mean nothing.

    Raises:
        ServerError: the address cannot be had, or the detector failed its self-check.
        ConfigError: Pillow is old, and others than this machine can reach the server.
        MissingExtraError: the packages of the extra ``serve`` are not installed.

    Examples:
        >>> with serve(show=False) as server:
        ...     server.url.startswith("http://127.0.0.1:")
        True
    """
    if not isinstance(detector, Detector):
        detector = load_detector(detector, threads=1, allow_phantom=allow_phantom)
    in_notebook = runtime.in_notebook()
    server = BackgroundServer(detector, settings or Settings(port=0, embedded=in_notebook))
    if show or (show is None and in_notebook):
        server.show()
    return server


def _check_pillow(settings: Settings) -> None:
    """Refuse to let strangers reach a Pillow with known holes; on this machine, warn of it."""
    import PIL

    if int(PIL.__version__.partition(".")[0]) >= SAFE_PILLOW:
        return
    holes = f"Pillow {PIL.__version__} has known holes that a hostile file can reach; {SAFE_PILLOW} has them closed"
    if not settings.is_local and not settings.accept_old_decoder:
        raise ConfigError(
            f"{holes}. Update it: pip install -U pillow; or take it as it is: --accept-old-decoder, "
            "Settings(accept_old_decoder=True)"
        )
    _log.warning(holes)


def _server(detector: Detector, settings: Settings, listener: socket.socket) -> Server:
    decoders = new_decoders(detector.size, settings)
    with contextlib.ExitStack() as undone:
        for decoder in decoders:
            undone.callback(decoder.stop)
            # They get ready while the rest is imported. What cannot be started is the lanes' to tell.
            with contextlib.suppress(DecoderMissing):
                decoder.start()
        try:
            from pneumolib.serving.asgi import Server
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"Serving needs a package that is not installed: {error.name}. "
                "Install the extra: pip install 'pneumolib[serve]'"
            ) from error
        server = Server(detector, settings, listener, decoders)
        undone.pop_all()
    return server


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Listen before anything else is done, so that an address that cannot be had is known at once."""
    if os.name != "posix":
        raise ConfigError("The server runs on Linux and macOS. On Windows, use it in WSL or in a container.")
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048, reuse_port=False)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServerError(
            f"The server cannot listen there: {reason}. Allowed: a free port of this machine; 0 takes any. "
            f"Received: {settings.host}, port {settings.port}"
        ) from error
    with listener:
        # Connections get this from it. uvloop sets it anyhow; asyncio does not on a socket that was made before, and
        # the body of an answer would then wait 40 ms for the caller's word that the head has come.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def _allow_files(count: int) -> None:
    """Let the process have so many files and connections open, where the system leaves that to it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _url(settings: Settings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
