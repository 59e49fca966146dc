"""What the commands do. Imported by `worker.cli` only when a command runs."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from worker.config import load_settings
from worker.contracts.messages import Alert
from worker.contracts.settings import (
    KafkaSettings,
    LabelSettings,
    MemoryStreamSettings,
    RedisSettings,
    Settings,
    parse_duration,
)
from worker.contracts.slots import SLOT
from worker.errors import ConfigError
from worker.features.spec import FeatureSpec, compile_features
from worker.log_lines import LogLines
from worker.progress import ProgressBar
from worker.stopping import relax_collector
from worker.telemetry import HealthServer, Telemetry, configure_logging

if TYPE_CHECKING:
    from worker.models.versioned import ModelSet
    from worker.snapshots import Snapshots

_FIRST_START = "once, half a minute or more"
_NO_LABELS = (
    "no label became known, and a model that learns from labels had none to learn from;"
    " --labels or --label-column says where they are"
)


def load(path: Path) -> Settings:
    """Return a checked configuration; every mistake is reported at once."""
    from worker.features.naming import check_feature_names

    checks = (compile_features, _check_models, check_feature_names)
    return load_settings(path, os.environ, checks=checks)


def _check_models(settings: Settings) -> None:
    from worker.models.catalogue import check_models

    try:
        names = compile_features(settings).names
    except ConfigError:  # told by a check of its own
        names = None
    check_models(settings, names)


def run_check(path: Path) -> int:
    """Print what a configuration means."""
    from worker.describe import describe

    settings = load(path)
    print(describe(settings, compile_features(settings)))
    return 0


def run_schema(what: str, path: Path | None) -> int:
    """Print the JSON Schema of a contract."""
    from worker.describe import json_schema

    settings = None if path is None else load(path)
    print(json.dumps(json_schema(what, settings), indent=2))
    return 0


def run_topics(path: Path, create: bool, partitions: int, replication: int) -> int:
    """Show the topics, or create the missing ones. Returns 1 while any does not fit."""
    from worker.secondary import secondary_entities
    from worker.streams import topics

    settings = load(path)
    kafka = kafka_of(settings)
    wanted = topics.contracts(settings, bool(secondary_entities(compile_features(settings))))
    if create:
        topics.create(kafka, wanted, partitions, replication)
    rows = topics.describe(kafka, wanted)
    print(topics.table(rows))
    if create and any(row.state.partitions not in (0, 1, partitions) for row in rows):
        print(f"topics that were there keep their partitions: {partitions} were asked for")
    return 0 if all(row.fits for row in rows) else 1


def snapshots_of(settings: Settings, spec: FeatureSpec) -> Snapshots | None:
    """Return where the models' snapshots are, None where the configuration wants none."""
    from worker.models.catalogue import build_models, models_hash
    from worker.models.snapshot import Origin
    from worker.snapshots import Snapshots

    if settings.snapshots is None:
        return None

    def build() -> ModelSet:
        return build_models(settings, spec.names)

    origin = Origin(settings.name, spec.spec_hash, models_hash(settings, build()))
    return Snapshots(settings.snapshots, origin, build)


def run_worker(path: Path, slot: str, log_level: str, stop: Callable[[], bool]) -> int:
    """Run one worker until ``stop`` says so."""
    if not SLOT.fullmatch(slot):
        names = "1 to 100 letters, digits, '.', '_' or '-'"
        raise ConfigError("--slot", expected=names, got=repr(slot))
    with LogLines(sys.stderr.fileno()) as lines:
        configure_logging(log_level, lines)
        return _run(path, slot, stop)


