"""The synthetic card stream: the same every time, in order, with what it promises in it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import zstandard

from producers.cards import DEMO, CardsSettings, generate, transactions
from producers.frauds import DAY_MS, PATTERNS
from producers.items import Item
from worker.contracts.messages import LabelMessage

SMALL = CardsSettings(seed=3, cards=120, terminals=60, days=10, fraud_share=0.02)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(generate(SMALL))


@pytest.fixture(scope="module")
def truth() -> dict[str, str]:
    """Return the pattern of each fraud by its event's id, from the generator's rows."""
    patterns = np.concatenate([rows["pattern"] for rows, _ in transactions(SMALL)])
    return {
        f"t{number:07d}": PATTERNS[pattern - 1].name
        for number, pattern in enumerate(patterns.tolist(), start=1)
        if pattern
    }


def _events(items: list[Item]) -> list[dict[str, object]]:
    return [json.loads(item.value or b"") for item in items if item.kind == "event"]


def _labels(items: list[Item]) -> list[dict[str, object]]:
    return [json.loads(item.value or b"") for item in items if item.kind == "label"]


def test_a_seed_gives_the_same_items_every_time(items: list[Item]) -> None:
    """Two runs of one seed agree in every byte."""
    assert list(generate(SMALL)) == items


def test_another_seed_gives_another_stream(items: list[Item]) -> None:
    """The seed decides: no event of another seed is the same."""
    other = {item.value for item in generate(replace(SMALL, seed=4))}
    assert not other & {item.value for item in items if item.kind == "event"}


def test_more_days_begin_with_the_days_of_a_shorter_run(items: list[Item]) -> None:
    """A longer run of a seed only adds days: its events begin with those of the shorter one."""
    longer = _events(list(generate(replace(SMALL, days=12))))
    assert longer[: len(_events(items))] == _events(items)


def test_times_of_all_items_never_go_back(items: list[Item]) -> None:
    """Events and labels together come in time order."""
    times = [item.time_ms for item in items]
    assert times == sorted(times)


def test_item_times_and_keys_are_those_written_in_the_records(items: list[Item]) -> None:
    """Time and key of an item are the record's own ISO time and card."""
    for item in items:
        record = json.loads(item.value or b"")
        assert (_ms(record["time"]), record["card_id"].encode()) == (item.time_ms, item.key)


def test_events_hold_the_declared_fields_in_their_ranges(items: list[Item]) -> None:
    """Each event has every field with a sensible value, and a device exactly when it is online."""
    for event in _events(items):
        assert event["channel"] in ("chip", "contactless", "online")
        assert ("device_id" in event) == (event["channel"] == "online")
        assert 0.5 <= float(str(event["amount"])) <= 5000
        assert -90 <= float(str(event["lat"])) <= 90
        assert -180 <= float(str(event["lon"])) <= 180


def test_amounts_are_written_with_two_decimals(items: list[Item]) -> None:
    """The bytes of an amount are euros, a point and two digits of cents."""
    import re

    for item in items:
        if item.kind == "event":
            assert re.search(rb'"amount":\d+\.\d\d,', item.value or b"")


def test_event_ids_are_unique(items: list[Item]) -> None:
    """No two good events share an id."""
    ids = [event["transaction_id"] for event in _events(items)]
    assert len(set(ids)) == len(ids)


def test_every_event_has_one_label_and_it_is_the_truth(
    items: list[Item], truth: dict[str, str]
) -> None:
    """Labels cover all events once, keep the contract, and are 1 for the planted frauds only."""
    labels = [LabelMessage.model_validate(label) for label in _labels(items)]
    assert sorted(str(label.event_id) for label in labels) == [
        str(event["transaction_id"]) for event in _events(items)
    ]
    assert {str(label.event_id) for label in labels if label.label} == set(truth)


def test_labels_come_after_their_event_and_within_the_maturity(items: list[Item]) -> None:
    """A fraud is reported by the maturity; a genuine event's label comes exactly then."""
    times = {event["transaction_id"]: _ms(str(event["time"])) for event in _events(items)}
    for label in _labels(items):
        delay_ms = _ms(str(label["time"])) - times[label["event_id"]]
        assert 0 < delay_ms <= SMALL.maturity_ms
        assert label["label"] or delay_ms == SMALL.maturity_ms


def test_median_delay_of_fraud_labels_is_the_one_asked_for(items: list[Item]) -> None:
    """Half of the frauds are known within about the median that was set."""
    times = {event["transaction_id"]: _ms(str(event["time"])) for event in _events(items)}
    delays = [
        _ms(str(label["time"])) - times[label["event_id"]]
        for label in _labels(items)
        if label["label"]
    ]
    assert 0.6 * SMALL.fraud_delay_ms < np.median(delays) < 1.6 * SMALL.fraud_delay_ms


@pytest.mark.parametrize("share", [0.004, 0.008, 0.05])
def test_share_of_frauds_is_near_the_one_asked_for(share: float) -> None:
    """Over a month frauds are the asked share of all events, a fifth more or less."""
    settings = CardsSettings(seed=5, cards=400, days=30, fraud_share=share)
    patterns = np.concatenate([rows["pattern"] for rows, _ in transactions(settings)])
    assert 0.8 * share < np.mean(patterns > 0) < 1.2 * share


