"""One-hot, crosses, hashes and learned quantiles."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.expression_rows import SCHEMA, events_of_values
from tests.features.streams import (
    UNHURRIED,
    Row,
    run,
    settings_of,
    spec_of,
    step,
    tables_of,
    taken_from,
)
from worker.errors import ConfigError
from worker.features.expressions import CATEGORIES, ExpressionError, parse_feature
from worker.features.quantiles import COUNT_MAX, Quantiles
from worker.features.spec import compile_features

NUMBERS = st.sampled_from((0.0, -0.0, 1.0, -1.0, 1.03, 1e-9, 1e300, -57.5, math.nan)) | st.floats(
    -1e6, 1e6
)


def test_classes_become_columns_and_what_has_none_is_zero_in_all() -> None:
    """In the order of the classes; the second part of a cross varies first."""
    spec = spec_of(
        {
            "b": "onehot(bucket($amount, 10, 50))",
            "x": "cross($channel, $present)",
            "h": "hashed($channel, $items, 4)",
            "n": "hour($time) >= 22",
        }
    )
    assert spec.names == (
        "b=<10", "b=10..50", "b=>=50", "x=web,false", "x=web,true", "x=pos,false", "x=pos,true",
        "h#0", "h#1", "h#2", "h#3", "n",
    )  # fmt: skip
    assert spec.features[0].words == "onehot(bucket($amount, 10, 50)) is <10"
    rows = [Row("a", amount=999, channel=1), Row("b", amount=1000, channel=2, present=False)]
    first, second = run(spec, rows)
    assert {name for name, value in first.items() if value and "#" not in name} == {
        "b=<10", "x=pos,true", "n",
    }  # fmt: skip
    assert {name for name, value in second.items() if value and "#" not in name} == {
        "b=10..50", "n",
    }  # fmt: skip
    assert sum(value for name, value in first.items() if "#" in name) == 1.0


def test_a_hash_depends_on_the_value_alone() -> None:
    """Pairs that would be one text when joined are apart; a missing part leaves no column."""
    feature = parse_feature("hashed($merchant, $buyer, 1024)", SCHEMA)
    rows = [{"merchant": "ab", "buyer": "c"}, {"merchant": "a", "buyer": "bc"}, {"buyer": "c"}]
    codes = feature.codes(events_of_values(rows))
    assert codes[0] != codes[1]
    assert codes[2] < 0
    assert feature.codes(events_of_values(rows[1:2])) == codes[1:2]
    # Recorded once: models that were trained rely on it.
    assert codes[:2].tolist() == [29, 339]


def test_hashes_spread_evenly() -> None:
    """No column of 16 gets far more than its share of 10,000 values."""
    feature = parse_feature("hashed($merchant, 16)", SCHEMA)
    rows = [{"merchant": f"m{i}"} for i in range(10_000)]
    counts = np.bincount(feature.codes(events_of_values(rows)), minlength=16)
    assert counts.min() > 500
    assert counts.max() < 750


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("onehot($merchant)", "a category, a boolean"),
        ("onehot($amount)", "a category, a boolean"),
        ("onehot()", "onehot(X)"),
        ("cross($channel)", "cross(X, Y)"),
        ("cross(bucket($f, 1, 2), quantile_bucket($f, 100)) + 1", "a function"),
        ("cross(quantile_bucket($f, 100), quantile_bucket($g, 100))", "at most 1024 pairs"),
        ("hashed($merchant, 1)", "a number of columns"),
        ("hashed($merchant, 2.5)", "a number of columns"),
        ("hashed($merchant, $f)", "a number of columns"),
        ("hashed($opened, 16)", "a text, a number"),
        ("hashed($merchant)", "hashed(X, N)"),
        ("log(hashed($merchant, 16))", "a function"),
        ("quantile_bucket($merchant, 10)", "quantile_bucket(number, N)"),
        ("quantile_bucket($f, 1)", "quantile_bucket(number, N)"),
        ("quantile_bucket($f)", "quantile_bucket(number, N)"),
        ("quantile_bucket(quantile_bucket($f, 2), 2)", "a function without memory"),
    ],
)
def test_a_wrong_category_is_an_error(text: str, expected: str) -> None:
    """With the way it is written."""
    with pytest.raises(ExpressionError) as caught:
        parse_feature(text, SCHEMA)
    assert caught.value.expected.startswith(expected)


def test_every_category_is_described() -> None:
    """By the docstring that the documentation is made of."""
    assert all(kind.__doc__ and kind.usage.startswith(name) for name, kind in CATEGORIES.items())


def bin_of(value: float) -> tuple[int, int, int]:
    """Return what sorts as the bins do, the slow way: sign, power of two, sixteenth of it."""
    mantissa, power = math.frexp(abs(value))
    if value == 0.0 or power <= -16:
        return (0, 0, 0)
    part = int((mantissa - 0.5) * 32)
    if power > 48:
        power, part = 48, 15
    return (1, power, part) if value > 0 else (-1, -power, -part)


@UNHURRIED
@given(values=st.lists(NUMBERS, max_size=60), parts=st.sampled_from((2, 10, 100)))
def test_quantile_buckets_equal_the_ranks_among_all_earlier_values(
    values: list[float], parts: int
) -> None:
    """Those of the value's own bin count by half; a missing value has none and teaches nothing."""
    found = Quantiles().update(np.array(values), np.zeros(len(values), np.bool_), parts)
    before: list[tuple[int, int, int]] = []
    for value, bucket in zip(values, found.tolist(), strict=True):
        if math.isnan(value):
            assert math.isnan(bucket)
            continue
        own = bin_of(value)
        twice = sum(2 * (one < own) + (one == own) for one in before)
        expected = twice * parts // (2 * len(before)) if before else parts // 2
        assert bucket == min(expected, parts - 1)
        before.append(own)