def _run(path: Path, slot: str, stop: Callable[[], bool]) -> int:
    from worker.models.catalogue import build_models
    from worker.runner import Parts, Runner
    from worker.secondary import secondary_entities
    from worker.stores.redis import RedisStore
    from worker.streams.kafka import KafkaStream

    settings = load(path)
    redis = redis_of(path, settings)
    spec = compile_features(settings)
    telemetry = Telemetry(time.time)
    if is_first_start():
        telemetry.log.info("kernels_compiling", hint=_FIRST_START)
    with ExitStack() as stack:
        if settings.runner.metrics_port is not None:
            stack.callback(_health(telemetry, settings.runner.metrics_port).close)
        store = RedisStore(redis)
        stack.callback(store.close)
        stream = KafkaStream(
            kafka_of(settings),
            group=settings.name,
            slot=slot,
            events_topic=settings.events.topic,
            labels_topic=None if settings.labels is None else settings.labels.topic,
            outputs=settings.outputs,
            shared=bool(secondary_entities(spec)),
        )
        stack.callback(stream.close)
        models = build_models(settings, spec.names)
        snapshots = snapshots_of(settings, spec)
        flushing = stack.enter_context(ThreadPoolExecutor(1, "flush"))
        committing = stack.enter_context(ThreadPoolExecutor(1, "commit"))
        parts = Parts(
            settings, spec, models, stream, store, telemetry, slot, snapshots, flushing, committing
        )
        telemetry.log.info("worker_started", name=settings.name, slot=slot)
        Runner(parts, stop, flush_every_s=settings.runner.flush / 1000).run()
    telemetry.log.info("worker_stopped", name=settings.name, slot=slot)
    return 0


def run_replay(
    path: Path,
    events: Path,
    out: Path,
    labels: Path | None,
    label_column: str | None,
    label_delay: str | None,
    days: int,
    top: int | None,
    replace: bool,
) -> int:
    """Replay recorded files with a progress bar, or plain lines where there is no terminal."""
    from worker.periods import table_of
    from worker.replay import By, Recording, has_result, is_partial

    settings = load(path)
    if has_result(out) and not replace:
        there = "a part of a replay that was stopped" if is_partial(out) else "an earlier replay's"
        raise ConfigError(f"--out {out}", expected="a new directory", got=there,
                          hint="--replace overwrites it")  # fmt: skip
    declared = settings.labels or LabelSettings()
    column = label_column or (None if labels else declared.column)
    delay_ms = delay_ms_of(label_delay) if label_delay else declared.delay
    if column is not None and delay_ms is None:
        raise ConfigError("--label-delay", expected="a duration such as 7d", got="none",
                          hint="or labels.delay in the configuration")  # fmt: skip
    recording = Recording(events, labels, column, delay_ms)
    by = By(days, top or settings.metrics.top)
    try:
        summary = _replay(settings, recording, out, lambda alert: None, by)
    except KeyboardInterrupt:
        if is_partial(out):
            words = f"{out} holds a part of the replay, as its metrics.json says"
            print(f"stopped: {words}", file=sys.stderr)
        raise
    periods: Any = summary.pop("periods")
    del summary["models"]  # long: riverwatch models has them as a table, metrics.json in full
    print(json.dumps(summary, indent=2))
    if periods:
        print(table_of(periods, by.top))
    why = _why_no_alerts(summary)
    if why:
        print(f"no alerts: {why}", file=sys.stderr)
    return int(bool(why) and not summary["outcomes"]["scored"])


def _why_no_alerts(summary: Mapping[str, Any]) -> str:
    """Return why a replay without alerts could have none, nothing where it could."""
    if summary["alerts"] or summary["labelled"]:
        return ""
    rejected: Counter[str] = Counter(summary["rejected"])
    bad_labels = rejected.pop("bad_label", 0)
    told = ", ".join(f"{count:,} {code}" for code, count in rejected.most_common(3))
    if not summary["outcomes"]["scored"]:
        return f"no event was scored, of {summary['events']:,} ({told or 'nothing was rejected'})"
    if bad_labels:
        return f"no label became known: {bad_labels:,} are none (bad_label)"
    return _NO_LABELS


def run_demo(out: Path | None, alerts_max: int) -> int:
    """Replay the recording that ships with the package and print its alerts."""
    from worker.replay import Recording

    console = Console(highlight=False, soft_wrap=True)
    package = files("worker.demo")
    with ExitStack() as stack:
        config, events, labels = (
            stack.enter_context(as_file(package / name))
            for name in ("cards.yaml", "events.jsonl.zst", "labels.jsonl.zst")
        )
        target = out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "out"
        settings = load(config)
        shown = _AlertPrinter(console, alerts_max)
        summary = _replay(settings, Recording(events, labels), target, shown)
    shown.finish()
    _print_summary(console, summary)
    if out is not None:
        console.print(f"written to {out}: scores.parquet, alerts.jsonl, journal/, metrics.json")
    return 0


