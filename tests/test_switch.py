"""Changed features on a real broker and store, by the commands: backfill, switch, dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.test_end_to_end import PARTITIONS, World, certain, lines, stop

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(600)]


@pytest.fixture
def world(tmp_path: Path, kafka: str, redis_url: str) -> Iterator[World]:
    made = World(tmp_path, kafka, redis_url)
    yield made
    made.close()


def test_a_backfill_beside_a_running_worker_makes_the_switch_one_restart(world: World) -> None:
    """x after the switch is that of a run with the new file; little is folded at the restart.

    The training set from the topics then has the rows of the new features only.
    """
    old = world.config.read_text()
    new = old.replace("mean(amount): [7d]", "mean(amount): [7d, 3d]")
    assert new != old
    total, half = lines(world.events), lines(world.events) // 2
    process = world.start()
    world.play("--rate", 1_500, "--limit", half)
    world.wait_for_rows(half // 2)
    changed = world.directory / "new.yaml"
    changed.write_text(new)
    said = world.riverwatch("backfill", "-c", changed)
    folded = sum(int(x.split()[2]) for x in said.splitlines() if x.startswith("partition"))
    assert folded >= half // 2
    world.wait_for_rows(half)
    assert stop(process) == 0
    assert "state_lost" not in world.log()

    world.config.write_text(new)
    switched = world.start(slot="1")
    world.wait_for_live(1, slot="1")
    whole = world.events
    world.events = world.directory / "rest.jsonl"
    world.events.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[half:]))
    world.play()
    rows = world.wait_for_rows(total)
    assert stop(switched) == 0
    acquired = [json.loads(x) for x in world.log("1").splitlines() if "shard_acquired" in x]
    assert sum(a["folded"] for a in acquired[:PARTITIONS]) == half - folded

    world.riverwatch("replay", "-c", world.config, "--events", whole,
                     "--labels", world.labels, "--out", world.directory / "out")  # fmt: skip
    with pa.ipc.open_file(world.directory / "out" / "journal" / "events-0.arrow") as file:
        replayed = certain(file.read_all().to_pylist())
    width = max(len(row["x"]) for row in rows if row["x"])
    served = certain([row for row in rows if row["x"] and len(row["x"]) == width])
    assert len(served) > half * 0.9
    assert served == {event_id: replayed[event_id] for event_id in served}

    target = world.directory / "train.parquet"
    counts = json.loads(world.riverwatch("dataset", "-c", world.config, "--out", target))
    assert counts["other_features"] > total // 3
    table = pq.read_table(target)
    assert table.num_rows == sum(
        row["outcome"] == "scored" and len(row["x"]) == width for row in rows
    )
    assert "card_mean_amount_3d" in table.column_names
