"""How much memory does training hold? The same steps on stores of 6,000 and of 60,000 images, under a limit.

A phantom X-ray data set is drawn once and its squares are repeated until the memory map is as large as asked for: what
is held does not depend on what the pictures show. Each size runs in a process of its own. It trains, predicts from the
last tenth of the store, as validation does, and measures the statistics of batch normalisation, as the end of a run
does. Steps are spread over the whole store, since each epoch takes the images in another order.

What counts is the memory that is the process's own: resident, less the pages of files, which the system takes back when
it needs them. It is looked at a hundred times a second, and a process that has more of it than the limit, a tenth of
the larger store, is ended. Linux only.

    python benchmarks/memory.py --json benchmarks/results/memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SIZE, WIDTH, BATCH, STEPS, PRECISION = 416, 16, 2, 50, "float32"
DRAWN = 60  # squares that are drawn and then repeated


def make_store(path: Path, n_images: int) -> None:
    """Write a store-like memory map, uint8 ``[n_images, SIZE, SIZE]``, of phantom squares."""
    from pneumolib.data.dataset import load_dataset
    from pneumolib.data.phantom import make_phantom

    with tempfile.TemporaryDirectory() as place:
        os.environ["PNEUMOLIB_CACHE"] = place
        folder = make_phantom(Path(place) / "phantom", n_train=DRAWN, n_val=8, n_test=8)
        squares = np.array(load_dataset(folder).train.images(SIZE))
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n_images, SIZE, SIZE))
    for start in range(0, n_images, len(squares)):
        store[start : start + len(squares)] = squares[: n_images - start]
    store.flush()


def own_mebibytes() -> float:
    """Return the resident memory of this process that is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Watch(threading.Thread):
    """Keeps the largest ``RssAnon``, in MiB, and ends the process where it passes `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__(daemon=True)
        self.peak, self._limit = 0.0, limit

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, own_mebibytes())
            if self.peak > self._limit:
                print(f"The process holds {self.peak:.0f} MiB of its own; {self._limit} are allowed.", file=sys.stderr)
                os._exit(1)
            time.sleep(0.01)


def work(path: Path, limit: int) -> None:
    """Train, predict and measure on the store at `path`, and print what was held as JSON."""
    from pneumolib import runtime
    from pneumolib.config import Config
    from pneumolib.models import batches, fitting
    from pneumolib.models.augment import Augmentation
    from pneumolib.models.finishing import measure_batch_statistics
    from pneumolib.models.resnet import build_model

    config = Config(size=SIZE, width=WIDTH, batch_size=BATCH, augmentation="medium", precision=PRECISION)
    images = np.load(path, mmap_mode="r")
    targets = np.arange(len(images)) % config.classes
    with runtime.seeded(config.seed):
        model = build_model(config)
    fitting.compile_model(model, config, 2 * STEPS, STEPS, fine_tuning=False)
    at_start = own_mebibytes()
    watch = Watch(limit)
    watch.start()
    data = batches.training_batches(
        images,
        batches.one_hot(targets, config.classes),
        batches.class_balance(targets, config.classes),
        Augmentation.of(config.augmentation),
        batch_size=BATCH,
        seed=config.seed,
        first_epoch=0,
        epochs=2,
    )
    model.fit(data, steps_per_epoch=STEPS, epochs=1, shuffle=False, verbose=0)
    trained = watch.peak
    held_out = images[-(len(images) // 10) :][: STEPS * BATCH]
    model.predict(batches.prediction_batches(held_out, BATCH), verbose=0)
    measure_batch_statistics(model, images, config)
    found = {
        "images": len(images),
        "store_mib": round(images.nbytes / 2**20),
        "limit_mib": limit,
        "own_at_start_mib": round(at_start),
        "own_peak_training_mib": round(trained),
        "own_peak_mib": round(watch.peak),
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[6_000, 60_000])
    parser.add_argument("--limit", type=int, default=900, metavar="MIB", help="of own memory (default: 900)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the numbers to F")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.limit)
        return
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for n_images in arguments.images:
            store = Path(place) / f"{n_images}.npy"
            make_store(store, n_images)
            command = [sys.executable, __file__, "--work", str(store), "--limit", str(arguments.limit)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
            print(rows[-1], flush=True)
            store.unlink()
    if arguments.json:
        from pneumolib import runtime

        machine = f"{runtime.available_cores()} CPU cores, {PRECISION}"
        facts = {"machine": machine, "size": SIZE, "width": WIDTH, "batch_size": BATCH, "steps": STEPS}
        arguments.json.write_text(json.dumps({**facts, "stores": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
