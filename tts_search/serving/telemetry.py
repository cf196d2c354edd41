"""The metrics that matter, for Prometheus. Labels are few and bounded: no key, no question, no setting's number."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tts_search.serving.admission import Admission
from tts_search.serving.searches import Search
from tts_search.serving.supervisor import Supervisor

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Telemetry:
    """Of one server; its registry is its own."""

    def __init__(self, admission: Admission, supervisor: Supervisor) -> None:
        self.registry = CollectorRegistry()
        common = {"namespace": "tts_search", "registry": self.registry}
        self.requests = Counter("requests", "HTTP requests", ["path", "status"], **common)
        self.left = Counter("clients_left", "Requests whose client left before the end", **common)
        self.joined = Counter("retries_joined", "Repeated requests that joined the search under way", **common)
        self._searches = Counter("searches", "Searches by how they ended", ["strategy", "stop_reason"], **common)
        self._sampled = Counter("sampled_tokens", "Tokens sampled", ["strategy"], **common)
        self._cached = Counter("cached_tokens", "Prompt tokens out of the prefix cache", ["strategy"], **common)
        self._prompt = Counter("prompt_tokens", "Prompt tokens sent to the engine", ["strategy"], **common)
        self._saved = Counter("saved_tokens", "Budget left by early stops", ["strategy"], **common)
        self._wait = Histogram("queue_seconds", "From the request to its turn", buckets=SECONDS, **common)
        self._first = Histogram("first_token_seconds", "To the first sampled token", buckets=SECONDS, **common)
        self._seconds = Histogram("search_seconds", "Of a search at work", ["strategy"], buckets=SECONDS, **common)
        self._budget = Histogram("budget_used", "Share of its budget that a search took", buckets=SHARES, **common)
        for name, text, value in (
            ("in_flight", "Searches at work", lambda: admission.running),
            ("queue", "Requests that wait for their turn", lambda: admission.waiting),
            ("promised_tokens", "Budgets of all that runs and waits", lambda: admission.promised),
            ("engine_up", "1 while the engine answers", lambda: supervisor.state == "ready"),
            ("engine_restarts", "Times that the engine was opened anew", lambda: supervisor.restarted),
        ):
            Gauge(name, text, **common).set_function(value)

    def ended(self, search: Search) -> None:
        """A search is over, whatever it came to."""
        strategy = type(search.plan.strategy).__name__
        result = search.result
        reason = "cancelled" if result is None and search.task.cancelled() else "error"
        self._searches.labels(strategy, reason if result is None else str(result.stop_reason)).inc()
        sampled = search.sampled if result is None else result.usage.sampled_tokens
        self._sampled.labels(strategy).inc(sampled)
        if search.begun is not None:
            self._wait.observe(search.begun - search.entered)
            self._seconds.labels(strategy).observe((search.ended or search.begun) - search.begun)
        if search.first_token is not None:
            self._first.observe(search.first_token - search.entered)
        if result is not None:
            self._cached.labels(strategy).inc(result.usage.cached_tokens)
            self._prompt.labels(strategy).inc(result.usage.prompt_tokens)
            self._saved.labels(strategy).inc(result.usage.saved_tokens)
        if result is not None and result.budget:
            self._budget.observe(sampled / result.budget)

    def page(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self.registry)
