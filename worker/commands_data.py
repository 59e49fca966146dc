"""Commands about what workers keep and wrote: ``features``, ``dataset``, ``backfill``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from worker.checkpoint import space_of, ttls_ms_of
from worker.commands import delay_ms_of, kafka_of, load, redis_of
from worker.contracts.clock import NO_TIME_MS
from worker.contracts.records import Records
from worker.contracts.settings import LabelSettings, Settings
from worker.errors import ConfigError
from worker.features.reader import Reader, Reading
from worker.features.spec import FeatureSpec, compile_features
from worker.progress import ProgressBar

_END_MS = 1 << 62
_LABELS = 8_192
_CHECKSUM_BYTES = 4  # at the end of a shard's own state, see worker.checkpoint


def run_features(path: Path, entity: str, id_: str, at: str | None, as_json: bool) -> int:
    """Print an entity's features as they stand in Redis. Returns 1 where it is not stored."""
    from worker.stores.redis_servers import declared_servers
    from worker.stores.redis_view import RedisView

    settings = load(path)
    at_ms = None if at is None else time_ms_of("--at", at)
    with closing(declared_servers(redis_of(path, settings))) as servers:
        reader = Reader(settings, servers)
        reading = reader.look_up(entity, [id_], at_ms)[0]
        spec = compile_features(settings)
        until = _until(RedisView(servers), settings, spec, reading)
        if as_json:
            print(_json(reading, until, reader.left_out(entity)))
        else:
            words = {f.name: f.words for f in spec.features}
            print(_table(reading, until, words, reader.left_out(entity)))
    return 0 if reading.stored else 1


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a training set comes from: files, or where there is no ``journal`` the topics."""

    journal: Path | None
    labels: Path | None
    events: Path | None
    label_column: str | None
    label_delay: str | None


def run_dataset(path: Path, sources: Sources, known_by: str | None, out: Path) -> int:
    """Write a training set; print what became of the journal's rows."""
    from worker import dataset

    settings = load(path)
    spec = compile_features(settings)
    if sources.journal is None and (sources.labels or sources.events):
        raise ConfigError("--labels, --events", expected="with --journal", got="no --journal",
                          hint="without it journal and labels come from their topics")  # fmt: skip
    until_ms = _END_MS if known_by is None else time_ms_of("--known-by", known_by)
    with ExitStack() as opened:
        if sources.journal is None:
            view, topics = view_of(settings, opened)
            labels = _labels_of_topic(view, topics)
            parts = dataset.journal_of_topic(view, topics[-1])
        else:
            labels = _labels_of_files(settings, sources)
            _tell_partial(sources.journal)
            parts = dataset.journal_of_files(sources.journal)
        bar = opened.enter_context(ProgressBar("joining", "joined"))
        known = dataset.known_labels(labels, until_ms)
        counts = dataset.write_dataset(
            out, spec, parts, known, until_ms, lambda rows: bar.update(rows, None, "rows", rows)
        )
    if counts.other_features and not counts.rows:
        raise ConfigError(
            "journal", expected=f"rows with the features of {path}",
            got=f"{counts.other_features} rows with others",
            hint="give the file that the worker had; riverwatch check prints its spec hash",
        )  # fmt: skip
    print(json.dumps(asdict(counts), indent=2))
    return 0


def _tell_partial(journal: Path) -> None:
    """Say it where a journal, a directory or a file of it, is not whole."""
    from worker.replay import is_partial

    directory = journal if journal.is_dir() else journal.parent
    if is_partial(directory.parent):
        print(f"{journal}: the journal of a replay that was stopped: a part of it", file=sys.stderr)


def run_backfill(path: Path, events: Path | None = None) -> int:
    """Build the state of a configuration from the log, and what it lost of events from a recording;
    print where each partition stands.
    """
    from worker.backfill import Backfill
    from worker.models.catalogue import build_models
    from worker.stores.redis import RedisStore
    from worker.streams.recorded_log import RecordedLog

    settings = load(path)
    spec = compile_features(settings)
    models = build_models(settings, spec.names)
    with ExitStack() as opened:
        store = RedisStore(redis_of(path, settings))
        opened.callback(store.close)
        view, _ = view_of(settings, opened)
        log = view if events is None else RecordedLog(view, settings.events.topic, events)
        bar = opened.enter_context(ProgressBar("folding", "folded"))

        def progress(partition: int, done: int, total: int) -> None:
            bar.update(done, total, f"events of partition {partition}", done)

        ttls_ms = ttls_ms_of(settings, spec)
        built = Backfill(log, store, settings, spec, models, ttls_ms, progress).run()
    for one in built:
        print(
            f"partition {one.partition}: {one.events_folded} events folded, "
            f"stands at events {one.events_offset}, labels {one.labels_offset}"
            + (f", {one.rekeyed} rows of secondary entities written" if one.rekeyed else "")
        )
    print(f"state {spec.state_hash[:16]} is there: restart the workers with {path}")
    return 0


