"""Readers: what is read without an event is what an event of that instant would read before it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.features.label_streams import (
    Stream,
    Told,
    label_settings,
    label_spec,
    labelled_streams,
)
from tests.features.streams import (
    LATE_MS,
    START_MS,
    STEPS_MS,
    UNHURRIED,
    Row,
    settings_of,
    spec_of,
    step,
    streams,
    tables_of,
    taken_from,
)
from tests.services.valkey import ValkeyCluster, ValkeyServer
from tests.worlds import drain, events, fill, journal, new_log, worker
from tests.worlds import settings as world_settings
from worker.contracts.settings import RedisSettings, Settings
from worker.errors import ConfigError, StateLostError, TransientError
from worker.features.aggregations import AGGREGATIONS
from worker.features.aggregations.labels import LABEL_AGGREGATIONS
from worker.features.reader import Reader
from worker.features.spec import compile_features
from worker.features.standing import Standing, before_the_event
from worker.secondary import target_of
from worker.stores.redis import RedisStore

WINDOWS = ["5s", "1m", "1d"]
KEYS = ("count", "sum(amount)", "mean(amount)", "std(items)", "min(amount)", "max(items)")
AFTER: dict[str, Any] = {
    "amount": "$amount",
    "card": {**dict.fromkeys(KEYS, WINDOWS), "time_since_last": {}},
}
BEFORE: dict[str, Any] = {
    "amount": "$amount",
    "card": {
        **{key: {"windows": WINDOWS, "include_current": False} for key in KEYS},
        "time_since_last": {},
    },
}


@UNHURRIED
@given(
    rows=streams(),
    ring=st.sampled_from((2, 32)),
    later=st.sampled_from((0, *STEPS_MS, *(-late for late in LATE_MS), 400 * 86_400_000)),
)
def test_a_reading_is_what_an_event_of_that_instant_would_read(
    rows: list[Row], ring: int, later: int
) -> None:
    """Of the same stream, by a worker whose features leave the event itself out; late ones too."""
    at = max(row.at for row in rows) + later
    writer, asked = tables_of(spec_of(AFTER, ring)), tables_of(spec_of(BEFORE, ring))
    step(writer, rows)
    step(asked, rows)
    blobs = {id_: blob for entity, id_, blob in taken_from(writer) if entity == "card"}
    X, _ = step(asked, [Row(f"probe-{card}", at, card=card) for card in "ab"])
    standing = Standing(settings_of(AFTER, ring), spec_of(AFTER, ring))
    found = standing.read("card", [blobs.get(card) for card in "ab"], START_MS + at)
    assert found.tolist() == X[:, 1:].tolist()


KNOWN: dict[str, Any] = {
    "amount": "$amount",
    "card": {
        name: {"windows": ["5s", "1m", "1d"], "delay": "5s"} if kind.each == "windows" else {}
        for name, kind in LABEL_AGGREGATIONS.items()
    },
    "terminal": {"clean_run": {}},  # nothing of what happened
}
KNOWN_BEFORE: dict[str, Any] = {
    **KNOWN, "card": KNOWN["card"]
    | {"fraud_rate": {**KNOWN["card"]["fraud_rate"], "include_current": False}},
}  # fmt: skip


@UNHURRIED
@given(
    stream=labelled_streams(),
    ring=st.sampled_from((2, 32)),
    later=st.sampled_from((0, *STEPS_MS, *(-late for late in LATE_MS), 400 * 86_400_000)),
)
def test_a_reading_of_what_became_known_is_what_an_event_of_that_instant_would_read(
    stream: tuple[list[Row], list[Told]], ring: int, later: int
) -> None:
    """Every label aggregate, from what happened and what became known of a card, a terminal."""
    rows, told = stream
    at = max(row.at for row in rows) + later
    writer = Stream(tables_of(label_spec(KNOWN, ring)), rows, told)
    asked = Stream(tables_of(label_spec(KNOWN_BEFORE, ring)), rows, told)
    writer.step(len(rows))
    asked.step(len(rows))
    writer.flush()
    probes = [Row(f"probe-{card}", at, card=card, terminal=f"t{card}") for card in "ab"]
    probes.append(Row("probe-c", at, card="c", terminal=rows[0].terminal))
    X, _ = step(asked.tables, probes)
    standing = Standing(label_settings(KNOWN, ring), label_spec(KNOWN, ring))
    for entity, ids, places in (("card", "ab", [0, 1]), ("terminal", [rows[0].terminal], [2])):
        columns = [asked_name(entity, name) for name in standing.names(entity)]
        of_x = [label_spec(KNOWN_BEFORE, ring).names.index(name) for name in columns]
        happened, known = (
            [writer.store.get((part, id_)) for id_ in ids] for part in standing.parts(entity)
        )
        found = standing.read(entity, happened, START_MS + at, known)
        assert found.tolist() == X[places][:, of_x].tolist()


def asked_name(entity: str, name: str) -> str:
    """Return what a feature is called that leaves the event itself out."""
    return f"{name}_before" if name.startswith(f"{entity}_fraud_rate") else name


EACH: dict[str, Any] = {
    "windows": ["1m", "1d"], "ring": {}, "nothing": {}, "last": {"last": [2]},
    "half_life": {"half_life": ["1h"]}, "gap": {"gap": ["1h"]},
}  # fmt: skip
TYPED = {"decimal": "amount", "integer": "items", "boolean": "present", "category": "channel",
         "float": "score", "string": "terminal_id"}  # fmt: skip


@pytest.mark.parametrize("name", [n for n, kind in AGGREGATIONS.items() if not kind.compares])
def test_an_aggregation_that_does_not_compare_needs_nothing_of_the_event(name: str) -> None:
    """Two events of one instant, as different as can be, read the same before they are in."""
    kind = AGGREGATIONS[name]
    field = next((TYPED[t] for t in kind.types if t in TYPED), "")
    declared = f"{name}({', '.join([field] * kind.field_count)})" if kind.field_count else name
    spec = before_the_event(spec_of({"card": {declared: EACH[kind.each]}}, 4))
    read = []
    for probe in (
        Row("probe", 900_000, amount=1, items=1, present=False, channel=0, terminal="x"),
        Row("probe", 900_000, amount=9, items=7, present=True, channel=1, score=8.5, terminal="y"),
    ):
        tables = tables_of(spec)
        step(tables, [Row(f"e{i}", i * 100_000, amount=i, items=i % 3) for i in range(8)])
        read.append(step(tables, [probe])[0].tolist())
    assert read[0] == read[1]


def test_windows_slide_to_the_instant_and_stop_at_the_newest_event() -> None:
    """Two events a minute apart, read at, just after, and long after; and before, which is at."""
    tables = tables_of(spec_of({"card": {"count": ["1m", "1d"], "time_since_last": {}}}))
    step(tables, [Row("e1", 0), Row("e2", 60_000)])
    blob = taken_from(tables)[0][2]
    settings = settings_of({"card": {"count": ["1m", "1d"], "time_since_last": {}}})
    standing = Standing(settings, compile_features(settings))
    for at, expected in {
        60_000: [1.0, 2.0, 0.0],
        59_000: [1.0, 2.0, 0.0],
        119_999: [1.0, 2.0, 59.999],
        120_000: [0.0, 2.0, 60.0],
        86_460_000: [0.0, 0.0, 86_400.0],
        366 * 86_400_000: [0.0, 0.0, -1.0],
    }.items():
        assert standing.read("card", [blob], START_MS + at).tolist() == [expected], at


def test_an_entity_never_seen_reads_as_a_new_one_and_what_is_of_events_is_left_out() -> None:
    """Zeros, and -1 for the time since its last event."""
    standing = Standing(settings_of(AFTER), spec_of(AFTER))
    names = standing.names("card")
    assert len(names) == len(KEYS) * len(WINDOWS) + 1
    features = dict(zip(names, standing.read("card", [None], START_MS)[0].tolist(), strict=True))
    assert features.pop("card_time_since_last") == -1.0
    assert set(features.values()) == {0.0}
    assert list(standing.left_out("card")) == ["amount"]
    with pytest.raises(ConfigError, match="one of card, got terminal"):
        standing.names("terminal")


def test_a_question_sees_nothing_of_those_before_it() -> None:
    """Of more entities, of others, of a damaged blob: each answer is that of a new reader."""
    tables = tables_of(spec_of(AFTER, 2))
    # The first has tiles of hours in which others were silent, the last has none.
    cards = "a" * 20 + "abc" * 20 + "d"
    rows = [Row(f"e{i}", i * 900_000, card=card, amount=i) for i, card in enumerate(cards)]
    step(tables, rows)
    blobs = [blob for entity, _, blob in taken_from(tables) if entity == "card"]
    settings = settings_of(AFTER, 2)
    spec, at = compile_features(settings), START_MS + 81 * 900_000
    standing = Standing(settings, spec)
    damaged = blobs[0][:-1] + bytes([blobs[0][-1] ^ 1])
    for asked in (
        blobs,
        [None] * 3,
        blobs[:1],
        [None],
        [blobs[1], None],
        [*blobs * 200, None],
        [blobs[3], blobs[0]],
        blobs[2:],
    ):
        with pytest.raises(StateLostError):
            standing.read("card", [*asked, damaged], at)
        expected = [Standing(settings, spec).read("card", [blob], at)[0] for blob in asked[-3:]]
        assert (standing.read("card", asked, at)[-3:] == expected).all()


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(persistent=False) as started:
        yield started


def run_world(
    server: ValkeyServer | ValkeyCluster, partitions: int = 3, **changes: Any
) -> tuple[Settings, Any]:
    """Run a worker over a small world into the server; return its configuration and its log."""
    config = world_settings(**changes)
    log = new_log(partitions)
    fill(log, events(300))
    cluster = isinstance(server, ValkeyCluster)
    store = RedisStore(
        RedisSettings.model_construct(url=SecretStr(server.url), timeout=5_000, cluster=cluster)
    )
    drain(worker(log, store, config=config))
    store.close()
    return config, log


def last_rows(log: Any, partitions: int = 3) -> dict[str, dict[str, Any]]:
    """Return the row of the newest event of each card, where it was also the last to come."""
    found: dict[str, dict[str, Any]] = {}
    newest: dict[str, int] = {}
    for p in range(partitions):
        for row in journal(log, p):
            if row["outcome"] == "scored":
                found.pop(row["entity"], None)
                if row["time_ms"] >= newest.get(row["entity"], 0):
                    found[row["entity"]] = row
                    newest[row["entity"]] = row["time_ms"]
    return found


@pytest.mark.redis
def test_current_features_are_those_of_the_last_event_served(server: ValkeyServer) -> None:
    """At its own instant, from three partitions, in one question; and each alone."""
    config, log = run_world(server)
    client = redis.Redis.from_url(server.url)
    reader, spec = Reader(config, client), compile_features(config)
    rows = last_rows(log)
    assert len(rows) > 6
    columns = [spec.names.index(name) for name in reader.names("card")]
    for card, row in rows.items():
        served = dict(zip(reader.names("card"), [row["x"][c] for c in columns], strict=True))
        del served["card_time_since_last"]
        current = reader.read("card", card, row["time_ms"])
        assert current.pop("card_time_since_last") == 0.0
        assert current == served


@pytest.mark.redis
@pytest.mark.parametrize("partitions", [1, 3])
def test_what_became_known_is_read_beside_what_happened(
    server: ValkeyServer, partitions: int
) -> None:
    """One command; a delay longer than labels take makes the last event served comparable."""
    delayed = {"windows": ["1d"], "delay": "4h"}
    features = {"amount": "$amount", "card": {"count": ["1d"], "frauds": delayed,
                                              "genuine_count": delayed}}  # fmt: skip
    config, log = run_world(server, partitions, features=features)
    client = redis.Redis.from_url(server.url)
    reader, spec = Reader(config, client), compile_features(config)
    rows = last_rows(log, partitions)
    assert reader.left_out("card") == {"amount": "it is of an event, not of an entity"}
    columns = [spec.names.index(name) for name in reader.names("card")]
    reader.read("card", "c1")
    before = client.info("commandstats")["cmdstat_mget"]["calls"]
    found = {card: reader.read("card", card, row["time_ms"]) for card, row in rows.items()}
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == before + len(rows)
    assert [list(x.values()) for x in found.values()] == [
        [row["x"][c] for c in columns] for row in rows.values()
    ]
    assert any(x["card_frauds_1d_delay_4h"] for x in found.values())


@pytest.mark.redis
def test_a_hundred_entities_are_one_round_trip(server: ValkeyServer) -> None:
    """One command reaches the server; unknown ids are told apart, positions are the flush's."""
    config, log = run_world(server)
    client = redis.Redis.from_url(server.url)
    reader = Reader(config, client, clock_ms=lambda: START_MS)
    reader.read("card", "c1")
    before = client.info("commandstats")
    found = reader.look_up("card", [f"c{i}" for i in range(100)])
    after = client.info("commandstats")
    calls = {k: v["calls"] - before.get(k, {"calls": 0})["calls"] for k, v in after.items()}
    assert {k: n for k, n in calls.items() if n and k != "cmdstat_info"} == {"cmdstat_mget": 1}
    assert [i for i, reading in enumerate(found) if reading.stored] == list(range(12))
    assert found[4].partition == 4 % 3
    assert found[4].topic == "transactions"
    assert found[4].position == log.end("transactions", 4 % 3)
    shared = reader.look_up("terminal", ["t1"])[0]
    assert (shared.topic, shared.partition) == ("entity-updates", target_of("t1", 3))
    assert shared.position == log.end("entity-updates", target_of("t1", 3))
    assert found == reader.look_up("card", [f"c{i}" for i in range(100)], START_MS)
    assert [r.features for r in found] == reader.read_many("card", [f"c{i}" for i in range(100)])


