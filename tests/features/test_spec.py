"""The grammar of features: names, words, hash, and every mistake at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.streams import FIELDS, settings_of, spec_of
from worker.contracts.settings import Settings
from worker.errors import ConfigError, Problem
from worker.features.spec import Window, compile_features

DAY_MS = 86_400_000


def problems_of(features: dict[str, Any], fields: dict[str, Any] | None = None) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        compile_features(settings_of(features, fields=fields))
    return caught.value.problems


def test_features_are_named_in_the_order_of_the_file() -> None:
    """Own fields, calendar, one column per category value, and windows in the order written."""
    spec = spec_of(
        {
            "amount": "$amount",
            "hour": "hour($time)",
            "channel": "$channel",
            "terminal": {"count": {"windows": ["1d", "7d"], "delay": "7d"}},
            "card": {
                "count": ["7d", "1d"],
                "mean(amount)": {"windows": ["24h"], "include_current": False},
                "time_since_last": {},
            },
        }
    )
    assert spec.names == (
        "amount", "hour", "channel=web", "channel=pos", "terminal_count_1d_delay_7d",
        "terminal_count_7d_delay_7d", "card_count_7d", "card_count_1d",
        "card_mean_amount_1d_before", "card_time_since_last",
    )  # fmt: skip


def test_features_have_words() -> None:
    """What a reason says about them."""
    spec = spec_of(
        {
            "channel": "$channel",
            "card": {"count": ["1h"], "mean(amount)": {"windows": ["10m"], "delay": "1d"}},
        }
    )
    assert [feature.words for feature in spec.features][1:] == [
        "channel is pos",
        "events of this card in 1 h",
        "mean amount of this card over 10 min, which ended 1 d ago",
    ]


def test_the_usual_value_of_a_field_is_the_longest_undelayed_mean_of_the_primary_entity() -> None:
    """It is a column of X; features that are no own field have none."""
    spec = spec_of(
        {
            "amount": "$amount",
            "items": "$items",
            "terminal": {"mean(amount)": {"windows": ["90d"], "include_current": False}},
            "card": {
                "mean(amount)": {"windows": ["1d", "7d"], "include_current": False},
                "max(amount)": ["30d"],
            },
        }
    )
    column = spec.names.index("card_mean_amount_7d_before")
    assert [feature.typical for feature in spec.features] == [column, *[None] * 5]
    assert spec.features[0].typical_count is None


BEFORE = {"windows": ["1d"], "include_current": False}
DELAYED = {"windows": ["30d"], "delay": "7d"}
USUAL = {
    "the event is taken out of the mean by the count of its window": (
        {"card": {"mean(amount)": ["1d", "7d"], "count": ["1d", "7d", "30d"]}},
        "card_mean_amount_7d", "card_count_7d"),
    "the longest window that has its count": (
        {"card": {"mean(amount)": ["1d", "7d"], "count": ["1d"]}},
        "card_mean_amount_1d", "card_count_1d"),
    "a mean that leaves the event out needs no count, and goes before longer ones": (
        {"card": {"mean(amount)": [{"windows": ["7d"]}, BEFORE], "count": ["7d"]}},
        "card_mean_amount_1d_before", None),
    "a count that leaves the event out, is delayed, conditional or another's is none": (
        {"card": {"mean(amount)": ["1d"], "count": [BEFORE, {"windows": ["1d"], "delay": "1d"},
                  {"windows": ["1d"], "where": "$amount > 5"}]}, "terminal": {"count": ["1d"]}},
        None, None),
    "a delayed mean ended before the event": (
        {"card": {"mean(amount)": [{"windows": ["1d"]}, DELAYED], "count": ["7d"]}},
        "card_mean_amount_30d_delay_7d", None),
    "a mean that has the event in it, and no way to take it out, is not what was usual": (
        {"card": {"mean(amount)": ["7d"], "sum(amount)": ["7d"]}}, None, None),
    "a count is not how many values a field has that may be missing": (
        {"amount": "$items", "card": {"mean(items)": ["7d"], "count": ["7d"]}}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("case", USUAL)
def test_the_usual_value_is_what_was_known_before_the_event(case: str) -> None:
    """The event itself is no part of what it is compared with."""
    declared, mean, count = USUAL[case]
    spec = spec_of({"amount": "$amount", **declared})
    column = {name: i for i, name in enumerate(spec.names)} | {None: None}
    own = spec.features[0]
    assert (own.typical, own.typical_count) == (column[mean], column[count])


def test_what_is_usual_is_no_part_of_what_x_means() -> None:
    """Reasons may be told in another way without a state to rebuild or models to begin anew."""
    spec = spec_of({"amount": "$amount", "card": {"mean(amount)": ["7d"], "count": ["7d"]}})
    assert spec.spec_hash.startswith("f552b32e6c9ea610")


def test_all_mistakes_are_reported_at_once() -> None:
    """Each with its path from the root of the file, what it should be, what it is, and a hint."""
    found = problems_of(
        {
            "amount": "$amuont",
            "who": "$card_id",
            "since": "$opened",
            "when": "$time",
            "nigth": "is_nigth($time)",
            "hour": "hour($amount)",
            "power": "__import__('os')",
            "crad": {"count": ["1d"]},
            "number": 7,
            "card": {
                "conut": ["1d"],
                "count(amount)": ["1d"],
                "mean": ["1d"],
                "mean(amuont)": ["1d"],
                "sum(score)": ["1d"],
                "sum(channel)": ["1d"],
                "mean(amount)": {"windows": ["1d", "7 dayz", "1d"], "dealy": "1d"},
                "max(amount)": {"windows": [], "delay": 7, "include_current": "no"},
                "time_since_last": ["1d"],
                "min(amount)": {"windows": ["1ms", "9999d"]},
                "count": None,
            },
            "terminal": ["count"],
        }
    )
    card = ("features", "card")
    assert [(p.path, p.got, p.hint) for p in found] == [
        (("features", "amount"), '"$amuont" at column 1', "did you mean $amount?"),
        (
            ("features", "who"),
            "$card_id, a text",
            "as numbers: hashed($card_id, 16), or $card_id == ... for one value",
        ),
        (
            ("features", "since"),
            "$opened, a time",
            "for calls such as hour($opened), or a difference such as $time - $opened",
        ),
        (
            ("features", "when"),
            "$time, a time",
            "for calls such as hour($time), or a difference such as $time - $time",
        ),
        (("features", "nigth"), '"is_nigth" at column 1', "did you mean is_night?"),
        (("features", "hour"), "hour(number) at column 1", ""),
        (("features", "power"), '"__import__" at column 1', ""),
        (("features", "crad"), "'crad'", "did you mean card?"),
        (("features", "number"), "7", ""),
        ((*card, "conut"), "'conut'", "did you mean count?"),
        ((*card, "count(amount)"), "'count(amount)'", ""),
        ((*card, "mean"), "'mean'", ""),
        ((*card, "mean(amuont)"), "'amuont'", "did you mean amount?"),
        ((*card, "sum(score)"), "'score of type float'", "declare it as decimal with a resolution"),
        ((*card, "sum(channel)"), "'channel of type category'", ""),
        ((*card, "mean(amount)", "dealy"), "'dealy'", "did you mean delay?"),
        ((*card, "mean(amount)", "windows", 1), "'7 dayz'", ""),
        ((*card, "mean(amount)", "windows", 2), "'1d'", ""),
        ((*card, "max(amount)", "delay"), "7", ""),
        ((*card, "max(amount)", "include_current"), "'no'", ""),
        ((*card, "max(amount)", "windows"), "[]", ""),
        ((*card, "time_since_last"), "['1d']", ""),
        ((*card, "min(amount)", "windows", 0), "'1ms'", ""),
        ((*card, "min(amount)", "windows", 1), "'9999d'", ""),
        ((*card, "count"), "nothing", ""),
        (("features", "terminal"), "['count']", ""),
    ]
    by_path = {p.path: p.expected for p in found}
    assert by_path[*card, "mean(amount)", "windows", 1] == "a duration such as 10m or 7d"


def test_two_features_of_one_name_are_a_mistake() -> None:
    """An own field may not take the name that an aggregation gets."""
    found = problems_of({"card_count_1d": "$amount", "card": {"count": ["1d"]}})
    assert [(p.path, p.hint) for p in found] == [
        (("features", "card"), "card_count_1d is declared twice")
    ]


def test_no_features_are_a_mistake() -> None:
    """An empty section cannot feed a model."""
    assert [p.path for p in problems_of({})] == [("features",)]


def test_a_field_that_lacks_what_a_feature_needs_is_reported_once() -> None:
    """Where the field is declared, however many features use it."""
    fields = {**FIELDS, "amount": "decimal", "channel": "category"}
    found = problems_of({"a": "$amount", "b": "$amount", "c": "$channel"}, fields)
    assert [p.path for p in found] == [
        ("events", "fields", "amount", "resolution"),
        ("events", "fields", "channel", "values"),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(("card", "terminal", "amount", "x", "count", "mean(amount)", "windows"))


@given(st.dictionaries(KEYS | st.text(max_size=8), JSON | st.dictionaries(KEYS, JSON)))
def test_hostile_sections_end_in_a_spec_or_in_problems(features: dict[str, Any]) -> None:
    """Never in another exception."""
    try:
        assert compile_features(settings_of(features)).names
    except ConfigError as error:
        assert error.problems


BASE = {"amount": "$amount", "card": {"mean(amount)": ["1d"], "count": ["7d"]}}


def base(**changes: Any) -> Settings:
    fields = changes.pop("fields", FIELDS)
    return settings_of(changes.pop("features", BASE), changes.pop("ring", 32), fields)


@pytest.mark.parametrize(
    "change",
    [
        {"features": {**BASE, "hour": "hour($time)"}},
        {"features": dict(reversed(BASE.items()))},
        {"features": {**BASE, "card": {"mean(amount)": ["2d"], "count": ["7d"]}}},
        {"features": {**BASE, "card": {"sum(amount)": ["1d"], "count": ["7d"]}}},
        {
            "features": {
                **BASE,
                "card": {
                    "mean(amount)": {"windows": ["1d"], "include_current": False},
                    "count": ["7d"],
                },
            }
        },
        {"ring": 33},
        {"fields": {**FIELDS, "amount": {"type": "decimal", "resolution": 0.1}}},
        {"fields": {**FIELDS, "amount": "integer"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_changes_with_what_matters(change: dict[str, Any]) -> None:
    """Features, their order, windows, options, rings, types and resolutions."""
    assert compile_features(base(**change)).spec_hash != compile_features(base()).spec_hash


@pytest.mark.parametrize(
    "change",
    [
        {"features": {**BASE, "card": {"mean(amount)": "24h", "count": {"windows": ["168h"]}}}},
        {"fields": {**FIELDS, "other": "float"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_stays_with_what_does_not_matter(change: dict[str, Any]) -> None:
    """Another spelling of the same, or a field that no feature uses."""
    assert compile_features(base(**change)).spec_hash == compile_features(base()).spec_hash


KEPT: dict[str, Any] = {
    "amount": "$amount",
    "card": {"mean(amount)": ["1d", "7d"], "std(items)": ["7d"], "time_since_last": {}},
}


def kept(change: dict[str, Any], **sections: Any) -> str:
    return compile_features(settings_of({**KEPT, **change}, **sections)).state_hash


@pytest.mark.parametrize(
    "change",
    [
        {"night": "is_night($time)", "channel": "$channel"},
        {"card": {"sum(amount)": ["7d"], "count": ["1d"], **KEPT["card"]}},
        {"card": {**KEPT["card"], "mean(items)": ["1d"]}},
        {"card": {**KEPT["card"], "count": {"windows": ["1d"], "include_current": False}}},
        {"card": dict(reversed(KEPT["card"].items()))},
    ],
    ids=["event", "sum and count", "mean of squares", "before", "order"],
)
def test_what_needs_no_new_state_keeps_the_state_hash(change: dict[str, Any]) -> None:
    """Features of the event; other aggregations of what is recorded, over windows that are kept."""
    assert kept(change) == kept({})
    assert compile_features(settings_of({**KEPT, **change})).spec_hash != spec_of(KEPT).spec_hash


@pytest.mark.parametrize(
    "change",
    [
        {"card": {**KEPT["card"], "count": ["2d"]}},
        {"card": {**KEPT["card"], "count": {"windows": ["1d"], "delay": "7d"}}},
        {"card": {**KEPT["card"], "std(amount)": ["1d"]}},
        {"card": {**KEPT["card"], "max(amount)": ["1d"]}},
        {"card": {**KEPT["card"], "sum(present)": ["1d"]}},
        {"card": {"mean(amount)": ["1d", "7d"], "std(items)": ["7d"]}},
        {"terminal": {"count": ["1d"]}},
    ],
    ids=["window", "delay", "squares", "extremes", "field", "memory", "entity"],
)
def test_what_needs_new_state_changes_the_state_hash(change: dict[str, Any]) -> None:
    """A longer reach, another tile, more of a field, another rule of forgetting."""
    assert kept(change) != kept({})


def test_rings_and_resolutions_are_state() -> None:
    """What is kept depends on them, though no feature is another."""
    fields = {**FIELDS, "amount": {"type": "decimal", "resolution": 0.1}}
    assert len({kept({}), kept({}, ring=33), kept({}, fields=fields)}) == 3


def test_memory_reaches_beyond_every_window() -> None:
    """30 days at least, a year where the time since the last event is asked."""
    assert spec_of({"card": {"count": ["1h"]}}).forget_ms == 30 * DAY_MS
    assert spec_of({"card": {"time_since_last": {}}}).forget_ms == 365 * DAY_MS
    delayed = spec_of({"card": {"count": {"windows": ["30d"], "delay": "7d"}}})
    assert delayed.forget_ms == 37 * DAY_MS


def test_tiles_are_bounded_however_long_the_delay() -> None:
    """A window of a minute, three months ago, does not cost a million tiles."""
    spec = spec_of({"card": {"count": {"windows": ["1m"], "delay": "90d"}}})
    assert spec.entities[0].tile_sets[0].tiles <= 257
    assert Window(True, 7 * DAY_MS, DAY_MS).tile_ms == 3_600_000
