"""What does a detector cost in each format and precision that `pneumolib export` offers, and what does int8 change?

    PNEUMOLIB_DATA=chest_xray.zip python benchmarks/export.py

The detector that ships is exported in every way, int8 with training images. Each export answers the validation images,
random and shifted ones; no test image is looked at. Then each is opened in fresh processes, in turn: time from an empty
process to an open network and to the first answer, and memory. For latency all processes stand open and are asked one
after the other, in rounds, so that other work on the machine hits all alike: for one image and for eight, on one thread
and on two. Ratios are taken within a round. Beside the exports stand `model.predict` of Keras,
pneumolib itself (which asks ONNX Runtime for features and style, too), and OpenVINO left to choose its number format. A
few minutes on two cores; the script writes benchmarks/results/export.json.

The detector answers through ONNX Runtime because of what is measured here and of what is not: one session takes any
batch size and any number of threads that call at once, where a LiteRT interpreter must be resized and belongs to one
thread; its wheels are there for every platform with Python 3.11 to 3.13; its graph is written by 200 lines of our own,
without TensorFlow; and it is installed in a fraction of TensorFlow's space.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "export.json"
STARTS, ROUNDS, BATCHES, THREADS = 5, {1: 100, 8: 30}, (1, 8), (1, 2)
PAUSE_S = 0.01  # before each question, so that the threads of the one asked before wait no longer for more
REPRESENTATIVE = 250
BASE = "onnx float32"
PACKAGES = ("onnxruntime", "ai-edge-litert", "openvino", "tensorflow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder or a zip; left out: PNEUMOLIB_DATA, then kagglehub")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=4, metavar=("KIND", "FOLDER", "THREADS", "IMAGES"), help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        kind, folder, threads, images = arguments.worker
        if arguments.ask:
            answer_on_request(kind, Path(folder), int(threads), Path(images))
        else:
            print(json.dumps(work(kind, Path(folder), int(threads), Path(images), arguments.answers)))
        return

    from pneumolib import load_dataset, load_detector, runtime, split_by_patient
    from pneumolib.data.splits import shifted_images

    detector, data = load_detector(), load_dataset(arguments.data)
    split = split_by_patient(data.train, seed=detector.card["split_seed"])
    chosen = np.linspace(0, len(split.train) - 1, REPRESENTATIVE).astype(int)
    representative = split.train.take(chosen).images(detector.size)
    parts = {
        "val": (split.val.images(detector.size), split.val.is_pneumonia),
        "shifted": (shifted_images(split.shifted, detector.size, seed=split.seed), split.shifted.is_pneumonia),
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images = folder / "images.npy"
        np.save(images, np.concatenate([pixels for pixels, _ in parts.values()]))
        rows = export_all(detector, folder, np.array(representative))
        compare(rows, images, {name: truth for name, (_, truth) in parts.items()}, detector.threshold)
        measure(rows, images)
    result = {
        "detector": detector.name,
        "sha256": detector.sha256,
        "data": data.train.origin,
        "images": {name: len(truth) for name, (_, truth) in parts.items()},
        "representative": len(representative),
        "rounds": ROUNDS,
        "starts": STARTS,
        "machine": {
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
            "format": runtime.best_precision(),
        },
        "packages": {name: package(name) for name in PACKAGES},
        "rows": [{key: value for key, value in row.items() if key != "folder"} for row in rows.values()],
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {arguments.json}")


def export_all(detector: Any, folder: Path, representative: np.ndarray) -> dict[str, dict[str, Any]]:
    """Export the detector in every way into `folder`; return a row for each, and for what they are compared with."""
    from pneumolib.models.export import PRECISIONS, export

    rows: dict[str, dict[str, Any]] = {
        "keras": {"name": "keras", "kind": "keras", "folder": folder},
        "pneumolib": {"name": "pneumolib", "kind": "pneumolib", "folder": folder},
    }
    for format, precisions in PRECISIONS.items():
        for precision in precisions:
            name = f"{format} {precision}"
            begin = time.perf_counter()
            result = export(
                detector,
                folder / name,
                format=format,
                precision=precision,
                representative=representative if precision == "int8" else None,
            )
            print(result, flush=True)
            rows[name] = {
                "name": name,
                "kind": format,
                "format": format,
                "precision": precision,
                "bytes": result.n_bytes,
                "bound": result.bound,
                "max_difference_on_export": result.max_difference,
                "export_s": round(time.perf_counter() - begin, 1),
                "folder": folder / name,
            }
    rows["openvino default"] = {
        "name": "openvino default",
        "kind": "openvino_default",
        "folder": folder / "openvino float32",
    }
    return rows


def compare(rows: dict[str, dict[str, Any]], images: Path, truths: dict[str, np.ndarray], threshold: float) -> None:
    """Add to each row how its probabilities of pneumonia differ from Keras's on the images, and what that changes."""
    from pneumolib.evaluation.metrics import auc

    answers = {}
    for name, row in rows.items():
        place = images.with_name("answers.npy")
        start(row, 1, images, "--answers", str(place))
        answers[name] = 1 - np.load(place)[:, 0].astype(np.float64)
    for name, row in rows.items():
        row["parts"], first = {}, 0
        for part, truth in truths.items():
            own, keras = (answers[n][first : first + len(truth)] for n in (name, "keras"))
            first += len(truth)
            row["parts"][part] = {
                "max_difference": float(np.abs(own - keras).max()),
                "mean_difference": float(np.abs(own - keras).mean()),
                "auc": auc(truth, own),
                "auc_change": auc(truth, own) - auc(truth, keras),
                "decisions_changed": int(((own >= threshold) != (keras >= threshold)).sum()),
                "sensitivity": float((own >= threshold)[truth].mean()),
                "specificity": float((own < threshold)[~truth].mean()),
            }
        print(name, row["parts"], flush=True)


