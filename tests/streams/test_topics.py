"""The topics that a configuration needs, beside those that a real broker has."""

from __future__ import annotations

import uuid

import pytest
from kafka import KafkaAdminClient

from worker.contracts.settings import KafkaSettings, OutputSettings, ScoreSettings
from worker.streams import topics

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    """Return settings of the shared broker."""
    return KafkaSettings(bootstrap_servers=kafka)


@pytest.fixture
def wanted() -> list[topics.TopicContract]:
    """Return contracts with names that nobody used before."""
    name = uuid.uuid4().hex[:8]
    outputs = OutputSettings(
        journal=f"{name}-journal",
        alerts=f"{name}-alerts",
        dead_letters=f"{name}-dead",
        training=f"{name}-training",
        entity_updates=f"{name}-updates",
        scores=ScoreSettings(topic=f"{name}-scores", publish="all"),
    )
    return topics.stream_contracts(f"{name}-events", f"{name}-labels", outputs, True, "card")


def test_missing_topics_are_described_as_missing(
    settings: KafkaSettings, wanted: list[topics.TopicContract]
) -> None:
    """No row fits, and the table says why."""
    rows = topics.describe(settings, wanted)
    assert [(row.fits, row.note) for row in rows] == [(False, "missing")] * 8
    assert "missing" in topics.table(rows)


def test_created_topics_fit_and_creating_them_again_changes_nothing(
    settings: KafkaSettings, wanted: list[topics.TopicContract]
) -> None:
    """All have P partitions but training, which has one: its order is the model's."""
    assert topics.create(settings, wanted, 3, 1) == [contract.name for contract in wanted]
    rows = topics.describe(settings, wanted)
    counts = {row.contract.role: row.state.partitions for row in rows}
    assert counts.pop("training") == 1
    assert counts == dict.fromkeys(counts, 3)
    assert all(row.fits for row in rows)
    assert topics.create(settings, wanted, 5, 1) == []
    assert topics.describe(settings, wanted) == rows


def test_with_one_partition_nothing_has_to_be_joined(
    settings: KafkaSettings, wanted: list[topics.TopicContract]
) -> None:
    """The topic of entity updates is neither made nor missed."""
    names = [contract.name for contract in wanted if not contract.several]
    assert topics.create(settings, wanted, 1, 1) == names
    assert [row.contract.name for row in topics.describe(settings, wanted)] == names


def test_missing_topics_take_the_partition_count_of_the_events(
    settings: KafkaSettings, wanted: list[topics.TopicContract]
) -> None:
    """What the events topic has is P, whatever was asked for."""
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.create_topics({wanted[0].name: {"num_partitions": 2}}, wait_for_metadata=True)
    admin.close()
    topics.create(settings, wanted, 4, 1)
    rows = topics.describe(settings, wanted)
    assert all(row.fits for row in rows)
    assert rows[1].state.partitions == 2


def test_a_topic_with_another_partition_count_does_not_fit(
    settings: KafkaSettings, wanted: list[topics.TopicContract]
) -> None:
    """The note says both counts, and the others still fit."""
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.create_topics({wanted[1].name: {"num_partitions": 3}}, wait_for_metadata=True)
    admin.close()
    topics.create(settings, wanted, 2, 1)
    notes = [row.note for row in topics.describe(settings, wanted) if not row.fits]
    assert notes == ["has 3 partitions, the events have 2"]


def test_the_table_aligns_its_columns() -> None:
    """Each column begins at the same place in every line."""
    contract = topics.TopicContract("events", "events", "card", True, True, False)
    state = topics.TopicState("events", 4, "id", "", True, True)
    text = topics.table(topics.rows([contract], {"events": state}))
    assert text == (
        "topic   role    partitions  expected  key   note\n"
        "events  events  4           4         card  ok"
    )


@pytest.mark.parametrize(
    ("readable", "writable", "note"),
    [(False, True, "reading is not permitted"), (True, False, "writing is not permitted")],
)
def test_missing_permissions_are_named(readable: bool, writable: bool, note: str) -> None:
    """The journal is written and read back: both rights are needed."""
    contract = topics.TopicContract("journal", "journal", "-", True, True, True)
    state = topics.TopicState("journal", 1, "id", "", readable, writable)
    wrong = topics.rows([contract], {"journal": state})
    assert [row.note for row in wrong] == [note]
    assert "Rights in Kafka" in topics.remedy(wrong)  # to create topics would not help