def view_of(settings: Settings, opened: ExitStack) -> tuple[Any, list[str]]:
    """Return the topics from outside of the group, and their names, the journal last."""
    from worker.streams.kafka_view import KafkaView

    labels = [] if settings.labels is None else [settings.labels.topic]
    topics = [settings.events.topic, *labels, settings.outputs.journal]
    view = KafkaView(kafka_of(settings), settings.name, topics)
    opened.callback(view.close)
    return view, topics


def _labels_of_topic(view: Any, topics: list[str]) -> Iterator[Records]:
    from worker.dataset import read_until_now

    for topic in topics[1:-1]:
        for partition in range(view.partitions):
            yield from read_until_now(view, topic, partition)


def _labels_of_files(settings: Settings, sources: Sources) -> Iterator[Records]:
    """Yield labels of a file, or of a column of the events file."""
    from worker.streams.file_labels import END_MS, ColumnLabels, FileLabels
    from worker.streams.files import FileSource

    if sources.labels is not None:
        file = FileLabels(settings, sources.labels, "labels")
        while not file.exhausted:
            yield file.take(END_MS, _LABELS)
    elif sources.events is not None:
        declared = settings.labels or LabelSettings()
        column, delay_ms = sources.label_column or declared.column, declared.delay
        if sources.label_delay is not None:
            delay_ms = delay_ms_of(sources.label_delay)
        if column is None or delay_ms is None:
            raise ConfigError(
                "--events", expected="--label-column and --label-delay", got="none",
                hint="or labels.column and labels.delay in the configuration",
            )  # fmt: skip
        source, labels = (
            FileSource(settings, sources.events, column),
            ColumnLabels("labels", delay_ms),
        )
        while not source.exhausted:
            labels.add(source.take(_LABELS))
            yield labels.take(END_MS)


def time_ms_of(option: str, text: str) -> int:
    """Return Unix ms of a time on the command line: ISO 8601 (no offset means UTC) or Unix ms.

    >>> time_ms_of("--at", "1970-01-02"), time_ms_of("--at", "86400000")
    (86400000, 86400000)

    Raises
    ------
    ConfigError
        It is no time.
    """
    try:
        if text.isdecimal() and len(text) > 4:
            return int(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            option, expected="ISO 8601 such as 2025-03-03T10:00:00Z, or Unix ms", got=repr(text)
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


class _ShardState(msgspec.Struct):
    """What is read of a shard's own state: its event clock."""

    clock: tuple[int, int, int]


def _until(view: Any, settings: Settings, spec: FeatureSpec, reading: Reading) -> str | None:
    """Return the newest event time of the partition that holds an entity, as ISO 8601.

    None where it is not stored, and of rows of all partitions (`entity-updates`).
    """
    from worker.shard import SHARD_KEY

    if reading.partition is None or reading.topic != settings.events.topic:
        return None
    space = space_of(settings.name, spec, reading.partition)
    ((_, (state,)),) = view.load([(space, [SHARD_KEY])])
    if state is None:
        return None
    try:
        own = msgspec.msgpack.decode(state[:-_CHECKSUM_BYTES], type=_ShardState)
    except msgspec.DecodeError:
        return None  # damaged: its worker will say so, and make it anew
    return None if own.clock[0] == NO_TIME_MS else f"{np.datetime64(own.clock[0], 'ms')}Z"


def _json(reading: Reading, until: str | None, left_out: dict[str, str]) -> str:
    answer = {
        "features": reading.features,
        "stored": reading.stored,
        "topic": reading.topic,
        "partition": reading.partition,
        "position": reading.position,
        "until": until,
        "left_out": left_out,
    }
    return json.dumps(answer, indent=2)


def _table(
    reading: Reading, until: str | None, words: dict[str, str], left_out: dict[str, str]
) -> str:
    if reading.stored:
        head = (
            f"partition {reading.partition} of {reading.topic}, "
            f"what is before offset {reading.position}"
        ) + (f": events until {until}" if until else "")
    else:
        head = "not stored: never seen, or silent for so long that it is forgotten"
    width = max(map(len, (*reading.features, *left_out)))
    lines = [f"{n:<{width}}  {v:>14.10g}  {words[n]}" for n, v in reading.features.items()]
    lines += [f"{name:<{width}}  {'-':>14}  {reason}" for name, reason in left_out.items()]
    return "\n".join([head, *lines])
