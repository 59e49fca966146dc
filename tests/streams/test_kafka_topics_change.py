"""Topics that do not fit at the start, or change under a running worker, stop it."""

from __future__ import annotations

import kafka
import pytest

from tests.streams.harness import KafkaHarness, polls, start, together
from worker.errors import ConfigError, FatalError
from worker.streams.kafka import KafkaStream

pytestmark = pytest.mark.kafka


def test_missing_topics_are_named_at_the_start_with_the_command_that_helps(
    world: KafkaHarness,
) -> None:
    """The client itself would poll nothing, for ever and in silence."""
    with pytest.raises(ConfigError, match=r"nowhere: missing.*riverwatch topics") as raised:
        KafkaStream(world.settings, group="g", slot="0", events_topic=world.events,
                    labels_topic="nowhere", outputs=world.outputs)  # fmt: skip
    assert world.events not in str(raised.value)


def test_unequal_partition_counts_are_refused_at_the_start(world: KafkaHarness) -> None:
    """Events and labels of one partition would land on different workers."""
    name = f"{world.group}-three"
    world.admin.create_topics({name: {"num_partitions": 3}}, wait_for_metadata=True)
    with pytest.raises(ConfigError, match="has 3 partitions, the events have 2"):
        KafkaStream(world.settings, group="g", slot="0", events_topic=world.events,
                    labels_topic=name, outputs=world.outputs)  # fmt: skip


def test_a_topic_that_was_created_again_is_refused(world: KafkaHarness) -> None:
    """Its offsets mean other records; the client would read on in silence."""
    stream = world.stream()
    start(stream)
    _create_again(world, world.outputs.journal)
    with pytest.raises(FatalError, match="another one of this name"):
        stream.recover()


def test_who_gets_a_partition_looks_at_the_topics_first(world: KafkaHarness) -> None:
    """What its last owner had committed may be of another topic."""
    one, two = world.stream("0"), world.stream("1")
    together([one, two], lambda found: all(len(p.assigned) == 1 for p in found))
    _create_again(world, world.outputs.journal)
    two.close()
    with pytest.raises(FatalError, match="another one of this name"):
        for _ in polls(one):
            pass


def _create_again(world: KafkaHarness, topic: str) -> None:
    world.admin.delete_topics([topic])
    while not _created(world, topic):
        pass


def _created(world: KafkaHarness, topic: str) -> bool:
    try:
        world.admin.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
    except kafka.errors.TopicAlreadyExistsError:
        return False  # the deletion is not complete yet
    return True


def test_a_topic_that_grew_is_refused(world: KafkaHarness) -> None:
    """Keys have moved to other partitions: the state of their entities is elsewhere."""
    stream = world.stream()
    start(stream)
    world.admin.create_partitions({world.events: 4})
    with pytest.raises(FatalError, match="2 partitions, got 4"):
        stream.recover()
