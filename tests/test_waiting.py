"""Events that wait, as bytes: what comes back is what went in, or is known to be of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.contracts.records import MISSING, Served, unserved
from worker.waiting import (
    UNKNOWN,
    Layout,
    Scored,
    Truth,
    label_updates,
    truths_of,
)
from worker.waiting_codec import WaitingCodec

UNHURRIED = settings(deadline=None)
"""The first example may wait for the kernel to be compiled."""
LAYOUT = Layout(
    "0123456789abcdef", 2, ("m", "n"), ("card", "terminal"), ("amount",), ("score", "raw_n")
)


def served_of(numbers: np.ndarray) -> Served:
    """Return rows made of such numbers."""
    served = unserved(len(numbers), numbers.shape[1] - 3)
    served["entity"] = np.arange(len(numbers), dtype=np.uint64) << np.uint64(62)
    served["alert"] = np.arange(len(numbers)) % 2
    served["score"], served["threshold"] = numbers[:, 0], numbers[:, 1]
    served["scores"] = numbers[:, 3:]
    return served


def part_of(ids: list[str], numbers: list[float] | None = None, layout: Layout = LAYOUT) -> Scored:
    n, f, k = len(ids), layout.features, len(layout.models)
    fill = numbers or [0.1, 3.0, -0.0, 1e300, 2.5]
    matrix = np.resize(np.array(fill), (n, f + k + 1))
    return Scored(
        np.arange(n), ids, np.arange(n, dtype=np.uint64) + np.uint64(2**63), np.arange(n),
        {name: [f"{name} {i}é" for i in ids] for name in layout.entities},
        np.arange(n * len(layout.fields)).reshape(n, len(layout.fields)) - 5,
        matrix[:, :f], matrix[:, -1], matrix[:, f : f + k], matrix[:, f : f + k],
        served_of(matrix[:, : k + 3]),
    )  # fmt: skip


def packed(
    part: Scored, layout: Layout = LAYOUT, known: dict[int, Truth] | None = None
) -> list[bytes]:
    n = len(part)
    truths = truths_of([(known or {}).get(i, UNKNOWN) for i in range(n)])
    return WaitingCodec(layout).pack(part, np.arange(n) + 7, np.arange(n) + 100, truths)


truths = st.builds(Truth, st.integers(0, 1), st.floats(0, 1e6), st.floats(0, 1e6))


@UNHURRIED
@given(
    st.lists(st.tuples(st.text(max_size=20), st.lists(truths, max_size=3)), max_size=5),
    st.lists(st.floats(width=64) | st.floats(width=32) | st.integers(0, 9).map(float), min_size=1),
)
def test_everything_comes_back_bit_for_bit(
    told: list[tuple[str, list[Truth]]], numbers: list[float]
) -> None:
    """Any float, any id; narrow and wide ones side by side; the last truth, known when or after."""
    ids = [one for one, _ in told]
    part = part_of(ids, numbers)
    values = packed(part, known={i: known[0] for i, (_, known) in enumerate(told) if known})
    codec = WaitingCodec(LAYOUT)
    for i, (_, known) in enumerate(told):
        for truth in known[1:]:
            values[i] = codec.with_truth(values[i], truth)
    last = [known[-1] if known else UNKNOWN for _, known in told]
    assert [codec.truth(value) for value in values] == last
    assert codec.truths(values).tobytes() == truths_of(last).tobytes()
    again = codec.unpack(values)
    places = [(i, i + 7, i + 100) for i in range(len(ids))]
    assert (
        [codec.place(v) for v in values] == [*map(tuple, codec.places(values).tolist())] == places
    )
    for name in ("X", "raw", "served", "id_hash", "time_ms", "fields"):
        assert getattr(again, name).tobytes() == np.ascontiguousarray(getattr(part, name)).tobytes()
    assert again.entity_ids == part.entity_ids
    assert again.same_features.all()


def test_an_x_of_other_features_is_known_as_such() -> None:
    """It is zero and does not teach; what else was recorded is there."""
    old = replace(LAYOUT, spec_hash="fedcba9876543210", features=9)
    part = part_of(["a", "b"], layout=old)
    values = [*packed(part, old), *packed(part_of(["c"]))]
    codec = WaitingCodec(LAYOUT)
    again = codec.unpack(values)
    assert again.same_features.tolist() == [False, False, True]
    assert [codec.has_same_features(value) for value in values] == [False, False, True]
    assert not again.X[:2].any()
    assert np.array_equal(again.raw[:2], part.raw)
    assert again.entity_ids["card"] == ["card aé", "card bé", "card cé"]


def test_scores_of_other_models_are_unknown() -> None:
    """As many models with other names are others; x stays as it is."""
    values = packed(part_of(["a"]), replace(LAYOUT, models=("m", "o")))
    again = WaitingCodec(LAYOUT).unpack(values)
    assert np.isnan(again.raw).all()
    assert np.isnan(again.served["scores"]).all()
    assert np.array_equal(again.score, part_of(["a"]).served["score"])
    assert again.same_features.all()
    assert np.array_equal(again.X, part_of(["a"]).X)


def test_updates_have_recorded_values_in_units() -> None:
    """Fields as they are, scores in 1e-6; one that is unknown is missing."""
    part = part_of(["a", "b"])
    part.served["score"] = [0.25, np.nan]
    part.raw[:] = [[0.0, 0.1234567], [0.0, 1.0]]
    waiting = WaitingCodec(LAYOUT).unpack(packed(part))
    one, truths = np.ones(2, np.int64), truths_of([Truth(1, 1.0, 1.0)] * 2)
    updates = label_updates(LAYOUT, waiting, ["a", "b"], one, truths, truths)
    assert updates.values["amount"].tolist() == [-5, -4]
    assert updates.values["score"].tolist() == [250_000, MISSING]
    assert updates.values["raw_n"].tolist() == [123_457, 1_000_000]


def test_small_numbers_take_half_the_bytes() -> None:
    """90 features that a 32-bit float holds: 4 bytes each, and less than 100 around them."""
    layout = Layout("0123456789abcdef", 90, ("m",))
    (value,) = packed(part_of(["a"], [3.0, 17.0, -1.0], layout), layout)
    assert 4 * 91 < len(value) < 4 * 91 + 100