def measure(rows: dict[str, dict[str, Any]], images: Path) -> None:
    """Add to each row what opening it takes in a fresh process, and its latency beside the others."""
    starts: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for _ in range(STARTS):
        for name, row in rows.items():
            starts[name].append(start(row, 1, images))
    for name, row in rows.items():
        for key in ("import_s", "open_s", "first_answer_s", "peak_rss_mib"):
            values = [found[key] for found in starts[name] if found[key] is not None]
            row[key] = round(statistics.median(values), 3) if values else None
    for threads in THREADS:
        times = in_turn(rows, threads, images)
        for batch in BATCHES:
            for name, row in rows.items():
                pairs = zip(times[name][batch], times[BASE][batch], strict=True)
                row[f"ms_batch{batch}_threads{threads}"] = {
                    "p50": round(statistics.median(times[name][batch]), 2),
                    "fastest": round(min(times[name][batch]), 2),
                    "over_base": round(statistics.median(own / base for own, base in pairs), 2),
                }
    for name, row in rows.items():
        print(name, {key: row[key] for key in row if key.startswith("ms_") or key.endswith(("_s", "_mib"))}, flush=True)


def in_turn(rows: dict[str, dict[str, Any]], threads: int, images: Path) -> dict[str, dict[int, list[float]]]:
    """Return the milliseconds of each answer, by name and batch; a process for each row, asked one after the other."""
    times: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in rows}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, row in rows.items():
            command = worker(row, threads, images, "--ask")
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            workers[name] = stack.enter_context(subprocess.Popen(command, text=True, bufsize=1, **pipes))
            stack.callback(workers[name].stdin.close)
        for process in workers.values():
            process.stdout.readline()  # it is open
        for batch in BATCHES:
            for number in range(ROUNDS[batch] + 3):
                for name, process in workers.items():
                    time.sleep(PAUSE_S)
                    process.stdin.write(f"{batch}\n")
                    milliseconds = float(process.stdout.readline())
                    if number >= 3:  # the first answers of a batch of new size prepare memory
                        times[name][batch].append(milliseconds)
    return times


