"""Sending to and recording from a real broker: keys, times, partitions, order, commits."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import TopicPartition as KafkaPartition
from typer.testing import CliRunner

from producers.cards import CardsSettings, generate
from producers.cli import app
from producers.items import Item
from producers.pacing import Pacer
from producers.player import play
from producers.recorder import Recorded, _connect, _read, read_topic, record
from producers.sending import TopicSender
from worker.errors import TransientError

pytestmark = pytest.mark.kafka
PARTITIONS = 3
SMALL = CardsSettings(seed=2, cards=40, terminals=40, days=3, fraud_share=0.02)
NewTopicName = Callable[[], str]


@pytest.fixture
def new_topic(kafka: str) -> NewTopicName:
    """Return a function that creates a topic of three partitions and returns its name."""
    admin = AdminClient({"bootstrap.servers": kafka})

    def create() -> str:
        name = f"producers-{uuid.uuid4().hex[:12]}"
        # Recorded times are old: a broker's default retention would delete them within minutes.
        topic = NewTopic(name, PARTITIONS, 1, config={"retention.ms": "-1"})
        admin.create_topics([topic])[name].result(20)
        return name

    return create


def _read_all(kafka: str, topic: str, count: int) -> list[Any]:
    """Return ``count`` records by an independent client, per partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    found: list[Any] = []
    while len(found) < count:
        polled = consumer.consume(count - len(found), 20)
        assert polled, f"expected {count} records, got {len(found)}"
        found.extend(polled)
    consumer.close()
    return found


def _sent_by_librdkafka(kafka: str, topic: str, keys: list[bytes]) -> dict[bytes, int]:
    """Return the partition that librdkafka chooses in the Java client's way (murmur2)."""
    chosen: dict[bytes, int] = {}
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})

    def delivered(error: object, message: Any) -> None:
        assert error is None
        chosen[message.key()] = message.partition()

    for key in keys:
        producer.produce(topic, b"x", key, on_delivery=delivered)
    producer.flush(20)
    return chosen


def test_sent_items_keep_key_time_value_and_partition(kafka: str, new_topic: NewTopicName) -> None:
    """Every event and label arrives once as it was, on the partition of Kafka's default."""
    events_topic, labels_topic = new_topic(), new_topic()
    items = list(generate(SMALL))
    with TopicSender(kafka, events_topic, labels_topic) as sender:
        play(items, sender, Pacer())
        assert sender.unconfirmed_count <= len(items)
    chosen = _sent_by_librdkafka(kafka, new_topic(), sorted({i.key for i in items if i.key}))
    for topic, kind in ((events_topic, "event"), (labels_topic, "label")):
        mine = [i for i in items if i.kind == kind]
        found = _read_all(kafka, topic, len(mine))
        got = sorted((m.timestamp()[1], m.key(), m.value()) for m in found)
        assert got == sorted((i.time_ms, i.key or b"", i.value or b"") for i in mine)
        assert all(chosen[m.key()] == m.partition() for m in found)


def test_records_of_a_partition_are_in_the_order_they_were_played(
    kafka: str, new_topic: NewTopicName
) -> None:
    """Within each partition the events are in the order of the stream."""
    topic = new_topic()
    events = [item for item in generate(SMALL) if item.kind == "event"]
    with TopicSender(kafka, topic) as sender:
        play(events, sender, Pacer())
    place = {event.value: index for index, event in enumerate(events)}
    found = _read_all(kafka, topic, len(events))
    for partition in range(PARTITIONS):
        order = [place[m.value()] for m in found if m.partition() == partition]
        assert order == sorted(order)
        assert order


def test_tombstones_and_records_without_a_key_can_be_sent(
    kafka: str, new_topic: NewTopicName
) -> None:
    """What the bad records need arrives as it is: no value, or no key."""
    topic = new_topic()
    with TopicSender(kafka, topic) as sender:
        sender.send(Item("event", 5, b"c1", None))
        sender.send(Item("event", 6, None, b"{}"))
    found = _read_all(kafka, topic, 2)
    assert sorted((m.timestamp()[1], m.key(), m.value()) for m in found) == [
        (5, b"c1", None),
        (6, None, b"{}"),
    ]


def test_a_missing_topic_is_a_failure_that_names_it(kafka: str) -> None:
    """Nothing is sent to a topic that does not exist, and the error says which."""
    with pytest.raises(TransientError, match="topic nowhere"):
        TopicSender(kafka, "nowhere")


def test_a_record_that_the_broker_refuses_is_a_failure(kafka: str, new_topic: NewTopicName) -> None:
    """A record above the topic's limit is reported, not dropped."""
    topic = new_topic()

    def send() -> None:
        with TopicSender(kafka, topic) as sender:
            sender.send(Item("event", 1, b"c1", b"x" * 2_000_000))

    with pytest.raises(TransientError, match=topic):
        send()


