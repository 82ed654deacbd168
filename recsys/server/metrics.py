"""What Prometheus reads of a server."""

from __future__ import annotations

import os
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from recsys.server.together import FIGURES

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of its own; where several processes are one server,
    what any of them tells is of all."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter(
            "recsys_requests", "Requests by path and status.", ["path", "status"]
        )
        self._latency = histogram(
            "recsys_request_seconds",
            "Seconds from a request's head to its answer.",
            ["path"],
            buckets=_SECONDS,
        )
        self._batches = histogram(
            "recsys_batch_size", "Questions of a batch.", ["path"], buckets=_SIZES
        )
        self._batch_seconds = histogram(
            "recsys_batch_seconds", "Seconds that a batch was computed.", ["path"], buckets=_SECONDS
        )
        self.fallbacks = counter("recsys_fallbacks", "Questions that the fallback answered.")
        self.refused = counter(
            "recsys_questions_refused", "Questions of many that got an error of their own."
        )
        self._rejected = counter(
            "recsys_rejected", "Requests that were turned away, by reason.", ["reason"]
        )
        self._waiting = gauge(
            "recsys_waiting", "Questions that wait.", ["path"], multiprocess_mode="livesum"
        )
        self._events = counter("recsys_events", "Events that came, by what they were.", ["kind"])
        self._bundle = gauge(
            "recsys_bundle",
            "1 for the bundle that answers.",
            ["version", "arm"],
            multiprocess_mode="livemax",
        )
        self._serving: dict[str, str] = {}
        self._together = FIGURES in os.environ
        self._swaps = counter("recsys_swaps", "Bundles that were offered.", ["result"])
        self.refused_bundle = gauge(
            "recsys_bundle_refused",
            "1 while the newest bundle that was offered is refused.",
            multiprocess_mode="livemax",
        )
        self._known: dict[tuple[str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        counter = self._known.get((path, status))
        if counter is None:  # labels() looks up under a lock
            counter = self._known[path, status] = self._requests.labels(path, str(status))
            self._timed[path] = self._latency.labels(path)
        counter.inc()
        self._timed[path].observe(seconds)

    def batch(self, path: str, size: int, seconds: float) -> None:
        """A batch was computed."""
        self._batches.labels(path).observe(size)
        self._batch_seconds.labels(path).observe(seconds)

    def rejected(self, reason: str) -> None:
        """A request was turned away: its `reason` is one of few words."""
        self._rejected.labels(reason).inc()

    def waiting(self, path: str, count: int) -> None:
        """So many questions wait."""
        self._waiting.labels(path).set(count)

    def events(self, kind: str, count: int) -> None:
        """Events came: `new`, or `known` before."""
        self._events.labels(kind).inc(count)

    def serves(self, version: str, arm: str = "") -> None:
        """Another bundle answers the users of an arm."""
        if arm in self._serving:
            self._bundle.labels(self._serving[arm], arm).set(0)  # of processes none can be removed
            if not self._together:
                self._bundle.remove(self._serving[arm], arm)
        self._serving[arm] = version
        self._bundle.labels(version, arm).set(1)

    def offered(self, result: str) -> None:
        """A bundle was offered, and `taken` or `refused`."""
        self._swaps.labels(result).inc()
        self.refused_bundle.set(result == "refused")

    def text(self) -> bytes:
        """As Prometheus reads it."""
        if not self._together:
            return generate_latest(self.registry)
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all)
        return generate_latest(of_all)
