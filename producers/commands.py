"""What the commands do, with the heavy imports that the command line leaves for later."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from zlib import crc32

from producers.bad_records import FILE_KINDS, KINDS
from producers.cards import CardsSettings, generate
from producers.items import Item, in_time_order
from producers.lines import ItemFiles, LineFile
from producers.pacing import Pacer
from producers.player import first_events, play
from producers.progress import Progress
from producers.reading import Layout, check_fields, read_items
from worker.contracts.settings import parse_duration
from worker.errors import ConfigError

_FILES = ("events", "labels")
_SUFFIXES = {"none": ".jsonl", "gz": ".jsonl.gz", "zst": ".jsonl.zst"}


@dataclass(frozen=True, slots=True)
class Topics:
    """Where to send: without a topic for labels they are left out."""

    bootstrap: str
    events: str
    labels: str | None = None


def cards_settings(
    *,
    start: date,
    fraud_delay: str,
    maturity: str,
    bad_share: float,
    for_topic: bool,
    id_prefix: str | None,
    **numbers: float,
) -> CardsSettings:
    """Return the generator's settings from the options' texts; ``numbers`` go through as they are.

    Raises
    ------
    ValueError
        A duration is not one such as ``12h``, or a prefix would need quoting in JSON.
    """
    settings = CardsSettings(
        start=start,
        fraud_delay_ms=parse_duration(fraud_delay),
        maturity_ms=parse_duration(maturity),
        **numbers,  # type: ignore[arg-type]  # the command line has checked each one's type
    )
    if id_prefix is None:
        id_prefix = f"t{crc32(repr(settings).encode()):08x}-"
    elif not re.fullmatch(r"[\w.:-]{0,64}", id_prefix, re.ASCII):
        raise ValueError(f"--id-prefix: expected letters, digits and _.:-, got {id_prefix!r}")
    bad_kinds = KINDS if for_topic else FILE_KINDS
    return replace(settings, bad_share=bad_share, bad_kinds=bad_kinds, id_prefix=id_prefix)


def cards_to_files(
    settings: CardsSettings, directory: Path, compress: str = "none", *, replace: bool = False
) -> int:
    """Write ``events.jsonl`` and ``labels.jsonl``, both in time order; return the lines."""
    if compress not in _SUFFIXES:
        raise ValueError(f"--compress: expected none, gz or zst, got {compress!r}")
    events_path, labels_path = (directory / f"{n}{_SUFFIXES[compress]}" for n in _FILES)
    if not replace:
        _refuse_existing(events_path, labels_path)
    directory.mkdir(parents=True, exist_ok=True)
    with (
        Progress("cards") as progress,
        LineFile(events_path) as events,
        LineFile(labels_path) as labels,
    ):
        return play(generate(settings), ItemFiles(events, labels), Pacer(), progress)


def cards_to_topics(settings: CardsSettings, topics: Topics, pacer: Pacer) -> int:
    """Send the generated events and labels; return how many were acknowledged."""
    return _to_topics("cards", generate(settings), topics, pacer)


def play_files(
    events: Path,
    labels: Path | None,
    layouts: tuple[Layout, Layout],
    topics: Topics,
    pacer: Pacer,
    limit: int | None = None,
) -> int:
    """Send recorded events, labels in time order between them; return how many arrived.

    ``layouts`` are those of events and labels. A limit counts events; the last one ends the labels.
    ConfigError, before anything is sent, where no record has the field that is to be the key.
    """
    check_fields(events, layouts[0], {"--key": layouts[0].key, "--time": layouts[0].time})
    items = read_items(events, "event", layouts[0])
    if labels is not None:
        check_fields(labels, layouts[1], {"--key": layouts[1].key})
        items = in_time_order(items, read_items(labels, "label", layouts[1]))
    return _to_topics("play", first_events(items, limit), topics, pacer)


def record_topic(
    bootstrap: str,
    topic: str,
    out: Path,
    since_ms: int | None,
    envelope: bool,
    limit: int | None,
    *,
    replace: bool = False,
) -> int:
    """Write a topic's committed records until now as lines; return how many."""
    from producers.recorder import read_topic, record

    if not replace:
        _refuse_existing(out)
    with Progress("record") as progress, LineFile(out) as lines:
        records = read_topic(bootstrap, topic, since_ms)
        recording = record(records, lines.write, envelope, limit, progress)
        progress.note(left_out=recording.left_out)
    return recording.written


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise ConfigError(
                str(path), expected="a new file", got="one that is there",
                hint="--replace overwrites it",
            )  # fmt: skip


def _to_topics(words: str, items: Iterable[Item], topics: Topics, pacer: Pacer) -> int:
    from producers.sending import TopicSender

    if topics.labels is None:
        items = (item for item in items if item.kind == "event")
    with (
        Progress(words) as progress,
        TopicSender(topics.bootstrap, topics.events, topics.labels) as sender,
    ):
        return play(items, sender, pacer, progress)
