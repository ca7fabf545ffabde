"""What a server counts, for Prometheus. Rates are rate() of the counters."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answers = self._counter("answers", "Answers finished.")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts of answers, images counted.")
        self.tokens = self._counter("tokens", "Tokens of finished answers.")
        self.images = self._counter("images", "Pictures finished.")
        self.given_up = self._counter("given_up", "Answers and pictures nobody waited for.")
        self.faults = self._counter("faults", "Steps of the engine that broke off.")
        self.open = self._gauge("open", "Answers and pictures worked on or waiting.")
        self.waiting = self._gauge("queue_length", "Answers and pictures waiting for a row.")
        self.rows = self._gauge("running_rows", "Rows of the cache in use.")
        self.lanes = self._gauge("cache_rows", "Rows that the cache has.")
        self.step = self._histogram("step_seconds", "A step of the engine.")
        self.first = self._histogram("time_to_first_token_seconds", "From asking to the first word.")
        self.answer = self._histogram("answer_seconds", "From asking to the end of an answer.")
        self.picture = self._histogram("image_seconds", "From asking to a picture.")
        self.requests = self._counter("requests", "HTTP requests.", "method", "path", "status")
        self.refusals = self._counter("refusals", "HTTP requests refused.", "code")
        self.seconds = self._histogram("request_seconds", "An HTTP request.", "path")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"openjanus_{name}_total", about, labels or ("model",), registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"openjanus_{name}", about, ("model",), registry=self.registry)

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(f"openjanus_{name}", about, labels or ("model",), buckets=SECONDS, registry=self.registry)

    def of(self, model: str) -> "ModelMetrics":
        """Those of one model."""
        return ModelMetrics(self, model)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)


class ModelMetrics:
    """What happens to one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model = metrics, model
        # So that a counter is there, as 0, before anything happens.
        for counter in (metrics.answers, metrics.prompt_tokens, metrics.tokens, metrics.images, metrics.given_up, metrics.faults):
            counter.labels(model)

    def first_token(self, seconds: float) -> None:
        """An answer has begun."""
        self._metrics.first.labels(self._model).observe(seconds)

    def answered(self, seconds: float, prompt_tokens: int, tokens: int) -> None:
        """An answer is done."""
        self._metrics.answers.labels(self._model).inc()
        self._metrics.prompt_tokens.labels(self._model).inc(prompt_tokens)
        self._metrics.tokens.labels(self._model).inc(tokens)
        self._metrics.answer.labels(self._model).observe(seconds)

    def painted(self, seconds: float, images: int) -> None:
        """Pictures are done."""
        self._metrics.images.labels(self._model).inc(images)
        self._metrics.picture.labels(self._model).observe(seconds)

    def given_up(self) -> None:
        """Nobody waits for a request any more."""
        self._metrics.given_up.labels(self._model).inc()

    def fault(self) -> None:
        """A step broke off."""
        self._metrics.faults.labels(self._model).inc()

    def step(self, seconds: float) -> None:
        """A step is done."""
        self._metrics.step.labels(self._model).observe(seconds)

    def load(self, open_requests: int, waiting: int, rows: int, lanes: int) -> None:
        """How much there is to do."""
        self._metrics.open.labels(self._model).set(open_requests)
        self._metrics.waiting.labels(self._model).set(waiting)
        self._metrics.rows.labels(self._model).set(rows)
        self._metrics.lanes.labels(self._model).set(lanes)