def test_recording_merges_partitions_by_time_and_loses_nothing(
    kafka: str, new_topic: NewTopicName
) -> None:
    """What was played in time order comes back in it, key, time and value as they were."""
    topic = new_topic()
    events = [item for item in generate(SMALL) if item.kind == "event"]
    with TopicSender(kafka, topic) as sender:
        play(events, sender, Pacer())
    found = list(read_topic(kafka, topic))
    assert [r.timestamp_ms for r in found] == [event.time_ms for event in events]
    assert sorted((r.timestamp_ms, r.key, r.value) for r in found) == sorted(
        (e.time_ms, e.key, e.value) for e in events
    )


def test_a_partition_is_read_from_its_start_to_before_its_end(
    kafka: str, new_topic: NewTopicName
) -> None:
    """What comes after the end, as records that arrive meanwhile do, is not part of it."""
    topic = new_topic()
    producer = Producer({"bootstrap.servers": kafka})
    for index in range(10):
        producer.produce(topic, b"%d" % index, partition=0)
    assert producer.flush(30) == 0
    with ExitStack() as stack:
        found = list(_read(_connect(kafka, stack), KafkaPartition(topic, 0), 2, 5))
    assert [r.offset for r in found] == [2, 3, 4]


def test_recording_goes_on_when_one_partition_is_far_behind_another(
    kafka: str, new_topic: NewTopicName
) -> None:
    """All of one partition is older than the other: the merge holds one back and loses nothing."""
    topic = new_topic()
    producer = Producer({"bootstrap.servers": kafka})
    for index in range(20_000):
        producer.produce(topic, b"%d" % index, partition=1 - index // 10_000, timestamp=1 + index)
    assert producer.flush(30) == 0
    assert [r.value for r in read_topic(kafka, topic)] == [b"%d" % i for i in range(20_000)]


def test_a_time_ahead_of_the_brokers_clock_is_refused_with_a_hint(
    kafka: str, new_topic: NewTopicName
) -> None:
    """Kafka takes no record from the year 2099; the error says which setting that is."""
    topic = new_topic()

    def send() -> None:
        with TopicSender(kafka, topic) as sender:
            sender.send(Item("event", 4_070_908_800_000, b"c1", b"{}"))

    with pytest.raises(TransientError, match=r"message\.timestamp\.after\.max\.ms"):
        send()


def test_recording_since_a_time_leaves_out_what_is_older(
    kafka: str, new_topic: NewTopicName
) -> None:
    """The first record is the first at or after the time; a time after the last gives none."""
    topic = new_topic()
    with TopicSender(kafka, topic) as sender:
        for second in range(10):
            sender.send(Item("event", second * 1000, b"c%d" % second, b"%d" % second))
    assert [r.value for r in read_topic(kafka, topic, 7_000)] == [b"7", b"8", b"9"]
    assert list(read_topic(kafka, topic, 9_001)) == []


def test_recording_skips_aborted_and_open_transactions(kafka: str, new_topic: NewTopicName) -> None:
    """Only committed records are recorded, and markers or an open transaction do not hold it up."""
    topic = new_topic()

    def transaction(name: str) -> Producer:
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic + name})
        producer.init_transactions(20)
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.produce(topic, name.encode(), b"k", partition=partition, timestamp=1)
        producer.flush(20)
        return producer

    transaction("aborted").abort_transaction(20)
    transaction("committed").commit_transaction(20)
    still_open = transaction("open")
    found = list(read_topic(kafka, topic))
    still_open.abort_transaction(20)
    assert [r.value for r in found] == [b"committed"] * PARTITIONS


def test_an_empty_topic_gives_an_empty_recording(kafka: str, new_topic: NewTopicName) -> None:
    """Nothing there is not an error."""
    assert list(read_topic(kafka, new_topic())) == []


def test_recording_a_missing_topic_is_a_failure_that_names_it(kafka: str) -> None:
    """A topic that does not exist is an error, not an empty file."""
    with pytest.raises(TransientError, match="topic nowhere"):
        list(read_topic(kafka, "nowhere"))


def test_cards_to_topics_and_back_are_the_lines_of_cards_to_files(
    kafka: str, new_topic: NewTopicName, tmp_path: Path
) -> None:
    """A recorded topic is the file that the same generator writes, byte for byte."""
    events, labels = new_topic(), new_topic()
    small = ["cards", "--cards", "30", "--terminals", "30", "--days", "3"]
    run = CliRunner().invoke
    broker = ["--bootstrap", kafka]
    sent = run(app, [*small, "--topic", events, "--labels-topic", labels, *broker])
    assert sent.exit_code == 0, sent.output
    assert run(app, [*small, "--out", str(tmp_path)]).exit_code == 0
    for topic, name in ((events, "events"), (labels, "labels")):
        out = tmp_path / f"{name}-again.jsonl"
        done = run(app, ["record", "--topic", topic, "--out", str(out), *broker])
        assert done.exit_code == 0, done.output
        assert sorted(out.read_bytes().splitlines()) == sorted(
            (tmp_path / f"{name}.jsonl").read_bytes().splitlines()
        )