def test_old_values_fade() -> None:
    """Counts are halved at their bound, so a change of level is learned however long the past."""
    quantiles = Quantiles()
    for level in (1.0, 100.0, 100.0):
        quantiles.update(np.full(COUNT_MAX - 1, level), np.zeros(COUNT_MAX - 1, np.bool_), 2)
    counts = np.frombuffer(quantiles.to_tuple()[1], "<u4")
    assert counts.sum() < COUNT_MAX
    assert counts[1] > 2 * counts[0]


QUANTILES: dict[str, Any] = {
    "q": "quantile_bucket($amount, 10)",
    "top": "quantile_bucket($amount, 100) >= 90",
    "x": "cross(quantile_bucket($amount, 4), $channel)",
    "other": "quantile_bucket(log1p($amount) * $items, 5)",
}


@UNHURRIED
@given(
    amounts=st.lists(st.integers(-500, 5_000), min_size=1, max_size=40),
    cuts=st.lists(st.integers(1, 9), max_size=5),
)
def test_learned_buckets_do_not_depend_on_cuts_or_restarts(
    amounts: list[int], cuts: list[int]
) -> None:
    """Batches of any size, the state written and read between them, duplicates among them."""
    spec = spec_of(QUANTILES)
    rows = [Row(f"e{a % 7 if a < 0 else i}", amount=a, items=3) for i, a in enumerate(amounts)]
    whole, _ = step(tables_of(spec), rows)
    store: dict[tuple[str, str], bytes] = {}
    state: dict[str, Any] = {}
    parts = []
    while rows:
        size = cuts.pop() if cuts else len(rows)
        tables = tables_of(spec)
        tables.learned.restore(state)
        parts.append(step(tables, rows[:size], store)[0])
        store |= {(name, id_): blob for name, id_, blob in taken_from(tables)}
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(tables.learned.to_state()))
        rows = rows[size:]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_a_duplicate_teaches_no_quantile() -> None:
    """The last event lies above the only one before it, not below three that were told again."""
    again = [Row("a", amount=900) for _ in range(3)]
    rows = [Row("a", amount=100), *again, Row("b", amount=500)]
    found = run(spec_of({"q": "quantile_bucket($amount, 2)"}), rows)
    assert [row["q"] for row in found] == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_what_is_learned_is_state_and_its_parts_are_not() -> None:
    """Another number is another state; 10 or 20 buckets are read of the same one."""

    def kept(features: dict[str, Any]) -> str:
        return compile_features(settings_of({"a": "$amount", **features})).state_hash

    assert kept({"q": "quantile_bucket($amount, 10)"}) == kept(
        {"q": "quantile_bucket($amount, 20)", "r": "onehot(quantile_bucket($amount, 5))"}
    )
    hashes = {kept({}), kept({"q": "quantile_bucket($amount, 10)"})}
    assert len(hashes | {kept({"q": "quantile_bucket($items, 10)"})}) == 3
    assert kept({}) == kept({"night": "hour($time) < 6", "l": "log1p($amount)"})


def test_a_mistake_in_a_category_is_a_problem_of_the_configuration() -> None:
    """With the path of the feature and the column."""
    with pytest.raises(ConfigError) as caught:
        spec_of({"x": "cross($channel, $amuont)"})
    (problem,) = caught.value.problems
    assert problem.path == ("features", "x")
    assert problem.got == '"$amuont" at column 17'
    assert problem.hint == "did you mean $amount?"
