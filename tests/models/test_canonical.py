"""The hash of a state: equal for equal histories, different for any difference that matters."""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter, defaultdict, deque
from functools import partial
from typing import Any

import numpy as np
import pytest
from river import forest, stats, tree

from worker.models.canonical import state_hash


class Thing:
    def __init__(self, value: Any) -> None:
        self.value = value


DIFFERENT = [
    0,
    0.0,
    -0.0,
    1,
    1.0,
    True,
    None,
    "1",
    b"1",
    float("nan"),
    float("inf"),
    (),
    [],
    {},
    (1,),
    [1],
    [[1], []],
    [[], [1]],
    {1: 2},
    {2: 1},
    {1: 2, 3: 4},
    {3: 4, 1: 2},
    {1, 2},
    deque([1]),
    Counter("ab"),
    defaultdict(float, a=1.0),
    np.zeros(2),
    np.zeros((2, 1)),
    np.zeros(2, np.float32),
    np.float64(1.5),
    Thing(1),
    Thing([1]),
    random.Random(1),
    random.Random(2),
    np.random.RandomState(1),
    partial(max, 1),
    max,
    Thing,
]


def test_different_states_have_different_hashes() -> None:
    """No two of many values that differ in kind, bits, order or nesting share a hash."""
    assert len({state_hash(value) for value in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("value", DIFFERENT, ids=lambda value: type(value).__name__)
def test_a_copy_has_the_hash_of_its_original(value: Any) -> None:
    """Neither a deep copy nor the way through a pickle changes it."""
    assert state_hash(copy.deepcopy(value)) == state_hash(value)
    assert state_hash(pickle.loads(pickle.dumps(value))) == state_hash(value)


def test_sharing_is_part_of_the_state() -> None:
    """Two names for one list differ from two equal lists: an update would tell them apart."""
    one: list[int] = [1]
    assert state_hash([one, one]) != state_hash([[1], [1]])


def test_a_cycle_ends() -> None:
    """An object that holds itself has a hash."""
    thing = Thing(None)
    thing.value = thing
    assert state_hash(thing) == state_hash(copy.deepcopy(thing))


def test_looking_at_a_default_changes_nothing() -> None:
    """Entries equal to the default count as absent, for objects too."""
    seen: dict[str, Any] = defaultdict(stats.Min)
    _ = seen["a"]
    assert state_hash(seen) == state_hash(defaultdict(stats.Min))
    seen["a"].update(1.0)
    assert state_hash(seen) != state_hash(defaultdict(stats.Min))


@pytest.mark.parametrize("make", [tree.HoeffdingTreeClassifier, partial(forest.ARFClassifier, 3)])
def test_replicas_of_a_river_model_agree(make: Any) -> None:
    """Two models that learned the same have one hash; one more example gives another."""
    rng = random.Random(1)
    rows = [({"a": rng.random(), "b": rng.random()}, rng.random() < 0.4) for _ in range(300)]
    first, second = (_trained(make, rows) for _ in range(2))
    assert state_hash(first) == state_hash(second)
    second.learn_one(*rows[0])
    assert state_hash(first) != state_hash(second)


def _trained(make: Any, rows: list[tuple[dict[str, float], bool]]) -> Any:
    model = make()
    if "seed" in model._get_params():
        model = model.clone({"seed": 1})
    for x, y in rows:
        model.learn_one(x, y)
    return model