def test_played_files_are_the_topics_of_the_stream_itself(
    kafka: str, new_topic: NewTopicName, tmp_path: Path
) -> None:
    """Events and labels from files arrive with keys, times and bytes of the generator's items."""
    run = CliRunner().invoke
    small = ["cards", "--cards", "40", "--terminals", "40", "--days", "3", "--compress", "zst"]
    small += ["--id-prefix", "t"]
    assert run(app, [*small, "--out", str(tmp_path)]).exit_code == 0
    items = list(generate(CardsSettings(cards=40, terminals=40, days=3)))
    events, labels = new_topic(), new_topic()
    files = [str(tmp_path / "events.jsonl.zst"), "--labels", str(tmp_path / "labels.jsonl.zst")]
    topics = ["--topic", events, "--labels-topic", labels, "--bootstrap", kafka]
    done = run(app, ["play", *files, *topics])
    assert done.exit_code == 0, done.output
    for topic, kind in ((events, "event"), (labels, "label")):
        played = sorted((r.timestamp_ms, r.key, r.value) for r in read_topic(kafka, topic))
        assert played == sorted((i.time_ms, i.key, i.value) for i in items if i.kind == kind)


def test_playing_with_a_limit_sends_that_many_events(
    kafka: str, new_topic: NewTopicName, tmp_path: Path
) -> None:
    """The first seven events of a file and nothing else are on the topic."""
    file = tmp_path / "a.csv"
    file.write_text("user,at\n" + "".join(f"u{i},{i}\n" for i in range(20)))
    topic = new_topic()
    fields = ["--key", "user", "--time", "at", "--time-unit", "s", "--limit", "7"]
    arguments = ["play", str(file), "--topic", topic, *fields, "--bootstrap", kafka]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    found = [(r.timestamp_ms, r.key) for r in read_topic(kafka, topic)]
    assert found == [(i * 1000, b"u%d" % i) for i in range(7)]


def test_a_broker_that_is_away_is_exit_code_one(tmp_path: Path) -> None:
    """Nothing listens there: one line, exit code 1, no file."""
    arguments = ["record", "--topic", "t", "--out", str(tmp_path / "a.jsonl")]
    done = CliRunner().invoke(app, [*arguments, "--bootstrap", "localhost:1"])
    assert done.exit_code == 1
    assert "localhost:1" in done.output
    assert list(tmp_path.iterdir()) == []


FOUND = [
    Recorded(0, 7, 1_000, b"c1", b'{"a":1}'),
    Recorded(1, 3, 2_000, None, None),
    Recorded(0, 8, 3_000, b"\xff", b'{\n"a":2}'),
    Recorded(2, 9, 4_000, b"c2", b'{"a":3}', (("__connect.errors.offset", b"9"),)),
]


def test_values_are_lines_and_what_is_no_line_is_counted() -> None:
    """A tombstone and a value over two lines are left out and counted."""
    lines: list[bytes] = []
    recording = record(iter(FOUND), lines.append)
    assert lines == [b'{"a":1}', b'{"a":3}']
    assert (recording.written, recording.left_out) == (2, 2)


def test_an_envelope_holds_every_record_without_loss() -> None:
    """From the lines partition, offset, time, key, value and headers can be had back exactly."""
    lines: list[bytes] = []
    assert record(iter(FOUND), lines.append, envelope=True).left_out == 0

    def key_of(line: dict[str, Any]) -> bytes | None:
        if "key_base64" in line:
            return base64.b64decode(line["key_base64"])
        return None if line["key"] is None else str(line["key"]).encode()

    def value_of(line: dict[str, Any]) -> bytes | None:
        return None if line["value_base64"] is None else base64.b64decode(line["value_base64"])

    decoded = [json.loads(line) for line in lines]
    again = [
        Recorded(
            d["partition"],
            d["offset"],
            d["timestamp_ms"],
            key_of(d),
            value_of(d),
            tuple((name, text.encode()) for name, text in d.get("headers", {}).items()),
        )
        for d in decoded
    ]
    assert again == FOUND


def test_a_limit_ends_the_recording_and_reads_no_more_than_one_ahead() -> None:
    """One line was asked for, one is written."""
    lines: list[bytes] = []
    source = iter(FOUND)
    assert record(source, lines.append, limit=1).written == 1
    assert lines == [b'{"a":1}']
    assert len(list(source)) >= 2