def test_genuine_events_are_as_many_as_asked_for() -> None:
    """Mean events per card and day are the asked number within five per cent."""
    settings = CardsSettings(seed=5, cards=1000, days=14, per_card_per_day=2.0)
    genuine = sum(int((rows["pattern"] == 0).sum()) for rows, _ in transactions(settings))
    assert genuine / (1000 * 14) == pytest.approx(2.0, rel=0.05)


def test_no_fraud_happens_on_quiet_days() -> None:
    """The first fraud is not before the quiet days are over, and frauds follow after them."""
    days = list(transactions(replace(SMALL, quiet_days=4)))
    frauds = [int((rows["pattern"] > 0).sum()) for rows, _ in days]
    assert sum(frauds[:4]) == 0 < sum(frauds[4:])


def _crimes(
    items: list[Item], truth: dict[str, str], pattern: str, entity: str
) -> dict[object, list[dict[str, object]]]:
    crimes = defaultdict(list)
    for event in _events(items):
        if truth.get(str(event["transaction_id"])) == pattern:
            crimes[event[entity]].append(event)
    assert crimes, f"no {pattern} in the stream"
    return crimes


def _amounts(events: list[dict[str, object]]) -> list[float]:
    return [float(str(event["amount"])) for event in events]


def _hours(events: list[dict[str, object]]) -> float:
    times = [_ms(str(event["time"])) for event in events]
    return (max(times) - min(times)) / 3_600_000


def test_a_compromised_terminal_hits_many_cards_for_days(
    items: list[Item], truth: dict[str, str]
) -> None:
    """Frauds at one terminal spread over many cards and days; genuine events go on there."""
    genuine = {e["terminal_id"] for e in _events(items) if e["transaction_id"] not in truth}
    largest = max(_crimes(items, truth, "compromised_terminal", "terminal_id").values(), key=len)
    assert len({event["card_id"] for event in largest}) >= 10
    assert _hours(largest) > 24
    assert largest[0]["terminal_id"] in genuine


def test_a_stolen_card_buys_much_more_than_usual_within_hours(
    items: list[Item], truth: dict[str, str]
) -> None:
    """A burst has at least five larger purchases in three hours, in a country that is not home."""
    for card, crime in _crimes(items, truth, "stolen_card", "card_id").items():
        own = [
            e for e in _events(items) if e["card_id"] == card and e["transaction_id"] not in truth
        ]
        assert len(crime) >= 5
        assert _hours(crime) <= 3 or len(crime) > 12  # a card may be stolen twice
        assert np.mean(_amounts(crime)) > 1.5 * np.median(_amounts(own))
        assert len({event["country"] for event in crime}) < len(crime)


def test_card_testing_pays_tiny_amounts_within_minutes_and_then_a_large_one(
    items: list[Item], truth: dict[str, str]
) -> None:
    """All payments but the last are at most three euros, online, from one device."""
    crimes = [
        crime
        for crime in _crimes(items, truth, "card_testing", "device_id").values()
        if len(crime) >= 7  # the end of the run may cut one off
    ]
    assert crimes
    for crime in crimes:
        assert max(_amounts(crime[:-1])) <= 3 < _amounts(crime)[-1]
        assert _hours(crime[:-1]) <= 8 / 60
        assert {event["channel"] for event in crime} == {"online"}


def test_an_account_takeover_uses_a_new_device_in_another_country(
    items: list[Item], truth: dict[str, str]
) -> None:
    """The device was never seen before, and the country is not where the card pays online."""
    for device, crime in _crimes(items, truth, "account_takeover", "device_id").items():
        card = crime[0]["card_id"]
        seen = [e for e in _events(items) if e["card_id"] == card and e not in crime]
        home = {e["country"] for e in seen if e["transaction_id"] not in truth and "device_id" in e}
        assert device not in {e.get("device_id") for e in seen}
        assert not home & {event["country"] for event in crime}


def test_memory_does_not_grow_with_the_days() -> None:
    """A run of 60 days holds no more at once than one of 20, when labels come within two days."""
    import tracemalloc

    def peak(days: int) -> int:
        settings = replace(SMALL, days=days, maturity_ms=2 * DAY_MS)
        tracemalloc.start()
        for _ in generate(settings):
            pass
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(2)
    assert peak(60) < 1.3 * peak(20)


@pytest.mark.parametrize("wrong", [{"cards": 0}, {"terminals": 19}, {"bad_share": 1.5}])
def test_settings_that_make_no_world_are_refused(wrong: dict[str, int]) -> None:
    """No card, too few terminals for habits, or a share above one is an error at once."""
    with pytest.raises(ValueError, match="expected"):
        next(iter(generate(replace(SMALL, **wrong))))


def test_the_shipped_demo_stream_is_what_the_generator_makes() -> None:
    """The demo's files hold the lines of `DEMO`, byte for byte."""
    import worker

    folder = Path(worker.__file__).parent / "demo"
    made = list(generate(DEMO))
    for kind in ("event", "label"):
        with (folder / f"{kind}s.jsonl.zst").open("rb") as raw:
            shipped = zstandard.ZstdDecompressor().stream_reader(raw).read()
        assert shipped == b"".join((i.value or b"") + b"\n" for i in made if i.kind == kind)