def start(row: dict[str, Any], threads: int, images: Path, *more: str) -> dict[str, Any]:
    """Return what a fresh process measures."""
    done = subprocess.run(worker(row, threads, images, *more), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{row['name']}: {done.stderr}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def worker(row: dict[str, Any], threads: int, images: Path, *more: str) -> list[str]:
    """Return the command line of a process that opens the network of a row."""
    return [sys.executable, __file__, "--worker", row["kind"], str(row["folder"]), str(threads), str(images), *more]


def work(kind: str, folder: Path, threads: int, images: Path, answers: Path | None) -> dict[str, Any]:
    """Open the network of `kind` in this process; with `answers`, only write what it says of all images."""
    pixels = np.load(images, mmap_mode="r")
    begin = time.perf_counter()
    prepare(kind, threads)
    import_s = time.perf_counter() - begin
    answer = opened(kind, folder, threads)
    open_s = time.perf_counter() - begin
    if answers is not None:
        batches = [pixels[i : i + 16, ..., None].astype(np.float32) for i in range(0, len(pixels), 16)]
        np.save(answers, np.concatenate([answer(batch) for batch in batches]))
        return {}
    answer(np.array(pixels[:1, ..., None], np.float32))
    first_answer_s = time.perf_counter() - begin
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    peak = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return {
        "import_s": import_s,
        "open_s": open_s,
        "first_answer_s": first_answer_s,
        "peak_rss_mib": peak[0] if peak else None,
    }


def answer_on_request(kind: str, folder: Path, threads: int, images: Path) -> None:
    """Open the network of `kind`, then time one answer for each batch size that comes in on standard input."""
    x = np.array(np.load(images, mmap_mode="r")[: max(BATCHES), ..., None], np.float32)
    prepare(kind, threads)
    answer = opened(kind, folder, threads)
    print("open", flush=True)
    for line in sys.stdin:
        batch = x[: int(line)]
        begin = time.perf_counter()
        answer(batch)
        print((time.perf_counter() - begin) * 1e3, flush=True)


def prepare(kind: str, threads: int) -> None:
    """Import the package behind `kind`, TensorFlow with so many threads."""
    from pneumolib import runtime
    from pneumolib.models.export_graphs import import_openvino

    if kind in ("keras", "saved_model"):
        setting = runtime.tensorflow().config.threading
        setting.set_intra_op_parallelism_threads(threads)
        setting.set_inter_op_parallelism_threads(1)
    elif kind == "litert":
        import ai_edge_litert.interpreter  # noqa: F401
    elif kind.startswith("openvino"):
        import_openvino()
    else:
        import onnxruntime  # noqa: F401


def opened(kind: str, folder: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from float32 ``[N, S, S, 1]`` to calibrated probabilities ``[N, C]``."""
    from pneumolib import load_detector
    from pneumolib.evaluation.calibration import apply_temperature
    from pneumolib.models.export_graphs import import_openvino
    from pneumolib.models.export_runs import PLACES, open_export
    from pneumolib.models.light import LightModel

    if kind == "keras":
        detector = load_detector()
        model = detector.keras_model()
        from pneumolib.runtime import keras

        head = keras().Model(model.input, model.get_layer("logits").output)
        return lambda x: apply_temperature(head.predict(x, verbose=0), detector.temperature)
    if kind == "pneumolib":
        detector = load_detector(threads=threads)
        light: LightModel = detector._light
        return lambda x: apply_temperature(light.look(x[..., 0].astype(np.uint8))["logits"], detector.temperature)
    if kind == "openvino_default":
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        compiled = import_openvino().Core().compile_model(str(folder / PLACES["openvino"]), "CPU", options)
        return lambda x: np.array(compiled([x])[0])
    return open_export(folder, kind, threads)


def package(name: str) -> dict[str, Any]:
    """Return version and size on disk of an installed package."""
    found = importlib.metadata.distribution(name)
    paths = [Path(str(found.locate_file(file))) for file in found.files or []]
    return {"version": found.version, "mib": round(sum(p.stat().st_size for p in paths if p.is_file()) / 2**20)}


if __name__ == "__main__":
    main()
