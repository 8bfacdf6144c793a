"""What the server counts and times, for Prometheus; nothing of a picture or a caller is among it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The server's measures in a registry of their own, so that several servers may live in one process."""

    def __init__(self, *, name: str, version: str, sha256: str) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "pneumolib_requests",
            "Requests by address, method and status",
            ["route", "method", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "pneumolib_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.pictures = Counter("pneumolib_pictures", "Pictures by what became of them", ["outcome"], registry=registry)
        self.refusals = Counter(
            "pneumolib_refusals",
            "Pictures that do not look like chest X-rays, by reason",
            ["reason"],
            registry=registry,
        )
        self.problems = Counter("pneumolib_problems", "Problems answered, by code", ["code"], registry=registry)
        self.queue_depth = Gauge("pneumolib_queue_depth", "Pictures that wait", registry=registry)
        self.buffered = Gauge("pneumolib_buffered_bytes", "Bytes of bodies that are held", registry=registry)
        self.queue_seconds = self._timer("queue_wait", "Waiting for a lane")
        self.decode_seconds = self._timer("decode", "Decoding a file")
        self.inference_seconds = self._timer("inference", "The network and the check of the input")
        self.heatmap_seconds = self._timer("heatmap", "Making a heat map")
        self.decoder_restarts = Counter(
            "pneumolib_decoder_restarts", "Decoding processes lost over a file", registry=registry
        )
        self.ready = Gauge("pneumolib_ready", "1 when the server takes pictures", registry=registry)
        info = Gauge("pneumolib_model", "The detector that answers", ["name", "version", "sha256"], registry=registry)
        info.labels(name, version, sha256).set(1)

    def _timer(self, name: str, what: str) -> Histogram:
        return Histogram(f"pneumolib_{name}_seconds", what, buckets=_SECONDS, registry=self._registry)

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)
