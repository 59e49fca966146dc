"""The quantile sketch: ranks near a sort over the window, whatever the distribution and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import StateLostError
from worker.models.sketch import BLOCK, EVIDENCE, FIRST, QuantileSketch

LEVELS = (0.5, 0.9, 0.99, 0.999)


def sketch_of(window: int) -> QuantileSketch:
    return QuantileSketch(window, LEVELS)


DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: rng.exponential(size=n) ** 2,
    "bounded": lambda rng, n: 1.0 - 1e-3 * rng.random(n),
    "heavy": lambda rng, n: rng.standard_t(3, size=n),
    "tiny": lambda rng, n: 1e-12 * rng.normal(size=n),
}
SHARES = (0.01, 0.1, 0.5, 0.9, 0.99, 0.995, 0.999)


@pytest.mark.parametrize("name", DRAWS)
def test_ranks_are_those_of_the_distribution(name: str) -> None:
    """The share of new values above each rank is what the rank says, up to one in a thousand."""
    rng = np.random.default_rng(1)
    sketch, ranks = sketch_of(10_000), []
    for _ in range(300):
        values = DRAWS[name](rng, 500)
        ranks.append(sketch.ranks(values))
        sketch.add(values)
    late = np.concatenate(ranks[40:])
    for share in SHARES:
        assert math.isclose((late >= share).mean(), 1 - share, rel_tol=0.15), share


def test_a_rank_is_the_share_below_while_few_values_came() -> None:
    """With 1,000 values each is kept: ranks below the tail equal a count over a sorted list."""
    values = np.random.default_rng(2).normal(size=4 * BLOCK)
    sketch = sketch_of(10_000)
    sketch.add(values)
    queries = np.linspace(-2, 1, 50)
    counted = np.array([(values < q).mean() for q in queries])
    assert np.abs(sketch.ranks(queries) - counted).max() < 0.03


@given(st.lists(st.integers(1, 700), min_size=1, max_size=9), st.integers(0, 2**32 - 1))
def test_batches_and_restarts_do_not_matter(sizes: list[int], seed: int) -> None:
    """Any split, with the state saved and restored in between, gives the same state and ranks."""
    values = np.random.default_rng(seed).normal(size=sum(sizes)).round(2)
    whole, parts, start = sketch_of(1_000), sketch_of(1_000), 0
    whole.add(values)
    for size in sizes:
        parts = QuantileSketch.from_bytes(parts.to_bytes())
        parts.add(values[start : start + size])
        start += size
    assert parts.to_bytes() == whole.to_bytes()
    assert np.array_equal(parts.ranks(values), whole.ranks(values))
    assert parts.threshold(1) == whole.threshold(1)


def test_equal_values_do_not_lie_below_themselves() -> None:
    """A constant has rank 0, however often it came; what is above it has the largest."""
    sketch = sketch_of(1_000)
    sketch.add(np.full(5_000, 0.25))
    assert sketch.ranks(np.array([0.2, 0.25])).tolist() == [0.0, 0.0]
    assert sketch.ranks(np.array([0.3]))[0] > 0.999
    assert sketch.threshold(2) == 0.25


def test_a_heavy_top_value_is_not_called_rare() -> None:
    """Where 5 % of all values are the largest one, nothing reaches 0.99: the feedback may take it
    for three times rarer at most.
    """
    values = np.random.default_rng(3).random(20_000)
    values[::20] = 1.0
    sketch = sketch_of(10_000)
    sketch.add(values)
    assert 0.94 < sketch.ranks(np.array([1.0]))[0] < 1 - 0.05 / 3 + 0.002


@pytest.mark.parametrize("count", [FIRST, 8 * BLOCK])
def test_nothing_is_called_rarer_than_the_evidence(count: int) -> None:
    """Until the window is full even the largest value has at least five in what was seen above."""
    sketch = sketch_of(10_000)
    sketch.add(np.arange(1.0, count + 1.0))
    assert sketch.ranks(np.array([1e9]))[0] == 1 - EVIDENCE / count
    told = [share <= 1 - EVIDENCE / count for share in LEVELS]
    assert [sketch.threshold(k) < math.inf for k in range(4)] == told


def test_nothing_is_told_before_1024_values() -> None:
    """All ranks are 0 and all quantiles infinite."""
    sketch = sketch_of(10_000)
    sketch.add(np.arange(1.0, FIRST))
    assert (sketch.ranks(np.array([1e9]))[0], sketch.threshold(0)) == (0.0, math.inf)


def test_thresholds_and_ranks_are_inverse() -> None:
    """The rank of a level's value is its share, within the body and within the tail."""
    sketch = sketch_of(10_000)
    sketch.add(np.random.default_rng(4).normal(size=40_000))
    for k, share in enumerate(LEVELS):
        rank = sketch.ranks(np.array([sketch.threshold(k)]))[0]
        assert math.isclose(rank, share, abs_tol=0.1 * (1 - share)), share


def test_zeros_before_anything_else_tell_nothing() -> None:
    """A model that says nothing yet does not make its first words rare; later zeros count."""
    late, plain = sketch_of(10_000), sketch_of(10_000)
    values = np.concatenate([np.random.default_rng(9).random(2_000), np.zeros(500)])
    late.add(np.concatenate([np.zeros(3_000), values]))
    plain.add(values)
    assert late.to_bytes() == plain.to_bytes()


def test_old_values_fade() -> None:
    """After five windows of another level nothing is left of the first."""
    sketch = sketch_of(1_024)
    sketch.add(np.random.default_rng(5).normal(size=4_096))
    sketch.add(np.random.default_rng(6).normal(size=8_192) - 100.0)
    assert sketch.threshold(2) < -90.0


def test_a_level_is_held_while_values_run_away() -> None:
    """Where the window alone lags, and three times too many values would exceed it, the feedback
    holds the share up to 0.99.
    """
    n = 192_000
    values = np.random.default_rng(8).normal(size=n) + np.linspace(0.0, 12.0, n)
    sketch, above = sketch_of(10_000), np.zeros(4)
    for block in values.reshape(-1, BLOCK // 2 * 25):
        for part in block.reshape(-1, BLOCK // 2):
            above += [(part > sketch.threshold(k)).sum() for k in range(4)]
            sketch.add(part)
    assert np.allclose(above[:3] / n, 1 - np.array(LEVELS[:3]), rtol=0.15)


def test_the_state_is_bounded() -> None:
    """A million values with endless variety take no more room than a few thousand."""
    sketch = sketch_of(1_000_000)
    sketch.add(np.random.default_rng(7).standard_cauchy(1_000_000))
    assert len(sketch.to_bytes()) < 12_000


@pytest.mark.parametrize("harm", [slice(0, -1), slice(4, None), slice(0, 0)])
def test_damaged_bytes_are_refused(harm: slice) -> None:
    """A state that was cut is never taken for another one."""
    sketch = sketch_of(1_000)
    sketch.add(np.arange(600.0))
    with pytest.raises(StateLostError):
        QuantileSketch.from_bytes(sketch.to_bytes()[harm])