@pytest.mark.redis
def test_a_worker_and_its_readers_in_a_cluster(
    redis_cluster: ValkeyCluster, tmp_path: Path
) -> None:
    """Four partitions, some on every server: what is read equals what is read of one server."""
    reader = Reader(run_world(redis_cluster, 4)[0], redis.RedisCluster.from_url(redis_cluster.url))
    with ValkeyServer(persistent=False) as server:
        config, _ = run_world(server, 4)
        alone = Reader(config, redis.Redis.from_url(server.url))
        for entity in ("card", "terminal"):
            ids = [f"{entity[0]}{i}" for i in range(20)]
            found = reader.look_up(entity, ids, START_MS)
            assert found == alone.look_up(entity, ids, START_MS)
            assert len({reading.partition for reading in found}) > 2
    assert all(redis.Redis(port=port).dbsize() > 5 for port in redis_cluster.ports)
    path = written(config, {"url": redis_cluster.url, "cluster": True}, tmp_path)
    said = run_command(["features", "card", "c4", "-c", str(path), "--at", str(START_MS), "--json"])
    assert json.loads(said)["features"] == reader.read("card", "c4", START_MS)


@pytest.mark.redis
def test_what_is_not_there_or_not_whole_is_refused(server: ValkeyServer) -> None:
    """An empty server, other features, a damaged blob, a client of texts, a server that is away."""
    client = redis.Redis.from_url(server.url)
    with pytest.raises(StateLostError, match="state of these features, got none"):
        Reader(world_settings(), client).read("card", "c1")
    config, _ = run_world(server)
    with pytest.raises(StateLostError, match="got none"):
        Reader(world_settings(features={"card": {"count": ["9d"]}}), client).read("card", "c1")
    (key,) = client.keys("fs:*:card:c1")
    blob = client.get(key)
    client.set(key, blob[:30] + bytes([blob[30] ^ 1]) + blob[31:])
    with pytest.raises(StateLostError, match="a wrong checksum") as caught:
        Reader(config, client).read("card", "c1")
    assert "c1" not in str(caught.value)
    assert Reader(config, client).read("card", "c2")
    with pytest.raises(ConfigError, match="decode_responses"):
        Reader(config, redis.Redis.from_url(server.url, decode_responses=True))
    server.kill()
    with pytest.raises(TransientError):
        Reader(config, client).read("card", "c2")


