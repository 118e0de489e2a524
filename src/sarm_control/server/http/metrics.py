"""Counters of a server in the format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server. It has its own registry, so that one process can hold several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter("sarm_requests", "Requests.", ("path", "status"), registry=registry)
        self._seconds = Histogram(
            "sarm_request_seconds", "Seconds until the answer.", buckets=_SECONDS, registry=registry
        )
        self._answers = Counter("sarm_answers", "Conversations that got a reward.", registry=registry)
        self._truncated = Counter(
            "sarm_truncated", "Conversations cut to fit the context.", registry=registry
        )
        self._not_ended = Counter("sarm_not_ended", "Answers without an end of turn.", registry=registry)
        self._cache = Counter("sarm_cache", "Conversations looked up.", ("result",), registry=registry)
        self._hits, self._misses = self._cache.labels("hit"), self._cache.labels("miss")
        self._sizes = Histogram(
            "sarm_batch_answers", "Answers of a forward pass.", buckets=_SIZES, registry=registry
        )
        self._tokens = Counter("sarm_tokens", "Tokens scored, padding left out.", registry=registry)
        self._failed_updates = Counter(
            "sarm_failed_updates",
            "Updates that failed, so that the controls learnt nothing.",
            registry=registry,
        )
        self._failed_lessons = Counter(
            "sarm_failed_lessons",
            "The former name of sarm_failed_updates, for one version.",
            registry=registry,
        )
        self._known: dict[tuple[str, int], Counter] = {}

    def watch(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Adds a gauge whose value is read when `/metrics` is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def requested(self, path: str, status: int, seconds: float) -> None:
        """Counts an answered request. `path` is a route, never the path a caller typed."""
        # kept by our own key: `labels` checks names and takes a lock at every call
        counter = self._known.get((path, status))
        if counter is None:
            counter = self._known[path, status] = self._requests.labels(path, str(status))
        counter.inc()
        self._seconds.observe(seconds)

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Counts conversations that were looked up in the cache."""
        self._hits.inc(hits)
        self._misses.inc(misses)

    def passed(self, *, answers: int, tokens: int) -> None:
        """Counts a forward pass."""
        self._sizes.observe(answers)
        self._tokens.inc(tokens)

    def answered(self, *, answers: int, truncated: int, not_ended: int) -> None:
        """Counts conversations that got a reward."""
        self._answers.inc(answers)
        self._truncated.inc(truncated)
        self._not_ended.inc(not_ended)

    def update_failed(self) -> None:
        """Counts an update of the controls that failed."""
        self._failed_updates.inc()
        self._failed_lessons.inc()

    def page(self) -> bytes:
        """All counters in the text format of Prometheus."""
        return generate_latest(self.registry)
