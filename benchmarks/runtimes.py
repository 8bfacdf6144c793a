"""Which runtime answers without TensorFlow: ONNX Runtime or LiteRT, and which converter gets us there?

The network of the preset ``cpu`` (ResNet-18, 160 pixels, random weights) goes through the package's own ONNX writer,
through tf2onnx and through the LiteRT converter. Each result is then run in fresh processes: time from an empty process
to an open session, latency, memory, and the greatest difference to Keras. A minute or two on two cores:

    python benchmarks/runtimes.py

ONNX Runtime was chosen. It is as fast as LiteRT, which opens in a third of the time and takes a third less memory; but
one session takes any batch size and any number of threads that call at once, where a LiteRT interpreter must be resized
and belongs to one thread. Every platform with Python 3.11 to 3.13 has wheels (Macs with Intel processors: of release
1.23), where LiteRT has none for such Macs. And its graph is simple enough to be written by 200 lines of our own, in a
tenth of a second and without TensorFlow; the LiteRT converter takes seconds. tf2onnx computes the same numbers, but
takes seconds, too, and has been looking for a maintainer since February 2026 (onnx/tensorflow-onnx#2430).

The script writes benchmarks/results/runtimes.json. LiteRT and tf2onnx are no dependencies of the package:
``pip install ai-edge-litert tf2onnx`` first; what is missing is left out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "runtimes.json"
STARTS, CALLS = 5, 30

WORKER = """
import sys, time, json
start = time.perf_counter()
import numpy as np
numpy_s = time.perf_counter() - start
kind, path, threads, data = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
begin = time.perf_counter()
if kind == "onnxruntime":
    import onnxruntime
    import_s = time.perf_counter() - begin
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    def run(x):
        return session.run(["logits", "features"], {"image": x})
