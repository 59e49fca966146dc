"""Features of the event alone."""

from __future__ import annotations

from tests.features.streams import Row, run, spec_of


def test_own_fields_are_in_their_own_units() -> None:
    """A decimal is the double nearest to it, a boolean 0 or 1, a float itself."""
    spec = spec_of({"a": "$amount", "n": "$items", "p": "$present", "s": "$score"})
    found = run(spec, [Row("e", amount=-1999, items=7, present=True, score=0.25)])
    assert found == [{"a": -19.99, "n": 7.0, "p": 1.0, "s": 0.25}]


def test_a_category_is_a_column_per_value_and_an_unknown_one_is_none_of_them() -> None:
    """The decoder gives an unknown value the number after the last."""
    spec = spec_of({"channel": "$channel"})
    rows = [Row(f"e{i}", channel=i) for i in range(3)]
    assert run(spec, rows) == [
        {"channel=web": 1.0, "channel=pos": 0.0},
        {"channel=web": 0.0, "channel=pos": 1.0},
        {"channel=web": 0.0, "channel=pos": 0.0},
    ]


def test_a_duplicate_has_a_row_of_zeros() -> None:
    """Own fields and calendar included."""
    spec = spec_of({"a": "$amount", "w": "weekday($time)"})
    found = run(spec, [Row("e", amount=100), Row("e", amount=100)])
    assert found[1] == {"a": 0.0, "w": 0.0}
