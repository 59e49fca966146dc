"""What a worker tells the outside: logs, metrics, health. Only the shell uses it."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf, nan
from typing import TextIO, cast

import numpy as np
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from worker.contracts.decisions import DECISIONS, DEGRADED
from worker.contracts.records import Float64
from worker.errors import RiverwatchError, TransientError, UnansweredError
from worker.log_lines import LogLines
from worker.models.measures import Measured
from worker.models.prequential import Figures
from worker.models.steward import Steward
from worker.outputs import Outcome

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SCORES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_FIGURES_EVERY_S, _FIGURES_LOGGED_EVERY_S = 10.0, 60.0
_SPEC_LENGTH = 12  # of a hash, as `riverwatch check` prints it
_DISCARDED = "what models learned from examples of other features"
_BOUNDS = (*(str(bound) for bound in _SCORES), "+Inf")


def configure_logging(level: str = "INFO", lines: LogLines | None = None) -> None:
    """Send structured logs to standard error, or to ``lines`` before it: readable on a terminal,
    JSON lines elsewhere.
    """
    terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, lines or sys.stderr)),
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_Forward()])


class _Forward(logging.Handler):
    """Takes the client libraries' own log records into the structured log."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(log, level)("client_logged", logger=record.name, message=record.getMessage())