else:
    from ai_edge_litert.interpreter import Interpreter
    import_s = time.perf_counter() - begin
    interpreter = Interpreter(path, num_threads=threads)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.allocate_tensors()
    def run(x):
        if tuple(interpreter.get_input_details()[0]["shape"]) != x.shape:
            interpreter.resize_tensor_input(place, x.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(place, x)
        interpreter.invoke()
        values = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        return sorted(values, key=lambda v: v.ndim)
open_s = time.perf_counter() - begin
x = np.load(data)
run(x[:1])
first_answer_s = time.perf_counter() - begin
latencies = {}
for batch, calls in ((1, int(sys.argv[5])), (8, int(sys.argv[5]) // 3)):
    run(x[:batch])
    times = []
    for _ in range(calls):
        t = time.perf_counter()
        run(x[:batch])
        times.append((time.perf_counter() - t) * 1e3)
    latencies[batch] = times
logits, features = run(x)
np.savez(sys.argv[6], logits=logits, features=features)
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
print(json.dumps(dict(import_s=import_s, open_s=open_s, first_answer_s=first_answer_s, numpy_s=numpy_s,
                      latencies=latencies, peak_rss_mib=peak[0] if peak else None)))
"""


def main() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (8, 160, 160, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npy"
        np.save(data, images)
        expected, converters = convert(Path(folder), images)
        candidates = {
            f"{kind}, graph by {converter}": (kind, converters[converter]["path"])
            for kind, converter in (
                ("onnxruntime", "pneumolib"),
                ("onnxruntime", "tf2onnx"),
                ("litert", "LiteRT converter"),
            )
            if converter in converters
        }
        runtimes = measure(candidates, data, expected)
        for facts in converters.values():
            del facts["path"]
    installed = {name: sizes for name in ("onnxruntime", "ai-edge-litert", "tensorflow") if (sizes := package(name))}
    result = {
        "model": "resnet18, width 32, 160 pixels, random weights",
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()},
        "converters": converters,
        "runtimes": runtimes,
        "packages": installed,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result)


def convert(folder: Path, images: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """Write the network in each format; return Keras's own answers, and what each conversion took."""
    from pneumolib import Config, build_model, runtime
    from pneumolib.models.onnx_graph import to_onnx

    keras, tf = runtime.keras(), runtime.tensorflow()
    model = build_model(Config.preset("cpu"), precision="float32")
    rng = np.random.default_rng(1)
    for layer in model.layers:  # statistics as training leaves them, so that no normalisation is the identity
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape
            means, variances = rng.normal(0, 0.1, n), rng.uniform(1, 2, n)
            layer.set_weights([rng.uniform(0.5, 1, n), rng.normal(0, 0.1, n), means, variances])
    both = keras.Model(model.input, [model.get_layer("logits").output, model.get_layer("features").output])
    logits, features = (np.asarray(part) for part in both(images, training=False))

    @tf.function(input_signature=[tf.TensorSpec((None, 160, 160, 1), tf.float32, name="image")])
    def call(image: Any) -> dict[str, Any]:
        logits, features = both(image, training=False)
        return {"logits": logits, "features": features}

    def by_tf2onnx(path: Path) -> None:
        import tf2onnx

        tf2onnx.convert.from_function(call, input_signature=call.input_signature, opset=17, output_path=str(path))

    jobs: dict[str, tuple[str, str | None, Callable[[Path], object]]] = {
        "pneumolib": ("own.onnx", None, lambda path: path.write_bytes(to_onnx(model))),
        "tf2onnx": ("tf2onnx.onnx", "tf2onnx", by_tf2onnx),
        "LiteRT converter": (
            "model.tflite",
            "ai_edge_litert",
            lambda path: both.export(str(path), format="litert", verbose=False),
        ),
    }
    converters = {}
    for name, (file, needed, job) in jobs.items():
        if needed and importlib.util.find_spec(needed) is None:
            continue
        path, noise = folder / file, [0]
        wall, cpu = time.perf_counter(), time.process_time()
        with count_output(noise):
            job(path)
        converters[name] = {
            "path": path,
            "wall_s": round(time.perf_counter() - wall, 2),
            "cpu_s": round(time.process_time() - cpu, 2),
            "file_mib": round(path.stat().st_size / 2**20, 2),
            "bytes_printed": noise[0],
        }
    return {"logits": logits, "features": features}, converters


@contextlib.contextmanager
def count_output(count: list[int]) -> Iterator[None]:
    """Count what is written to the two standard streams, by Python or by native code."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(1), os.dup(2)
        os.dup2(held.fileno(), 1)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(saved, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
        count[0] = held.seek(0, io.SEEK_END)


def measure(
    candidates: dict[str, tuple[str, Path]], data: Path, expected: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Run each file in fresh processes, the candidates in turn, so that other work on the machine hits all alike."""
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {name: {1: [], 2: []} for name in candidates}
    facts: dict[str, dict[str, Any]] = {name: {} for name in candidates}
    for threads in (1, 2):
        for _ in range(STARTS):
            for name, (kind, path) in candidates.items():
                output = path.with_suffix(".npz")
                arguments = [kind, str(path), str(threads), str(data), str(CALLS), str(output)]
                command = [sys.executable, "-c", WORKER, *arguments]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[name][threads].append(json.loads(done.stdout.splitlines()[-1]))
                facts[name]["bytes_printed"] = len(done.stderr)
                facts[name]["max_abs_diff"] = differences(output, expected)
    for name, by_threads in runs.items():
        for threads, starts in by_threads.items():
            for batch in ("1", "8"):
                times = [t for start in starts for t in start["latencies"][batch]]
                facts[name][f"latency_ms_batch{batch}_threads{threads}"] = summary(times)
        for key in ("import_s", "open_s", "first_answer_s", "peak_rss_mib"):
            facts[name][key] = summary([start[key] for start in by_threads[1] if start[key] is not None])
    return facts


def differences(output: Path, expected: dict[str, np.ndarray]) -> dict[str, float]:
    with np.load(output) as answers:
        found = {key: float(np.abs(answers[key] - expected[key]).max()) for key in expected}
        found["probabilities"] = float(np.abs(softmax(answers["logits"]) - softmax(expected["logits"])).max())
    return found


def summary(values: list[float]) -> dict[str, float] | None:
    return {"p50": round(statistics.median(values), 3), "min": round(min(values), 3)} if values else None


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def package(name: str) -> dict[str, Any] | None:
    """Return version and size on disk of an installed package, or None."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(found.locate_file(file))) for file in found.files or []]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    return {"version": found.version, "mib": round(size / 2**20)}


def show(result: dict[str, Any]) -> None:
    for name, facts in result["converters"].items():
        print(
            f"{name}: {facts['wall_s']} s ({facts['cpu_s']} s of CPU), {facts['file_mib']} MiB, "
            f"{facts['bytes_printed']} bytes printed"
        )
    for name, facts in result["runtimes"].items():
        latencies = {k.removeprefix("latency_ms_"): v["p50"] for k, v in facts.items() if k.startswith("latency")}
        print(f"{name}: open {facts['open_s']['p50']} s, p50 ms {latencies}, differs by {facts['max_abs_diff']}")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
