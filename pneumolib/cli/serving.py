"""``pneumolib serve``: the API and its page."""

from __future__ import annotations

import argparse
import sys

from pneumolib.cli.parts import DETECTOR_HELP, Commands, add_command, detector_folder
from pneumolib.config import environment


def add(commands: Commands) -> None:
    serve = add_command(
        commands,
        "serve",
        _serve,
        "answer X-rays over HTTP, with a page to try it",
        "pneumolib serve --port 8000\n"
        "  curl -H 'Content-Type: image/jpeg' --data-binary @x-ray.jpeg http://127.0.0.1:8000/v1/predict",
    )
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine only)")
    serve.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    serve.add_argument("--detector", default="bundled", metavar="DIR", help=DETECTOR_HELP)
    serve.add_argument(
        "--lanes", type=int, metavar="N", help="pictures worked on at a time (default: one a core, 8 at most)"
    )
    serve.add_argument("--queue", type=int, default=64, metavar="N", help="pictures that may wait (default: 64)")
    serve.add_argument("--deadline", type=float, default=10, metavar="S", help="seconds they may wait (default: 10)")
    serve.add_argument(
        "--accept-old-decoder", action="store_true", help="listen beyond this machine with a Pillow older than 13"
    )


def _serve(arguments: argparse.Namespace) -> int:
    import logging

    from pneumolib.models.detector import load_detector
    from pneumolib.serving.server import run
    from pneumolib.serving.settings import Settings

    settings = Settings(
        host=arguments.host,
        port=arguments.port,
        lanes=arguments.lanes,
        queue=arguments.queue,
        deadline_seconds=arguments.deadline,
        api_key=environment().api_key,
        accept_old_decoder=arguments.accept_old_decoder,
    )
    logging.basicConfig(format="pneumolib: %(message)s", stream=sys.stderr)
    if not settings.is_local and settings.api_key is None:
        _say("whoever reaches this address may use it; set PNEUMOLIB_API_KEY to ask for a key")
    detector = load_detector(detector_folder(arguments.detector), allow_phantom=True, threads=1)
    if detector.card.get("phantom"):
        _say("PHANTOM: this detector was trained on synthetic X-rays only")

    def ready(url: str) -> None:
        _say(f"{detector.name} answers at {url} (page /, API /docs); Ctrl-C stops it")

    run(detector, settings, ready=ready)
    return 0


def _say(line: str) -> None:
    print(f"pneumolib: {line}", file=sys.stderr, flush=True)
