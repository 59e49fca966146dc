"""What a batch asks of the store: labels find the same events as if all had stayed in memory."""

from __future__ import annotations

import pytest

from tests.label_oracle import Event, Truth
from tests.label_worlds import Stream, World
from tests.worlds import settings

CONFIG = settings(
    labels={"horizon": "1h"},
    features={
        "amount": "$amount",
        "card": {"count": ["1h"], "frauds": ["1h"]},
        "terminal": {"count": ["1h"], "frauds": ["1h"]},
    },
    models={"fraud": {"preset": "logistic", "calibration": "none"}},
)
BEFORE: Stream = [
    Event("a", "c0", 1_000, 100, terminal="t0"),
    Event("b", "c1", 1_001, 200, terminal="t1"),
]
A_AGAIN = Event("a", "c0", 1_010, 100, terminal="t2")  # a duplicate
A_ELSEWHERE = Event("a", "c1", 1_011, 300, terminal="t3")  # scored: it takes the id
LAST = Event("z", "c2", 1_020, 400, terminal="t0")
BAD = Event("", "c0", 1_005, 100)


class Whole(World):
    """A world whose label features are those of its configuration."""

    def __init__(self) -> None:
        super().__init__(CONFIG, has_label_features=False)

    def begin(self) -> None:
        super().begin()
        self.asked: list[str] = []
        self.shard.tables = self.told._tables

    def load(self, keys: list[str]) -> list[bytes | None]:  # type: ignore[override]
        self.asked += keys
        return super().load(keys)


def fraud(name: str, y: int = 1) -> Truth:
    return Truth(name, y, 1_015)


@pytest.mark.parametrize(
    "batch",
    [
        [fraud("a"), A_ELSEWHERE, LAST],
        [A_ELSEWHERE, fraud("a"), LAST],
        [A_AGAIN, fraud("a"), LAST],
        [A_AGAIN, fraud("a")],
        [fraud("a", 0), A_AGAIN, fraud("a"), LAST],
        [A_AGAIN, fraud("a"), A_ELSEWHERE, fraud("a", 0), LAST],
        [A_ELSEWHERE, A_AGAIN, fraud("a"), LAST],
        [BAD, fraud("a"), A_ELSEWHERE, LAST],
        [BAD, A_ELSEWHERE, fraud("a"), LAST],
        [A_ELSEWHERE, fraud("b"), fraud("a"), LAST],
    ],
)
def test_a_label_finds_the_same_event_whatever_memory_holds(batch: Stream) -> None:
    """An id that comes again, before or behind its label: as duplicate, or of another card."""
    whole, anew = Whole(), Whole()
    for world in (whole, anew):
        world.take(BEFORE)
        world.flush()
        if world is anew:
            world.begin()
        world.take(batch)
        world.flush()
    assert anew.asked
    assert not any(key.startswith("pend~") for key in whole.asked)
    assert (anew.examples, anew.fates, anew.scores) == (whole.examples, whole.fates, whole.scores)
    assert anew.store == whole.store


def test_the_store_is_not_asked_for_events_of_the_batch() -> None:
    """A label that follows its event asks for nothing; one that comes before it asks once."""
    world = Whole()
    world.take([*BEFORE, fraud("a"), fraud("z"), LAST, fraud("z")])
    assert [key for key in world.asked if key.startswith("pend~")] == ["pend~x:z"]


def test_a_new_store_is_not_asked() -> None:
    """What memory lacks is nowhere."""
    world = Whole()
    batch = world.batch_of([*BEFORE, fraud("a"), fraud("z"), A_AGAIN, fraud("a", 0)])
    assert list(world.shard.supply(batch, is_new=True)) == []
    assert len(world.shard.process(batch, 0).scored) == len(BEFORE)
