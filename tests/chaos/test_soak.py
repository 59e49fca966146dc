"""A series that grows is told from one that does not."""

from __future__ import annotations

import pytest

from tests.chaos.soak import Sample, trends

_MINUTE = range(60)


def _flat(second: int) -> Sample:
    wobble = second % 5
    return Sample(float(second), 300.0 + wobble, 50 + wobble, 10 * wobble, 20.0 + wobble / 10)


def test_a_series_that_wobbles_is_flat() -> None:
    """All four of them."""
    assert all(one.is_flat for one in trends([_flat(second) for second in _MINUTE]))


def test_growth_within_the_warm_up_does_not_count() -> None:
    """Only what comes after a third of the time is judged."""
    samples = [Sample(float(s), min(s, 20) * 15.0, 50, 0, 20.0) for s in _MINUTE]
    assert all(one.is_flat for one in trends(samples))


@pytest.mark.parametrize("name", ["rss_mb", "descriptors", "waiting", "store_mb"])
def test_a_series_that_grows_is_not_flat(name: str) -> None:
    """The others still are."""
    samples = []
    for second in _MINUTE:
        values = {n: getattr(_flat(second), n) for n in Sample.__slots__}
        samples.append(Sample(**{**values, name: values[name] * (1 + second / 100) + 10 * second}))
    assert [one.name for one in trends(samples) if not one.is_flat] == [name]
