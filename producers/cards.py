"""A synthetic card stream: habits of genuine customers, planted frauds, and labels that come late.

Our own design, made for trying out riverwatch and for its demo. It is not fitted to any real data,
and a result on it says nothing about real fraud. Everything is drawn from one seed with numpy's
generators; no clock is read, so a seed gives the same bytes every time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np

from producers.bad_records import BadRecords
from producers.card_texts import event_items, label_items
from producers.frauds import (
    CHIP,
    CONTACTLESS,
    DAY_MS,
    ONLINE,
    Crimes,
    Rows,
    at_terminals,
    blank,
    foreign_device,
    to_cents,
)
from producers.items import Item
from producers.population import Ints, Population, draw_population

HOUR_MS = 3_600_000
_CONTACTLESS_CENTS_MAX = 5_000
_TRAVEL_SHARE = (
    0.03  # genuine purchases at a terminal that nobody expected: fraud is not the only surprise
)
_LARGE_SHARE = 0.01
_NEW_DEVICE_SHARE = 0.01
_CONTACTLESS_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class CardsSettings:
    """What to generate.

    ``per_card_per_day`` is the mean number of genuine events; ``fraud_share`` that of frauds among
    all events. A fraud's label comes after a lognormal delay with median ``fraud_delay_ms``, any
    other event's after ``maturity_ms``, which bounds both. ``bad_share`` plants that many bad
    records per event, of the kinds ``bad_kinds`` in turn. Ids of events are numbers after
    ``id_prefix``.
    """

    seed: int = 1
    cards: int = 700
    terminals: int = 300
    days: int = 12
    per_card_per_day: float = 2.4
    fraud_share: float = 0.008
    start: date = date(2025, 3, 3)  # a Monday; brokers refuse times ahead of their clock
    fraud_delay_ms: int = 3 * DAY_MS
    maturity_ms: int = 14 * DAY_MS
    quiet_days: int = 0
    bad_share: float = 0.0
    bad_kinds: tuple[str, ...] = ()
    id_prefix: str = "t"


# The stream of `riverwatch demo`. The first days are quiet, so that the scaler of a model that
# learns from labels has seen genuine customers before the first chargeback; labels come early, so
# that alerts do too.
DEMO = CardsSettings(
    cards=320,
    terminals=150,
    days=28,
    fraud_delay_ms=DAY_MS,
    maturity_ms=2 * DAY_MS,
    quiet_days=3,
)


def generate(settings: CardsSettings) -> Iterator[Item]:
    """Yield events and labels in time order; each event has one label, maybe after the last event.

    Memory is bounded by the events of one day plus those whose label is not known yet.

    Raises
    ------
    ValueError
        The settings make no world: no card, fewer than 20 terminals, an unknown kind of bad record.

    Examples
    --------
    >>> items = list(generate(CardsSettings(seed=7, cards=30, terminals=30, days=2)))
    >>> items[0].kind, items[0].value[:27]
    ('event', b'{"transaction_id":"t0000001')
    """
    bad = BadRecords(settings.bad_share, settings.bad_kinds)
    known: list[
        tuple[int, int, Item]
    ] = []  # a heap: when it becomes known, a tie breaker, the label
    number = 0
    for rows, delays_ms in transactions(settings):
        ids = settings.id_prefix, number + 1
        labels = label_items(rows, delays_ms, *ids)
        for event, label in zip(event_items(rows, *ids), labels, strict=True):
            number += 1
            yield from _labels_before(known, event.time_ms)
            yield event
            yield from bad.after(event)
            heapq.heappush(known, (label.time_ms, number, label))
    while known:
        yield heapq.heappop(known)[2]


def transactions(settings: CardsSettings) -> Iterator[tuple[Rows, Ints]]:
    """Yield per day its `EVENT` rows, sorted by time, and the delays of their labels in ms."""
    world = draw_population(
        np.random.default_rng(settings.seed), settings.cards, settings.terminals
    )
    genuine_per_day = settings.cards * settings.per_card_per_day
    crimes = Crimes(world, genuine_per_day * settings.fraud_share / (1 - settings.fraud_share))
    later = blank(0)
    for day in range(settings.days):
        # A generator per day: what one day draws never moves the next one.
        rng = np.random.default_rng([settings.seed, day])
        day_ms = (settings.start - date(1970, 1, 1)).days * DAY_MS + day * DAY_MS
        genuine = _genuine(world, rng, day_ms, settings.per_card_per_day)
        committed = crimes.commit(rng, day_ms) if day >= settings.quiet_days else []
        rows = np.concatenate([later, genuine, *committed])
        today = rows["time_ms"] < day_ms + DAY_MS
        rows, later = rows[today], rows[~today]
        rows = rows[np.argsort(rows["time_ms"], kind="stable")]
        yield rows, _label_delays(settings, rng, rows)


def _labels_before(known: list[tuple[int, int, Item]], time_ms: int) -> Iterator[Item]:
    while known and known[0][0] < time_ms:
        yield heapq.heappop(known)[2]


def _label_delays(settings: CardsSettings, rng: np.random.Generator, rows: Rows) -> Ints:
    """Return per row how many ms later its label is known: frauds are reported, others mature."""
    reported = settings.fraud_delay_ms * np.exp(rng.normal(0, 0.6, len(rows)))
    delays = np.where(rows["pattern"] > 0, reported, settings.maturity_ms)
    return np.clip(delays, 1, settings.maturity_ms).astype(np.int64)


def _genuine(world: Population, rng: np.random.Generator, day_ms: int, per_card: float) -> Rows:
    """Return one day of all cards' own transactions, not sorted."""
    cards = world.cards
    weekend = (day_ms // DAY_MS + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    weekday_factor = cards.weekend if weekend else (7 - 2 * cards.weekend) / 5
    counts = rng.poisson(per_card * cards.activity * weekday_factor)
    rows = blank(int(counts.sum()))
    rows["card"] = np.repeat(np.arange(len(cards)), counts)
    rows["time_ms"] = day_ms + _times_of_day(world, rng, rows["card"])
    rows["terminal"] = _places(world, rng, rows["card"])
    rows["cents"] = _amounts(world, rng, rows)
    rows["channel"] = _counter_channels(rng, rows["cents"])
    at_terminals(world, rows)
    _go_online(world, rng, rows)
    return rows


def _times_of_day(world: Population, rng: np.random.Generator, cards: Ints) -> Ints:
    """Return ms since midnight: around each card's own hour, rarely far from it."""
    hours = rng.normal(world.cards.peak_hour[cards], world.cards.hour_spread[cards])
    return ((hours % 24) * HOUR_MS).astype(np.int64) % DAY_MS


def _places(world: Population, rng: np.random.Generator, cards: Ints) -> Ints:
    """Return terminals: mostly favourites, the first ones most, now and then any at all."""
    habits = world.cards.favourites.shape[1]
    weights = 0.8 ** np.arange(habits)
    usual = world.cards.favourites[cards, rng.choice(habits, len(cards), p=weights / weights.sum())]
    anywhere = rng.integers(0, len(world.terminals), len(cards))
    return np.where(rng.random(len(cards)) < _TRAVEL_SHARE, anywhere, usual)


def _amounts(world: Population, rng: np.random.Generator, rows: Rows) -> Ints:
    """Return cents: the card's level times that of the goods, lognormal, rarely a large one."""
    level = world.cards.amount[rows["card"]] * world.terminals.amount_factor[rows["terminal"]]
    large = np.where(rng.random(len(rows)) < _LARGE_SHARE, 5.0, 1.0)
    return to_cents(level * large * np.exp(rng.normal(0, 0.55, len(rows))))


def _counter_channels(rng: np.random.Generator, cents: Ints) -> Ints:
    tapped = (cents <= _CONTACTLESS_CENTS_MAX) & (rng.random(len(cents)) < _CONTACTLESS_SHARE)
    return np.where(tapped, CONTACTLESS, CHIP)


def _go_online(world: Population, rng: np.random.Generator, rows: Rows) -> None:
    """Make the rows at web shops online purchases from home with the card's devices, in place."""
    web = world.terminals.online[rows["terminal"]]
    cards = rows["card"]
    second = rng.random(len(rows)) < 0.2
    device = np.where(
        rng.random(len(rows)) < _NEW_DEVICE_SHARE, foreign_device(rng), 2 * cards + second
    )
    rows["channel"] = np.where(web, ONLINE, rows["channel"])
    rows["device"] = np.where(web, device, -1)
    rows["country"] = np.where(web, world.cards.country[cards], rows["country"])
    for name in ("latitude", "longitude"):
        home = getattr(world.cards, name)[cards] + rng.normal(0, 0.05, len(rows))
        rows[name] = np.where(web, home, rows[name])