def _replay(
    settings: Settings, recording: Any, out: Path, show: Callable[[Alert], None], by: Any = None
) -> dict[str, Any]:
    from worker.models.catalogue import build_models
    from worker.replay import replay

    configure_logging("WARNING")  # what is printed is the result
    if settings.labels is None and (recording.labels or recording.label_column):
        settings = settings.model_copy(update={"labels": LabelSettings()})
    settings = settings.model_copy(update={"stream": MemoryStreamSettings()})
    relax_collector()
    spec = compile_features(settings)
    if is_first_start():
        print(f"compiling kernels: {_FIRST_START}", file=sys.stderr)
    with ProgressBar("replaying", "replayed") as bar:

        def committed(outcome: Any, stream: Any) -> None:
            for alert in outcome.alerts:
                show(alert)
            known = stream.rows_total is not None
            done = stream.rows_read if known else stream.bytes_read
            total, unit = (stream.rows_total, "rows") if known else (stream.bytes_total, "bytes")
            bar.update(done, total, unit, stream.rows_read)

        models = build_models(settings, spec.names)
        return replay(settings, spec, models, recording, out, committed, by=by)


class _AlertPrinter:
    """Prints the first alerts in full and counts the rest."""

    def __init__(self, console: Console, alerts_max: int) -> None:
        self._console = console
        self._left = alerts_max
        self._more = 0

    def __call__(self, alert: Alert) -> None:
        if self._left <= 0:
            self._more += 1
            return
        self._left -= 1
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(alert.time_ms / 1000))
        who = " ".join(f"{name} {id_}" for name, id_ in alert.entities.items() if id_)
        self._console.print(
            f"[bold red]ALERT[/] {when} {alert.severity:<8} score {alert.score:.3f}"
            f" (threshold {alert.threshold:.3f}) {who}  event {alert.event_id}"
        )
        for reason in alert.reasons:
            self._console.print(f"        - {reason.text}")

    def finish(self) -> None:
        if self._more:
            self._console.print(f"... and {self._more} more alerts")


def _print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    told = ", ".join(f"{count:,} {name}" for name, count in summary["outcomes"].items())
    console.print(
        f"\n{summary['events']:,} events ({told}), {summary['events_per_s']:,.0f} events/s\n"
        f"{summary['alerts']:,} alerts; {summary['labelled']:,} labels,"
        f" {summary['positives']:,} of them frauds"
    )
    rates = [f"{name} {summary[name]:.3f}" for name in ("roc_auc", "average_precision")
             if isinstance(summary[name], float)]  # fmt: skip
    if rates:
        console.print(", ".join(rates))


def kafka_of(settings: Settings) -> KafkaSettings:
    """Return how to reach Kafka; a configuration with another stream is refused."""
    if not isinstance(settings.stream, KafkaSettings):
        raise ConfigError("stream.kind", expected="kafka", got=settings.stream.kind)
    return settings.stream


def redis_of(path: Path, settings: Settings) -> RedisSettings:
    """Return how to reach Redis; a configuration with another store is refused."""
    if not isinstance(settings.store, RedisSettings):
        raise ConfigError(
            f"{path} store.kind", expected="redis", got=settings.store.kind,
            hint="a memory store is for replay and tests",
        )  # fmt: skip
    return settings.store


def _health(telemetry: Telemetry, port: int) -> HealthServer:
    try:
        return HealthServer(telemetry, port)
    except OSError as error:
        raise ConfigError(
            "runner.metrics_port", expected="a free port", got=f"{port}: {error.strerror}",
            hint="a second worker on this machine needs another one, or null",
        ) from error  # fmt: skip


def delay_ms_of(text: str) -> int:
    """Return ``--label-delay`` in milliseconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError("--label-delay", expected=str(error), got=repr(text)) from None


def is_first_start() -> bool:
    """Return whether kernels will be compiled: numba has kept none of them yet."""
    from worker.models.compiled import usable_rows

    kept: Any = usable_rows  # numba's dispatcher has no types
    return not any(Path(kept.stats.cache_path).glob("*.nbi"))
