"""What /metrics shows. Several worker processes add up theirs in one folder.

No label holds a path, an id or a text of a client: routes are their templates, keys are not named.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.settings import shared_metrics

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
POWERS = tuple(2.0**n for n in range(16))


class Watched(Collector):
    """Gauges whose values are asked for when somebody looks, such as those of the store."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def add(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Show `value()` as the gauge `name`; one of the same name is replaced."""
        self._gauges[name] = (help, value)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges as they are now."""
        for name, (help, value) in self._gauges.items():
            yield GaugeMetricFamily(name, help, value=value())


class Metrics:
    """The counts, times and sizes of one application."""

    def __init__(self) -> None:
        """Start at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        # of this process alone, whichever of several answers: what it watches they share
        self.watched = Watched()
        self.local = CollectorRegistry()
        self.local.register(self.watched)
        own = self.registry
        self.requests = Counter(
            "clue_requests",
            "requests answered",
            ["route", "method", "status"],
            registry=own,
        )
        self.seconds = Histogram(
            "clue_request_seconds",
            "from headers to answer",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self.stages = Histogram(
            "clue_stage_seconds",
            "a request's wait for the model thread; encode and search of its batch",
            ["stage"],
            buckets=SECONDS,
            registry=own,
        )
        self.rejected = Counter(
            "clue_rejected",
            "requests refused, by problem",
            ["reason"],
            registry=own,
        )
        self.queue = Gauge(
            "clue_queue_size",
            "requests that wait for the model thread",
            multiprocess_mode="livesum",
            registry=own,
        )
        self.batches = Histogram(
            "clue_batch_queries",
            "queries of a batch",
            buckets=POWERS,
            registry=own,
        )
        self.batch_tokens = Histogram(
            "clue_batch_tokens",
            "estimated tokens of a batch",
            buckets=POWERS,
            registry=own,
        )
        self.tokens = Counter(
            "clue_tokens",
            "estimated tokens encoded",
            registry=own,
        )
        self.bad_vectors = Counter(
            "clue_bad_vectors",
            "queries whose vector was not finite: never answered",
            registry=own,
        )
        self.item_reads = Counter(
            "clue_item_reads",
            "distinct texts of a batch: whose vectors were kept, and those that were encoded",
            ["result"],
            registry=own,
        )
        self.unknown_services = Counter(
            "clue_unknown_service_events",
            "events of services outside pretraining",
            registry=own,
        )
        self.serving = Gauge(
            "clue_serving_info",
            "1 for the model and the generation that answer",
            ["model", "index", "corpus"],
            multiprocess_mode="livemax",
            registry=own,
        )

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer and its time."""
        known = (route, method, status)
        if known not in self._answers:  # to look a child up takes as long as to count
            self._answers[known] = (
                self.requests.labels(route, method, status),
                self.seconds.labels(route),
            )
        answers, times = self._answers[known]
        answers.inc()
        times.observe(seconds)

    def serve(self, labels: Mapping[str, str]) -> None:
        """Say that this model, index and corpus answer from now on."""
        self.serving.clear()
        self.serving.labels(**labels).set(1)

    def count_items(self, hits: int, misses: int) -> None:
        """Count the texts of a batch whose vectors were kept, and the others."""
        self.item_reads.labels("hit").inc(hits)
        self.item_reads.labels("miss").inc(misses)

    def exposition(self) -> bytes:
        """Return everything in the text format of Prometheus, over all worker processes."""
        registry, folder = self.registry, shared_metrics()
        if folder is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(folder))
        return generate_latest(registry) + generate_latest(self.local)
