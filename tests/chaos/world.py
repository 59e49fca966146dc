"""A stream that flows through real workers: topics, a paced producer, worker processes, a watch."""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kafka import KafkaProducer
from kafka.errors import KafkaError

from tests.chaos.reading import Watch, committed_ends
from tests.services.process import ServerProcess, free_port
from tests.simulation.world import RING, THRESHOLD, VERSIONS, Item, items
from worker.commands import run_topics

PARTITIONS = 4
_KEY = "CHAOS_SNAPSHOTS_KEY"
TOPICS = ("transactions", "labels", "journal", "alerts", "dead-letters", "entity-updates",
          "training")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: events a second, how many at most, of so many cards and as many terminals.

    ``step_ms`` is of event time, from event to event. By default no entity has more events than
    its ring keeps, so that the oracle is exact, and each has some in its windows.
    ``cached_max`` is that of the section ``labels``.
    """

    rate: int = 60
    events_max: int = 20_000
    entities: int = 20_000 * 3 // RING
    step_ms: int = 29_000
    cached_max: int = 200_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the workers' stream; by default those that are shipped."""

    session_ms: int = 10_000
    transaction_ms: int = 30_000


class Worker:
    """One slot: a process that is started, killed and started again."""

    def __init__(self, directory: Path, slot: str, config: dict[str, Any]) -> None:
        self.slot = slot
        self._orders = directory / f"orders-{slot}"
        self._log = directory / f"worker-{slot}.log"
        self._port = free_port()
        self._path = directory / f"worker-{slot}.yaml"
        self._config = {**config, "runner": {**config["runner"], "metrics_port": self._port}}
        self.deploy(0)
        words = [str(self._orders), "run", "-c", str(self._path), "--slot", slot]
        command = [sys.executable, "-m", "tests.chaos.worker", *words]
        self._process = ServerProcess(f"worker {slot}", command, self._log)
        self.kill, self.freeze, self.thaw, self.limit_files = (
            self._process.kill, self._process.freeze, self._process.thaw,
            self._process.limit_files,
        )  # fmt: skip

    def deploy(self, version: int) -> None:
        """Give it the features of a version, from its next start on."""
        config = {**self._config, "features": VERSIONS[version]}
        self._path.write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self) -> None:
        """Start it; it is not ready yet."""
        self._process.start(lambda output: True)

    @property
    def running(self) -> bool:
        """Return whether the process lives."""
        return self._process.running

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def ready(self) -> bool:
        """Return whether /readyz says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=1) as got:
                return bool(got.status == 200)
        except OSError:
            return False

    def order(self, point: str, passes: int = 1, hold_s: float = 0.0) -> None:
        """Have it die, or stand still for a time, at a pass of a point from now on."""
        beside = self._orders.with_suffix(".new")
        beside.write_text(f"{point} {passes} {hold_s}")
        beside.replace(self._orders)

    @property
    def obeyed(self) -> bool:
        """Return whether the last order was carried out."""
        return not self._orders.exists()

    def stop(self, *, may_leave: bool = False) -> float:
        """End it by SIGTERM; return the seconds it took. Where nobody answers it ``may_leave``.

        Raises
        ------
        AssertionError
            It had to be killed, or failed.
        """
        started_s = time.monotonic()
        self._process.stop()
        codes = (0, 130) if may_leave else (0,)
        code = self._process.exit_code
        assert code in codes, (self.slot, code, self.said[-2000:])
        return time.monotonic() - started_s

    @property
    def said(self) -> str:
        """Return its log, of all its lives."""
        return self._log.read_text() if self._log.exists() else ""


class Player(threading.Thread):
    """Sends events and their labels, early and late ones, at a pace, until it is told to end."""

    def __init__(self, bootstrap: str, prefix: str, seed: int, load: Load) -> None:
        super().__init__(daemon=True)
        self._rate = load.rate
        self._items = items(
            random.Random(seed), PARTITIONS, load.events_max, load.entities, load.entities,
            load.step_ms,
        )  # fmt: skip
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","), linger_ms=5, reconnect_backoff_max_ms=500,
            metadata_max_age_ms=5_000, request_timeout_ms=15_000,
        )  # fmt: skip
        self._prefix = prefix
        self._ended = threading.Event()
        self.sent_s: dict[tuple[int, int], float] = {}
        self.sent = 0

    def run(self) -> None:
        """Send until `close`; what the broker does not take in time is left out."""
        next_s = time.monotonic()
        for item in self._items:
            if self._ended.wait(max(0.0, next_s - time.monotonic())):
                break
            with contextlib.suppress(KafkaError):
                self._send(item)
            next_s += item.is_event / self._rate

    def close(self) -> None:
        """End, with everything sent that was begun."""
        self._ended.set()
        self.join()
        self._producer.flush(60)
        self._producer.close()

    def _send(self, item: Item) -> None:
        topic = self._prefix + ("transactions" if item.is_event else "labels")
        now_s, p = time.monotonic(), item.partition
        sent = self._producer.send(
            topic, item.value, item.key, partition=p, timestamp_ms=item.time_ms
        )
        if item.is_event:
            self.sent += 1
            sent.add_callback(lambda told: self.sent_s.update({(p, told.offset): now_s}))


@dataclass
class World:
    """One stream under way.

    Parameters
    ----------
    directory
        For configurations and logs.
    bootstrap, store_url
        The servers; ``near`` are Kafka's addresses as slot 0 sees them, where they are others.
    """

    directory: Path
    bootstrap: str
    store_url: str
    name: str
    seed: int = 0
    replicas: int = 1
    limits: Limits = field(default_factory=Limits)
    load: Load = field(default_factory=Load)
    near: str | None = None
    workers: dict[str, Worker] = field(default_factory=dict)
    marked_s: float = 0.0
    exits_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        os.environ.setdefault(_KEY, "no secret: of a test")  # workers inherit it
        self.prefix = f"{self.name}-"
        self.random = random.Random(self.seed)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "topics.yaml"
        path.write_text(yaml.safe_dump(self._config(self.bootstrap), sort_keys=False))
        with contextlib.redirect_stdout(io.StringIO()):
            run_topics(path, True, PARTITIONS, self.replicas)
        self.watch = Watch(self.bootstrap, self.prefix + "journal", PARTITIONS)
        self.player = Player(self.bootstrap, self.prefix, self.seed, self.load)

    @property
    def session_s(self) -> float:
        """Return after how much silence a worker is given up."""
        return self.limits.session_ms / 1000

    def begin(self, slots: tuple[str, ...] = ("0", "1")) -> None:
        """Start workers and the stream; return once it has flowed for a while.

        A first start compiles kernels, which takes minutes on a busy machine.
        """
        self.watch.start()
        self.player.start()
        for slot in slots:
            self.worker(slot).start()
        self.wait_ready(*slots)
        self.wait("rows", lambda: all(self.watch.rows(p) > 20 for p in range(PARTITIONS)), 240)
        self.begun_s = time.monotonic()
        self.flow(1)

    def worker(self, slot: str) -> Worker:
        """Return the worker of a slot; it is not started."""
        if slot not in self.workers:
            near = self.near if slot == "0" and self.near else self.bootstrap
            self.workers[slot] = Worker(self.directory, slot, self._config(near))
        return self.workers[slot]

    def flow(self, seconds: float) -> None:
        """Let the stream flow."""
        time.sleep(seconds)

    def mark(self) -> None:
        """Note the moment from which the time to live again is counted."""
        self.marked_s = time.monotonic()

    def wait(self, what: str, done: Callable[[], bool], limit_s: float) -> None:
        """Return once it is so.

        Raises
        ------
        TimeoutError
            It is not, in time.
        """
        deadline_s = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.name}: no {what} in {limit_s:g} s")
            time.sleep(0.2)

    def wait_ready(self, *slots: str) -> None:
        """Return once these workers are live: what is killed before that proves nothing."""
        self.wait("ready workers", lambda: all(self.workers[s].ready for s in slots), 90)

    def revive(self, slot: str) -> None:
        """Wait until a worker is live; start it again where it left as its slot was taken."""
        worker = self.workers[slot]
        self.wait("end of a doubt", lambda: worker.ready or not worker.running, 120)
        if not worker.running:
            worker.start()
            self.wait_ready(slot)

    def wait_dead(self, slot: str) -> None:
        """Return once a worker has followed its order to die."""
        self.wait(f"death of {slot}", lambda: not self.workers[slot].running, 60)
        assert self.workers[slot].obeyed, self.workers[slot].said[-2000:]

    def live_s(self) -> float | None:
        """Return when, from the mark on, an event sent after it was committed everywhere."""
        firsts = [next(self._after_mark(p), None) for p in range(PARTITIONS)]
        known = [at_s for at_s in firsts if at_s is not None]
        return max(known) - self.marked_s if len(known) == PARTITIONS else None

    def rest(self) -> None:
        """End the stream and wait until nothing is left to do."""
        self.player.close()
        topics = {self.prefix + topic: PARTITIONS for topic in ("transactions", "labels")}
        ends = committed_ends(self.bootstrap, topics)
        self.wait("end of the journal", lambda: self._is_drained(ends), 120)

    def end(self) -> None:
        """Let it come to rest, and stop the workers."""
        self.rest()
        for worker in self.workers.values():
            if worker.running:
                self.exits_s.append(worker.stop())

    def close(self) -> None:
        """End whatever still runs."""
        for worker in self.workers.values():
            worker.kill()
        if self.watch.is_alive():
            self.watch.close()
        if self.player.is_alive():
            self.player.close()

    def _after_mark(self, partition: int) -> Iterator[float]:
        sent_s = self.player.sent_s
        for one in self.watch.seen[partition]:
            if any(sent_s.get((partition, s), 0.0) >= self.marked_s for s in one.sources):
                yield one.at_s

    def _is_drained(self, ends: dict[tuple[str, int], int]) -> bool:
        """Return whether every event has its row and all labels were heard."""
        return all(
            self.watch.rows(p) >= ends[self.prefix + "transactions", p]
            and seen[-1].labels_next >= ends[self.prefix + "labels", p]
            for p, seen in self.watch.seen.items()
        )

    def _config(self, bootstrap: str) -> dict[str, Any]:
        """Return a configuration file: the simulation's world, on real servers."""
        of = {topic: self.prefix + topic for topic in TOPICS}
        return {
            "name": self.name,
            "events": {
                "topic": of["transactions"], "id": "id", "key": "card",
                "time": {"field": "at", "unit": "ms"},
                "fields": {
                    "id": "string", "card": "string", "terminal": "string",
                    "at": {"type": "timestamp", "unit": "ms"},
                    "amount": {"type": "decimal", "resolution": 0.01},
                },
            },
            "labels": {
                "topic": of["labels"], "horizon": "30d", "cached_max": self.load.cached_max,
            },
            "entities": {
                "card": {"key": "card", "ring": RING},
                "terminal": {"key": "terminal", "ring": RING},
            },
            "features": VERSIONS[0],
            "models": {"fraud": {"preset": "logistic", "calibration": "none"}},
            "decision": {"model": "fraud", "threshold": THRESHOLD},
            "outputs": {
                "journal": of["journal"], "alerts": of["alerts"], "training": of["training"],
                "dead_letters": of["dead-letters"], "entity_updates": of["entity-updates"],
            },
            "stream": {
                "kind": "kafka", "bootstrap_servers": bootstrap,
                "session_timeout": f"{self.limits.session_ms}ms",
                "transaction_timeout": f"{self.limits.transaction_ms}ms",
            },
            "store": {"kind": "redis", "url": self.store_url},
            "snapshots": {
                "directory": str(self.directory / "snapshots"), "key": f"${{{_KEY}}}",
                "every": 100,
            },
            "runner": {"batch_records_max": 1_000, "flush": "500ms"},
        }  # fmt: skip