@pytest.mark.redis
@pytest.mark.parametrize("part", ["card", "card~labels"])
def test_an_entity_in_two_partitions_is_refused(server: ValkeyServer, part: str) -> None:
    """Its key is not the topic's: neither half is an answer, and the message names no id."""
    features = {"card": {"count": ["1d"], "frauds": {"windows": ["1d"], "delay": "4h"}}}
    config, _ = run_world(server, 3, features=features)
    client = redis.Redis.from_url(server.url)
    reader = Reader(config, client)
    reading = reader.look_up("card", ["c1", "c2"])[0]
    key = next(client.scan_iter(f"fs:*:{part}:c1"))
    other = key.replace(b".%d}" % reading.partition, b".%d}" % ((reading.partition + 1) % 3))
    assert other != key
    client.set(other, client.get(key))
    with pytest.raises(
        StateLostError, match=r"got parts in 2 partitions \(its key is not"
    ) as caught:
        reader.read_many("card", ["c2", "c1"])
    assert "c1" not in str(caught.value)
    assert reader.look_up("card", ["c2"])[0].stored
    client.delete(other)
    assert reader.look_up("card", ["c1"]) == [reading]


@pytest.mark.redis
def test_the_command_prints_the_features_of_an_entity(server: ValkeyServer, tmp_path: Path) -> None:
    """As a table, and as JSON that equals the library's answer."""
    config, log = run_world(server)
    path = written(config, {"url": server.url}, tmp_path)
    row = last_rows(log)["c4"]
    words = ["features", "card", "c4", "-c", str(path), "--at", str(row["time_ms"])]
    said = run_command([*words, "--json"])
    reader = Reader(config, redis.Redis.from_url(server.url))
    answer = json.loads(said)
    assert answer["features"] == reader.read("card", "c4", row["time_ms"])
    assert answer["stored"] is True
    assert answer["topic"] == "transactions"
    assert answer["left_out"] == {"amount": "it is of an event, not of an entity"}
    table = run_command(words)
    newest = max(one["time_ms"] for one in journal(log, answer["partition"]) if one["time_ms"])
    until = np.datetime_as_string(np.datetime64(newest, "ms")) + "Z"
    assert answer["until"] == until
    head = f"partition {answer['partition']} of transactions, what is before offset "
    assert table.startswith(f"{head}{answer['position']}: events until {until}\n")
    for name, value in answer["features"].items():
        assert f"{value:.10g}" in next(x for x in table.splitlines() if x.split()[:1] == [name])


@pytest.mark.redis
def test_of_a_shared_entity_the_command_tells_no_event_time(
    server: ValkeyServer, tmp_path: Path
) -> None:
    """Its state is a fold of rows of all partitions, none of which has their clock."""
    config, _ = run_world(server)
    path = written(config, {"url": server.url}, tmp_path)
    answer = json.loads(run_command(["features", "terminal", "t1", "-c", str(path), "--json"]))
    assert (answer["topic"], answer["until"]) == ("entity-updates", None)


def written(config: Settings, store: dict[str, Any], directory: Path) -> Path:
    """Return a file of a world's configuration with another store."""
    data = config.model_dump(mode="json", exclude_unset=True)
    data["labels"]["horizon"] = "30d"
    data["store"] = {"kind": "redis", **store}
    path = directory / "world.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run_command(words: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", *words],
        capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
