"""`riverwatch repair` as it is typed, on a real broker and a real store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from worker.checkpoint import space_of, updates_space_of
from worker.config import load_settings
from worker.contracts.settings import RedisSettings
from worker.features.spec import compile_features
from worker.stores import Meta, Writes
from worker.stores.redis import RedisStore

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

PARTITIONS = 5
ROOT = Path(__file__).parent.parent


class Cards:
    """The example of the documentation, with topics, keys and a directory of its own."""

    def __init__(self, directory: Path, bootstrap: str, redis_url: str) -> None:
        self.directory, self.bootstrap = directory, bootstrap
        name = f"repair-{uuid.uuid4().hex[:8]}"
        self.updates = f"{name}-updates"
        text = (ROOT / "examples" / "cards" / "cards.yaml").read_text()
        for topic in ("transactions", "labels", "journal", "alerts", "dead-letters", "training"):
            text = re.sub(rf"^(  \w+): {topic}\b", rf"\1: {name}-{topic}", text, flags=re.MULTILINE)
        text = text.replace("outputs:\n", f"outputs:\n  entity_updates: {self.updates}\n")
        text = text.replace("name: cards ", f"name: {name} ").replace("localhost:9092", bootstrap)
        text = text.replace("redis://localhost:6379/0", redis_url)
        (directory / "cards.yaml").write_text(text)
        self.settings = load_settings(directory / "cards.yaml", {})
        self.spec = compile_features(self.settings)
        assert isinstance(self.settings.store, RedisSettings)
        self.store = RedisStore(self.settings.store)
        made = self.run(f"topics -c cards.yaml --create --partitions {PARTITIONS}")
        assert made.returncode == 0, made.stderr

    def run(self, words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the directory of ``cards.yaml``."""
        return subprocess.run(
            [sys.executable, "-m", "worker.cli", *words.split()], cwd=self.directory, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True,
            text=True,
        )  # fmt: skip

    def space(self, partition: int) -> str:
        """Return the name of a shard's keys."""
        return space_of(self.settings.name, self.spec, partition)

    def fill(self, space: str) -> None:
        """Store one entity in a space, at a position of no meaning."""
        self.store.flush(space, None, Meta(b"v" * 16, 1, 1, 1), [Writes.of("card:1", b"x")])

    def lose_updates(self, partition: int, count: int) -> None:
        """Write so many records to `entity-updates` and delete them as retention does."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for _ in range(count):
            producer.produce(self.updates, b"x", partition=partition)
        assert producer.flush(10) == 0
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        place = TopicPartition(self.updates, partition, count)
        admin.delete_records([place])[place].result(timeout=10)

    def close(self) -> None:
        """Delete what is stored."""
        self.run("repair drop-spec -c cards.yaml --yes")
        self.store.close()


@pytest.fixture
def cards(tmp_path: Path, kafka: str, redis_url: str) -> Iterator[Cards]:
    """Return the example on the shared servers."""
    made = Cards(tmp_path, kafka, redis_url)
    yield made
    made.close()


def test_the_way_to_delete_a_space_works_as_written(cards: Cards) -> None:
    """The command of docs/operations.md drops one partition's space and leaves its neighbour.

    Without --yes it leaves both.
    """
    page = (ROOT / "docs" / "operations.md").read_text()
    (words,) = re.findall(r"^riverwatch (repair rebuild .* --yes)$", page, re.MULTILINE)
    spaces = [cards.space(partition) for partition in (3, 4)]
    for space in spaces:
        cards.fill(space)
    said = []
    for command in (words.removesuffix(" --yes"), words):
        done = cards.run(command)
        said.append(done.stdout)
        stands = cards.store.meta(spaces[0])
        assert (stands is None) == command.endswith("--yes"), done.stderr
    dry = f"{spaces[0]}: would be deleted, it stands at events 1, labels 1\n"
    assert said == [f"{dry}nothing was done: add --yes to do it\n",
                    f"{spaces[0]}: 2 keys deleted\ndone\n"]  # fmt: skip
    assert [cards.store.meta(space) is None for space in spaces] == [True, False]


def test_what_the_log_cannot_give_back_is_not_deleted(cards: Cards) -> None:
    """Neither of this partition nor of one that is named with it; drop-spec never asks."""
    for partition in (1, 2):
        cards.fill(cards.space(partition))
    cards.lose_updates(2, 1)
    done = cards.run("repair rebuild -c cards.yaml --partition 1 --partition 2 --yes")
    gone = f"{cards.updates}/2: expected a log that has the offset 0, got one of [1, 1) ("
    assert (done.returncode, done.stdout, gone in done.stderr) == (1, "", True), done.stderr
    assert all(cards.store.meta(cards.space(partition)) for partition in (1, 2))
    done = cards.run("repair drop-spec -c cards.yaml --yes")
    assert done.returncode == 0, done.stderr
    assert not any(cards.store.meta(cards.space(partition)) for partition in (1, 2))


def test_a_reset_lets_secondary_entities_begin_at_the_rows_that_are_left(cards: Cards) -> None:
    """With --yes; without, it says so."""
    cards.lose_updates(2, 7)
    space = updates_space_of(cards.settings.name, cards.spec, 2)
    command = "repair reset -c cards.yaml --partition 2 --reason expired"
    done = cards.run(command)
    assert f"{space}: would begin anew at 7, the first row that is left, after 0" in done.stdout
    assert cards.store.meta(space) is None
    done = cards.run(f"{command} --yes")
    assert f"{space}: begins anew at 7" in done.stdout, done.stderr
    meta = cards.store.meta(space)
    assert meta is not None
    assert meta.events_offset == 7
    assert "begins anew at 7" not in cards.run(f"{command} --yes").stdout
