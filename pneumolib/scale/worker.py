"""A worker process of the local engine: shard numbers come in on standard input, a line each; answers go out as JSON.

Answers are ``{"ready": true}`` once, ``{"images": n}`` after each batch, and what `Worker.attempt` returns after each
shard. The end of the input ends the process, so no worker outlives whoever started it by more than a shard.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pneumolib.errors import PneumolibError
from pneumolib.scale.core import Worker
from pneumolib.scale.parts import arrow


def main(folder: str) -> None:
    """Work for the job in `folder` until standard input ends."""
    # The terminal's Ctrl-C reaches the whole group: whoever started this process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that nothing that a library prints comes between the answers

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    # Arrow's own allocator takes a gigabyte of addresses at once, which a limit on them may not allow.
    arrow().set_memory_pool(arrow().system_memory_pool())
    try:
        worker = Worker(Path(folder))
        say({"ready": True})
        for line in sys.stdin:
            say(worker.attempt(int(line), lambda images: say({"images": images})))
    except PneumolibError as error:
        say({"error": str(error)})
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more; a tidy end would try to flush, and complain
