"""Short faults on one real broker and store; all of them: ``make chaos``."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.chaos.__main__ import Row, finish
from tests.chaos.faults import kill_at, zombie
from tests.chaos.world import Limits, World
from tests.services.valkey import ValkeyServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, kafka: str, store: ValkeyServer) -> Iterator[World]:
    made = World(tmp_path, kafka, store.url, "chaos", limits=Limits(2_000, 10_000))
    yield made
    made.close()
    with warnings.catch_warnings():
        # kafka-python does not close the socket of a connection that is given up half made.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_each_record_is_there_once_and_right_after_kills_a_zombie_and_an_empty_store(
    world: World, store: ValkeyServer
) -> None:
    """Two workers over one stream: what a reader finds is what the oracle computes."""
    world.begin()
    for point in ("processed", "offsets_sent", "committed"):
        kill_at(point, world)
    zombie(world)
    with Redis.from_url(store.url) as client:
        client.flushall()
    world.mark()
    row = Row("all")
    finish(world, row)
    assert row.good, row
    assert row.records > 1_000
    assert world.exits_s
