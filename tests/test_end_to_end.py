"""The commands as a user types them, on a real broker and a real store, killed in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from worker.arrow import read_batch
from worker.commands_models import run_models
from worker.commands_repair import run_reset
from worker.config import load_settings
from worker.errors import ConfigError
from worker.features.spec import compile_features

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]

PARTITIONS = 2
ROOT = Path(__file__).parent.parent


class World:
    """Topics, a configuration and a recording of their own for one test."""

    def __init__(self, directory: Path, bootstrap: str, redis_url: str) -> None:
        self.directory, self.bootstrap = directory, bootstrap
        self.processes: list[subprocess.Popen[str]] = []
        self.name = f"e2e-{uuid.uuid4().hex[:8]}"
        self.config = directory / "cards.yaml"
        self.environ = {**os.environ, "TEST_BOOTSTRAP": bootstrap, "TEST_REDIS": redis_url}
        self.config.write_text(self._yaml())
        self.riverwatch("topics", "-c", self.config, "--create", "--partitions", PARTITIONS)
        self.produce("cards", "--out", directory / "data", "--days", 4, "--bad-share", 0.004,
                     "--maturity", "1d", "--fraud-delay", "6h")  # fmt: skip
        self.events = directory / "data" / "events.jsonl"
        self.labels = directory / "data" / "labels.jsonl"

    def _yaml(self) -> str:
        text = (ROOT / "examples" / "cards" / "cards.yaml").read_text()
        for topic in ("journal", "alerts", "dead-letters", "training", "labels", "transactions"):
            text = text.replace(f": {topic} ", f": {self.name}-{topic} ")
            text = text.replace(f": {topic}\n", f": {self.name}-{topic}\n")
        # Below the score of an untaught model: alerts come however late labels are learned.
        text = text.replace("alert_rate: 0.005", "threshold: 0.0005")
        text = text.replace("name: cards", f"name: {self.name}")
        text = text.replace("localhost:9092", "${TEST_BOOTSTRAP}")
        text = text.replace("redis://localhost:6379/0", "${TEST_REDIS}")
        # What other shards saw of a terminal comes a flush later: x would not be a replay's.
        text = text.replace("  terminal:\n    count: [1h, 1d]\n", "")
        return text + "runner: {metrics_port: null, batch_records_max: 300}\n"

    def riverwatch(self, *words: object) -> str:
        return self._run("worker.cli", *words)

    def produce(self, *words: object) -> str:
        return self._run("producers.cli", *words)

    def _run(self, module: str, *words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            env=self.environ, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def play(self, *options: object) -> subprocess.Popen[str]:
        """Start playing events and labels onto their topics."""
        words = [
            "play", self.events, "--topic", f"{self.name}-transactions", "--labels", self.labels,
            "--labels-topic", f"{self.name}-labels", "--bootstrap", self.bootstrap, *options,
        ]  # fmt: skip
        return self._start("player", "producers.cli", *words)

    def start(self, slot: str = "0") -> subprocess.Popen[str]:
        """Start a worker."""
        words = ("run", "-c", self.config, "--slot", slot)
        return self._start(f"worker-{slot}", "worker.cli", *words)

    def wait_for_live(self, starts: int, slot: str = "0") -> None:
        """Return once the worker that was started last owns all partitions."""
        while self.log(slot).count("shard_acquired") < PARTITIONS * starts:
            time.sleep(0.1)

    def _start(self, name: str, module: str, *words: object) -> subprocess.Popen[str]:
        with (self.directory / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, words)],
                env=self.environ, cwd=ROOT, stderr=log, stdout=log, text=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def read(self, topic: str) -> Iterator[Any]:
        """Yield committed messages of all partitions, by a client that is not the worker's."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"reader-{uuid.uuid4().hex}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        name = f"{self.name}-{topic}"
        count = len(consumer.list_topics(name).topics[name].partitions)
        consumer.assign([TopicPartition(name, p, 0) for p in range(count)])
        ended: set[int] = set()
        try:
            while len(ended) < count:
                message = consumer.poll(10)
                assert message is not None
                if message.error() is None:
                    yield message
                else:
                    ended.add(message.partition())
        finally:
            consumer.close()

    def rows(self) -> list[dict[str, Any]]:
        """Return all committed journal rows, by partition and in order."""
        found: list[dict[str, Any]] = []
        for message in self.read("journal"):
            batch = read_batch(message.value(), "journal").replace_schema_metadata(None)
            part = pa.Table.from_batches([batch]).to_pylist()
            found += [{"partition": message.partition(), **row} for row in part]
        return sorted(found, key=lambda row: row["partition"])  # stable: order within stays

    def wait_for_rows(self, count: int) -> list[dict[str, Any]]:
        """Return the rows once there are ``count``; the test's own timeout is the bound."""
        while True:
            rows = self.rows()
            if len(rows) >= count:
                return rows
            time.sleep(0.2)

    def log(self, slot: str = "0") -> str:
        path = self.directory / f"worker-{slot}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def world(tmp_path: Path, kafka: str, redis_url: str) -> Iterator[World]:
    made = World(tmp_path, kafka, redis_url)
    yield made
    made.close()


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=20)


def lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def by_source(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(row["partition"], row["source_offset"]) for row in rows]


def certain(rows: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return, by event, what may not depend on when labels were learned."""
    return {
        row["event_id"]: (row["outcome"], row["entity"], row["time_ms"], str(row["x"]))
        for row in rows
        if row["outcome"] == "scored"
    }


def test_a_worker_killed_three_times_gives_what_a_replay_gives(world: World) -> None:
    """Journal complete and without doubles; features, bit for bit, those of the embedded run."""
    process = world.start()
    player = world.play("--rate", 1_500)
    for starts in (1, 2, 3):
        world.wait_for_live(starts)
        process.kill()
        process.wait()
        process = world.start()
    world.wait_for_live(4)
    rows = world.wait_for_rows(lines(world.events))
    assert player.wait() == 0
    assert stop(process) == 0
    offsets = by_source(rows)
    assert offsets == sorted(set(offsets)), world.log()[-3000:]
    assert len(rows) == lines(world.events)

    world.riverwatch("replay", "-c", world.config, "--events", world.events,
                     "--labels", world.labels, "--out", world.directory / "out")  # fmt: skip
    with pa.ipc.open_file(world.directory / "out" / "journal" / "events-0.arrow") as file:
        replayed = file.read_all().to_pylist()
    assert certain(rows) == certain(replayed)

    messages = [json.loads(m.value()) for m in world.read("alerts")]
    alerts = [m for m in messages if m["kind"] == "alert"]
    assert len({a["alert_id"] for a in alerts}) == len(alerts)
    decided = {r["event_id"] for r in rows if r["decision"] == "alert"}
    assert len(alerts) == len(decided) > 0
    assert {a["event_id"] for a in alerts} == decided
    assert all(a["reasons"] for a in alerts)

    letters = list(world.read("dead-letters"))
    rejected = [r for r in rows if r["outcome"] == "rejected"]
    assert len(letters) == len(rejected) > 0
    sent = set(world.events.read_bytes().split(b"\n"))
    assert {m.value() for m in letters if m.value()} <= sent
    assert {dict(m.headers())["__connect.errors.offset"].decode() for m in letters} == {
        str(r["source_offset"]) for r in rejected
    }


def test_what_a_broker_would_not_take_stops_no_worker(world: World) -> None:
    """An event of the year 2099, and one of 5 MB, which a client may send compressed."""
    first = json.loads(world.events.read_bytes().partition(b"\n")[0])
    ahead = {**first, "time": "2099-01-01T00:00:00Z"}
    large = {**first, "transaction_id": "large", "device_id": "d" * 5_000_000}
    producer = Producer({"bootstrap.servers": world.bootstrap, "compression.type": "zstd",
                         "message.max.bytes": 10_000_000})  # fmt: skip
    for event in (ahead, large, {**ahead, "transaction_id": "next"}):
        producer.produce(
            f"{world.name}-transactions", json.dumps(event).encode(), first["card_id"], 0
        )
    assert producer.flush(30) == 0
    process = world.start()
    rows = world.wait_for_rows(3)
    assert [row["outcome"] for row in rows] == ["scored", "rejected", "scored"]
    (letter,) = world.read("dead-letters")
    assert json.dumps(large).encode().startswith(letter.value())
    whole = len(json.dumps(large)) + len(first["card_id"])
    assert dict(letter.headers())["riverwatch.cut_from_bytes"] == b"%d" % whole
    assert stop(process) == 0
    assert "state_lost" not in world.log()


def test_sigterm_flushes_and_a_second_worker_goes_on(world: World) -> None:
    """Exit code 0; the next worker, in another slot, folds nothing and goes on behind it."""
    process = world.start()
    world.play()
    world.wait_for_rows(500)
    assert stop(process) == 0
    other = world.start(slot="1")
    world.wait_for_live(1, slot="1")
    rows = world.wait_for_rows(lines(world.events))
    assert stop(other) == 0
    offsets = by_source(rows)
    assert offsets == sorted(set(offsets))
    acquired = [json.loads(x) for x in world.log("1").splitlines() if "shard_acquired" in x]
    assert [a["folded"] for a in acquired[:PARTITIONS]] == [0] * PARTITIONS


def test_health_and_metrics_are_served(world: World) -> None:
    """A worker that is live answers ready, and its counters add up to the input.

    With the shipped features of terminals, which join several partitions.
    """
    text = world.config.read_text().replace("metrics_port: null", "metrics_port: 19464")
    text = text.replace("\nmodels:", "\n  terminal:\n    count: [1h, 1d]\n\nmodels:", 1)
    updates = f"outputs:\n  entity_updates: {world.name}-updates\n"
    world.config.write_text(text.replace("outputs:\n", updates, 1))
    world.riverwatch("topics", "-c", world.config, "--create", "--partitions", PARTITIONS)
    process = world.start()
    world.play()
    world.wait_for_rows(lines(world.events))
    with urllib.request.urlopen("http://127.0.0.1:19464/readyz", timeout=5) as answer:
        assert answer.status == 200
    with urllib.request.urlopen("http://127.0.0.1:19464/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    assert stop(process) == 0
    outcomes = [
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("riverwatch_outcomes_total")
    ]
    assert sum(outcomes) == lines(world.events)


def table_of(listed: str) -> list[str]:
    """Return the lines from the headings on, without what was logged before."""
    found = listed.splitlines()
    return found[next(i for i, line in enumerate(found) if "(alerts)" in line) :]


def test_models_are_listed_and_orders_hold_from_the_version_they_say(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who decides changes with the row of that version and no other; the list says it all."""
    for name in ("TEST_BOOTSTRAP", "TEST_REDIS"):
        monkeypatch.setenv(name, world.environ[name])

    def models(order: str | None = None, model: str | None = None) -> str:
        capsys.readouterr()
        assert run_models(world.config, order, model) == 0
        return capsys.readouterr().out

    half = lines(world.events) // 2
    process = world.start()
    assert world.play("--limit", half).wait() == 0
    world.wait_for_rows(half)
    before = table_of(models())
    assert before[0].split() == ["(alerts)", "fraud", "odd"]
    assert before[1].split() == ["role", "published", "champion", "challenger"]
    (labelled,) = [line for line in before if line.startswith("labelled")]
    assert all(int(count) > 100 for count in re.findall(r"\d+", labelled))
    (version,) = re.findall(r"promote odd is .* from version (\d+) on", models("promote", "odd"))
    assert world.play().wait() == 0
    rows = world.wait_for_rows(half + lines(world.events))
    scored = [row for row in rows if row["outcome"] == "scored"]
    after = [row["model_version"] >= int(version) for row in scored]
    assert 0 < sum(after) < len(after)
    for row, is_after in zip(scored, after, strict=True):
        assert row["score"] == row["score_odd" if is_after else "score_fraud"]
    assert table_of(models())[1].split() == ["role", "published", "challenger", "champion"]
    models("roll-back")
    models("freeze", "odd")
    listed = models()
    assert table_of(listed)[1].split() == ["role", "published", "champion", "challenger"]
    assert table_of(listed)[2].split() == ["status", "learning", "frozen"]
    assert "odd stopped learning (order: freeze)" in listed
    assert stop(process) == 0


def test_two_replays_write_the_same_bytes(tmp_path: Path) -> None:
    """All files but the timings are identical; metrics hold what the issue of a replay is."""
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", "demo", "--out", str(out), "--alerts", "1"],
            cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.startswith("ALERT ")
    for name in ("scores.parquet", "alerts.jsonl", "dead-letters.jsonl", "journal/events-0.arrow"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
    metrics = json.loads((outs[0] / "metrics.json").read_text())
    table = pq.read_table(outs[0] / "scores.parquet")
    assert table.num_rows == metrics["events"] == sum(metrics["outcomes"].values())
    assert (metrics["complete"], metrics["roc_auc"] > 0.6) == (True, True)
    periods = metrics["periods"]
    for name, total in (("events", metrics["outcomes"]["scored"]), ("alerts", metrics["alerts"])):
        assert sum(one[name] for one in periods) == total
    assert sum(one["labelled"] for one in periods) == metrics["labelled"]
    assert metrics["models"]["(alerts)"]["total"]["labelled"] == metrics["labelled"]


def test_a_partition_whose_past_is_gone_begins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Store and first events are lost: reset with a reason, and each later event once."""
    for name in ("TEST_BOOTSTRAP", "TEST_REDIS"):
        monkeypatch.setenv(name, world.environ[name])
    half = lines(world.events) // 2
    process = world.start()
    assert world.play("--limit", half).wait() == 0
    before = world.wait_for_rows(half)
    reset = partial(run_reset, world.config, 0, None, None, "disk lost")
    with pytest.raises(ConfigError, match="expected no worker, got slots "):
        reset(yes=True)
    assert stop(process) == 0
    delete_half(world, f"{world.name}-transactions", 0)
    redis.Redis.from_url(world.environ["TEST_REDIS"]).flushdb()

    records = len(list(world.read("journal")))
    reset(yes=False)
    assert "nothing was done: add --yes" in capsys.readouterr().out
    assert records == len(list(world.read("journal")))
    reset(yes=True)
    mine = [row for row in before if row["partition"] == 0]
    said = capsys.readouterr().out
    assert f"partition 0 begins anew at events {len(mine)}, " in said
    assert "\n0 offsets of events are skipped" in said
    process = world.start()
    assert world.play().wait() == 0
    rows = world.wait_for_rows(len(before) + lines(world.events))
    assert stop(process) == 0
    assert by_source(rows) == sorted(set(by_source(rows)))
    fresh = [row for row in rows if row["partition"] == 0][len(mine) :]
    firsts = {row["entity"]: row["x"] for row in reversed(fresh) if row["outcome"] == "scored"}
    spec = compile_features(load_settings(world.config, world.environ))
    column = spec.names.index("card_count_1d")
    assert {x[column] for x in firsts.values()} == {1.0}  # nobody has a past
    others = [row for row in rows if row["partition"] == 1]
    assert [row for row in before if row["partition"] == 1] == others[: len(before) - len(mine)]


def delete_half(world: World, topic: str, partition: int) -> None:
    """Delete the first half of a partition as retention does."""
    admin = AdminClient({"bootstrap.servers": world.bootstrap})
    consumer = Consumer({"bootstrap.servers": world.bootstrap, "group.id": "nobody"})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    consumer.close()
    place = TopicPartition(topic, partition, end // 2)
    admin.delete_records([place])[place].result(timeout=10)
