"""Secondary entities on a real broker and a real store: two workers, one killed, the store lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from pydantic import SecretStr

from tests.worlds import START_MS, drain, new_log, settings, worker
from worker.checkpoint import space_of, updates_space_of
from worker.config import load_settings
from worker.contracts.settings import RedisSettings, Settings
from worker.features.spec import compile_features
from worker.secondary import target_of
from worker.stores.memory import MemoryStore
from worker.stores.redis import RedisStore

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent
PARTITIONS, COUNT = 4, 8_000
FEATURES: dict[str, Any] = {
    "amount": "$amount",
    "card": {"count": ["1h", "1d"], "mean(amount)": ["1d"], "time_since_last": {}},
    "terminal": {"count": ["1d", "3d"], "std(amount)": ["1d"], "max(amount)": ["7d"]},
}
TERMINALS = [f"t{i}" for i in range(60)]


def events() -> list[dict[str, Any]]:
    """Return events at different times, a second apart, with rings that overflow."""
    draw = random.Random(5)
    return [
        {
            "id": f"e{i}",
            "card": f"c{draw.randrange(300)}",
            "terminal": draw.choice(TERMINALS),
            "at": START_MS + 60_000 * i + draw.randrange(60_000),
            "amount": draw.randrange(1, 90_000) / 100,
        }
        for i in range(COUNT)
    ]


class World:
    """Topics, a configuration and two workers of one test."""

    def __init__(self, directory: Path, bootstrap: str, redis_url: str) -> None:
        self.directory, self.bootstrap, self.count = directory, bootstrap, COUNT
        self.name = f"shared-{uuid.uuid4().hex[:8]}"
        self.config = directory / "world.yaml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._declared = self._document(redis_url)
        self.declare({})
        self.store = RedisStore(RedisSettings(url=SecretStr(redis_url)))
        created = self.cli("topics", "--create", "--partitions", str(PARTITIONS))
        assert f"{self.name}-entity-updates" in created

    def _document(self, redis_url: str) -> dict[str, Any]:
        document = settings().model_dump(mode="json", exclude_unset=True, exclude={"labels"})
        topics = ("journal", "alerts", "dead_letters", "training", "entity_updates")
        document["events"]["topic"] = f"{self.name}-events"
        document["name"] = self.name
        document["outputs"] = {t: f"{self.name}-{t}".replace("_", "-") for t in topics}
        document["stream"] = {
            "kind": "kafka", "bootstrap_servers": self.bootstrap, "session_timeout": "3s",
            "transaction_timeout": "5s",
        }  # fmt: skip
        document["store"] = {"kind": "redis", "url": redis_url}
        document["runner"] = {"metrics_port": None, "batch_records_max": 100}
        return document

    def declare(self, changes: dict[str, Any]) -> None:
        """Write the configuration with sections changed; what runs keeps its own."""
        self.config.write_text(yaml.safe_dump(self._declared | changes, sort_keys=False))
        self.settings: Settings = load_settings(self.config, {})
        self.spec = compile_features(self.settings)

    def produce(self, part: list[dict[str, Any]]) -> None:
        """Send events; a card stays in its partition."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for event in part:
            p = int(event["card"][1:]) % PARTITIONS
            producer.produce(
                f"{self.name}-events", msgspec.json.encode(event), event["card"], p,
                timestamp=event["at"],
            )  # fmt: skip
        assert producer.flush(30) == 0

    def start(self, slot: str) -> None:
        with (self.directory / f"{slot}.log").open("ab") as log:
            self.processes[slot] = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", "run", "-c", str(self.config), "--slot", slot],
                cwd=ROOT, stderr=log, stdout=log,
            )  # fmt: skip

    def dying_backfill(self, orders: str) -> None:
        """Run a backfill that dies as told, see `tests.chaos.worker`."""
        told = self.directory / "orders"
        told.write_text(orders)
        words = [sys.executable, "-m", "tests.chaos.worker", str(told), "backfill", "-c"]
        done = subprocess.run([*words, str(self.config)], cwd=ROOT, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL

    def kill(self, slot: str) -> None:
        self.processes[slot].send_signal(signal.SIGKILL)
        self.processes[slot].wait()

    def stop(self, slot: str) -> None:
        process = self.processes.pop(slot)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, self.log(slot)

    def marks(self) -> int:
        """Return how many committed records say how far rows were written anew."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "marks", "enable.partition.eof": True,
             "isolation.level": "read_committed", "auto.offset.reset": "earliest"}
        )  # fmt: skip
        topic = f"{self.name}-entity-updates"
        consumer.assign([TopicPartition(topic, q, 0) for q in range(PARTITIONS)])
        found, ended = 0, 0
        while ended < PARTITIONS:
            record = consumer.poll(10)
            assert record is not None
            ended += record.error() is not None
            found += record.error() is None and record.key() == b"rekeyed"
        consumer.close()
        return found

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Return once something is so; the test's own timeout is the bound."""
        while not what():
            for slot, process in self.processes.items():
                code = process.poll()
                assert code in (None, -signal.SIGKILL), self.log(slot)
            time.sleep(0.2)

    def log(self, slot: str) -> str:
        return (self.directory / f"{slot}.log").read_text()[-3_000:]

    def journaled(self) -> int:
        """Return how many events have a committed row, by the offsets of the group."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.name})
        places = [TopicPartition(f"{self.name}-events", p) for p in range(PARTITIONS)]
        found = consumer.committed(places, 10)
        consumer.close()
        return sum(max(0, place.offset) for place in found)

    def is_drained(self) -> bool:
        """Return whether every event is committed and every state has all of its rows."""
        if self.journaled() < self.count:
            return False
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "ends"})
        topic = f"{self.name}-entity-updates"
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topic, q))[1] for q in range(PARTITIONS)
        ]
        consumer.close()
        metas = [self.store.meta(self._space(q)) for q in range(PARTITIONS)]
        return all(m is not None and m.events_offset >= e for m, e in zip(metas, ends, strict=True))

    def terminals(self) -> dict[str, bytes | None]:
        """Return the stored state of every terminal."""
        return {
            t: self.store.load([(self._space(target_of(t, PARTITIONS)), [f"terminal:{t}"])])[0][1][
                0
            ]
            for t in TERMINALS
        }

    def lose_the_store(self) -> None:
        for p in range(PARTITIONS):
            self.store.drop(self._space(p))
            self.store.drop(space_of(self.name, self.spec, p))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.lose_the_store()
        self.store.close()

    def _space(self, q: int) -> str:
        return updates_space_of(self.name, self.spec, q)

    def cli(self, command: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", command, "-c", str(self.config), *words],
            cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
        return done.stdout


@pytest.fixture
def world(tmp_path: Path, kafka: str, redis_url: str) -> Iterator[World]:
    made = World(tmp_path, kafka, redis_url)
    yield made
    made.close()


def of_one_process(stream: list[dict[str, Any]], **changes: Any) -> dict[str, bytes | None]:
    """Return the states that one partition in one process makes of the same events."""
    log, store = new_log(1), MemoryStore()
    for event in stream:
        value, key = msgspec.json.encode(event), event["card"].encode()
        log.append("transactions", 0, value, key, event["at"])
    plain = settings(runner={"batch_records_max": 1_000}, **changes)
    drain(worker(log, store, config=plain, flush_every_s=0.0))
    space = space_of("world", compile_features(plain), 0)
    values = store.load([(space, [f"terminal:{t}" for t in TERMINALS])])[0][1]
    return dict(zip(TERMINALS, values, strict=True))


def test_two_workers_end_with_the_states_of_one_process(world: World) -> None:
    """Killed with -9, taken over, the store emptied: every terminal's blob, byte for byte."""
    every = events()
    assert world.spec.state_hash == compile_features(settings()).state_hash
    world.produce(every[: COUNT // 2])
    world.start("0")
    world.start("1")
    world.wait_for(lambda: world.journaled() > COUNT // 8)
    world.kill("1")
    world.wait_for(lambda: world.journaled() > COUNT // 4)
    world.lose_the_store()
    world.start("1")
    world.produce(every[COUNT // 2 :])
    world.wait_for(world.is_drained)
    assert world.terminals() == of_one_process(every)


def test_a_backfill_and_a_restart_give_new_features_the_states_of_one_process(
    world: World,
) -> None:
    """The backfill is killed with -9 inside of a transaction and run again while an old worker
    serves, which goes on and is stopped; two new ones write what it did since.
    """
    count = world.count = COUNT // 4
    every = events()[:count]
    world.produce(every[: count // 2])
    world.start("0")
    world.wait_for(lambda: world.journaled() == count // 2)
    world.declare({"features": FEATURES})
    world.dying_backfill("offsets_sent 3 0")
    assert world.cli("backfill").count("rows of secondary entities written") == 2
    assert world.marks() == PARTITIONS
    world.produce(every[count // 2 : 3 * count // 4])
    world.wait_for(lambda: world.journaled() == 3 * count // 4)
    world.stop("0")
    world.start("0")
    world.start("1")
    world.produce(every[3 * count // 4 :])
    world.wait_for(world.is_drained)
    assert world.marks() == 2 * PARTITIONS
    assert world.terminals() == of_one_process(every, features=FEATURES)