class Telemetry:
    """Metrics of one worker in a registry of its own, so that several can live in one process.

    Parameters
    ----------
    now_s
        The wall clock in Unix seconds, for ages only.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        self.ready = False
        self.reason = "starting"
        self.log = structlog.get_logger()
        self._now_s = now_s
        self.records = Counter(
            "riverwatch_records_total", "input records processed", ["topic"], registry=registry
        )
        self.outcomes = Counter(
            "riverwatch_outcomes_total", "journal rows by outcome", ["outcome"], registry=registry
        )
        self.dead_letters = Counter(
            "riverwatch_dead_letters_total", "rejected records", ["reason"], registry=registry
        )
        self.alerts = Counter(
            "riverwatch_alerts_total", "alerts published", ["severity"], registry=registry
        )
        self.decisions = Counter(
            "riverwatch_decisions_total", "scored events by decision", ["decision"],
            registry=registry,
        )  # fmt: skip
        self.labels = Counter(
            "riverwatch_labels_total", "labels by what became of them", ["fate"], registry=registry
        )
        self.learned = Counter(
            "riverwatch_examples_learned_total", "examples the models learned", registry=registry
        )
        self.notices = Counter(
            "riverwatch_notices_total",
            "what befell models: drift, guards, orders",
            ["kind", "action"],
            registry=registry,
        )
        self.flushed = Counter(
            "riverwatch_flushed_keys_total", "keys written to the store", registry=registry
        )
        self.retries = Counter(
            "riverwatch_retries_total", "waits for stream or store", ["part"], registry=registry
        )
        self.acquired = Counter(
            "riverwatch_acquired_total",
            "shards brought to the committed position",
            registry=registry,
        )
        self.batch_seconds = self._seconds("batch", "decode to outcome of one batch")
        self.commit_seconds = self._seconds("commit", "one transaction")
        self.flush_seconds = self._seconds("flush", "one guarded write")
        self.event_to_alert_seconds = self._seconds(
            "event_to_alert", "record timestamp to committed alert"
        )
        self.lag = Gauge(
            "riverwatch_lag_records", "polled and not processed", ["partition"], registry=registry
        )
        self._lagging: set[int] = set()
        self._count_degraded(registry)
        self._count_exchange(registry)
        self.dirty = Gauge("riverwatch_dirty_keys", "keys not in the store yet", registry=registry)
        self._count_models(registry)
        self.scores = Counter(
            "riverwatch_scores_total",
            "scores of the deciding model by the smallest bound they do not exceed",
            ["at_most"],
            registry=registry,
        )

    def _count_degraded(self, registry: CollectorRegistry) -> None:
        self.stalled = Gauge(
            "riverwatch_inputs_stalled",
            "partitions of events or labels that have more and give nothing; nobody waits for them",
            registry=registry,
        )
        self.degraded = Gauge(
            "riverwatch_degraded",
            "what is left out under overload: 0 nothing, 1 learning, 2 challengers too",
            registry=registry,
        )
        self.degraded_scores = Counter(
            "riverwatch_degraded_scores_total",
            "scores made while something was left out",
            ["degraded"],
            registry=registry,
        )

    def _count_models(self, registry: CollectorRegistry) -> None:
        self.model_version = Gauge(
            "riverwatch_model_version", "training offset learned", registry=registry
        )
        self.model_figures = Gauge(
            "riverwatch_model_figures",
            "prequential figures of all labelled examples, and of lately",
            ["model", "figure", "over", "segment"],
            registry=registry,
        )
        self.notices_told = 0
        self._figured, self._figured_s, self._figures_logged_s = 0, -inf, -inf

    def _count_exchange(self, registry: CollectorRegistry) -> None:
        self.updates = Counter(
            "riverwatch_entity_updates_total",
            "rows of secondary entities, written for their owners and folded as one",
            ["direction"],
            registry=registry,
        )
        self.overlay = Gauge(
            "riverwatch_overlay_rows",
            "own rows that the state of their secondary entities does not hold yet",
            registry=registry,
        )

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"riverwatch_{name}_seconds", text, buckets=_SECONDS, registry=self.registry
        )

    def lagging(self, records: Mapping[int, int]) -> None:
        """Set the lag of every partition that is owned; those of others are taken back."""
        for partition in self._lagging - records.keys():
            self.lag.remove(str(partition))
        for partition, count in records.items():
            self.lag.labels(str(partition)).set(count)
        self._lagging = set(records)

    def shard_acquired(self, spec_was: str, spec_is: str, **words: float) -> None:
        """Count and log it; warn where it was scored with other features until now."""
        self.acquired.inc()
        self.log.info("shard_acquired", **words)
        if spec_was not in ("", spec_is):
            self.log.warning(
                "features_changed", partition=words["partition"], spec_was=spec_was[:_SPEC_LENGTH],
                spec_is=spec_is[:_SPEC_LENGTH], discarded=_DISCARDED,
            )  # fmt: skip

    def lost(self, error: RiverwatchError) -> None:
        """Log why every shard is acquired again: state was lost, or nobody answers."""
        is_away = isinstance(error, TransientError | UnansweredError)
        self.log.warning("unanswered" if is_away else "state_lost", error=str(error))

    def reviewed(self, steward: Steward) -> None:
        """Log and count what befell models; now and then tell what they are worth."""
        for notice in steward.notices:
            if notice.number >= self.notices_told:
                self.notices.labels(notice.kind, notice.action).inc()
                self.log.warning("model_notice", **asdict(notice))
        self.notices_told = steward.said
        now_s = self._now_s()
        if steward.learned == self._figured or now_s < self._figured_s + _FIGURES_EVERY_S:
            return
        self._figured, self._figured_s = steward.learned, now_s
        is_logged = now_s >= self._figures_logged_s + _FIGURES_LOGGED_EVERY_S
        for measured in (one for report in steward.reports() for one in report.figures):
            self._gauge(measured)
            if is_logged:
                self._figures_logged_s = now_s
                words = {"model": measured.name, "segment": measured.segment}
                self.log.info("model_measured", **words, **_rounded(measured.recent))

    def _gauge(self, measured: Measured) -> None:
        for over, figures in measured.to_json().items():
            for figure, value in figures.items():
                gauge = self.model_figures.labels(measured.name, figure, over, measured.segment)
                gauge.set(nan if value is None else value)

    def stand(self, has_shards: bool, is_reached: bool, store_is_away: bool) -> None:
        """Say whether the worker is live, and why not."""
        reasons = {
            "no partition is assigned": not has_shards,
            "secondary entities are behind their log": not is_reached,
            "the store does not take writes": store_is_away,
        }
        self.reason = next((why for why, is_so in reasons.items() if is_so), "live")
        self.ready = self.reason == "live"

    def committed(self, outcome: Outcome) -> None:
        """Count one committed batch of one shard."""
        batch = outcome.result.batch
        self.records.labels(batch.records.topic).inc(len(batch.records))
        if len(batch.label_records):
            self.records.labels(batch.label_records.topic).inc(len(batch.label_records))
        self._count_outcomes(outcome)
        for fate, count in outcome.result.join.counts.items():
            self.labels.labels(fate).inc(count)
        self._observe_scores(outcome.result.score)
        codes = np.bincount(outcome.result.decided.code, minlength=len(DECISIONS))
        for decision, count in zip(DECISIONS, codes.tolist(), strict=True):
            self.decisions.labels(decision).inc(count)
        for alert in outcome.alerts:
            self.alerts.labels(alert.severity).inc()
        self._alert_ages(outcome)

    def _count_outcomes(self, outcome: Outcome) -> None:
        scored, duplicate = len(outcome.result.scored), int(outcome.result.duplicate.sum())
        batch = outcome.result.batch
        self.outcomes.labels("scored").inc(scored)
        if level := int(outcome.rows.degraded.max(initial=0)):
            self.degraded_scores.labels(DEGRADED[level - 1]).inc(scored)
        self.outcomes.labels("duplicate").inc(duplicate)
        self.outcomes.labels("rejected").inc(len(batch.decoded.rejected))
        for rejected in (*batch.decoded.rejected, *batch.rejected_labels):
            self.dead_letters.labels(rejected.code).inc()

    def _observe_scores(self, scores: Float64) -> None:
        """Add a batch to the histogram by one call per bucket, not per event."""
        buckets = np.searchsorted(_SCORES, scores, side="left")
        for bucket, count in enumerate(np.bincount(buckets, minlength=len(_SCORES) + 1).tolist()):
            self.scores.labels(_BOUNDS[bucket]).inc(count)

    def _alert_ages(self, outcome: Outcome) -> None:
        records, now_s = outcome.result.batch.records, self._now_s()
        index = outcome.result.batch.decoded.events.index
        for row in outcome.result.decided.alert.nonzero()[0].tolist():
            timestamp_ms = records.timestamps_ms[int(index[outcome.result.scored[row]])]
            self.event_to_alert_seconds.observe(max(0.0, now_s - timestamp_ms / 1000))


def _rounded(figures: Figures) -> dict[str, float]:
    """Return what is known of figures, short enough to be read."""
    known = {name: value for name, value in asdict(figures).items() if value is not None}
    return {n: round(v, 4) if isinstance(v, float) else v for n, v in known.items()}


class HealthServer:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz`` on one port from a thread of its own."""

    def __init__(self, telemetry: Telemetry, port: int, host: str = "0.0.0.0") -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(telemetry))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(telemetry: Telemetry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(telemetry.registry), "text/plain; version=0.0.4")
            elif self.path == "/healthz":
                self._answer(200, b'{"status":"alive"}', "application/json")
            elif self.path == "/readyz":
                body = {"ready": telemetry.ready, "reason": telemetry.reason}
                code = 200 if telemetry.ready else 503
                self._answer(code, json.dumps(body).encode(), "application/json")
            else:
                self._answer(404, b"", "text/plain")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come every few seconds."""

    return Handler
