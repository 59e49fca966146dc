"""The planted fraud patterns: each turns a victim into the events of one crime.

A pattern is a function ``(world, rng, day_start_ms) -> rows`` with rows of `EVENT`, all of them
fraud, at or after the start of the day. `PATTERNS` holds them with their share of all frauds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.population import COUNTRIES, LATITUDES, LONGITUDES, Ints, Population

DAY_MS = 86_400_000
MINUTE_MS = 60_000
CENTS_MIN, CENTS_MAX = 50, 500_000

CHANNELS = ("chip", "contactless", "online")
CHIP, CONTACTLESS, ONLINE = range(3)

# One transaction. ``device`` is -1 where there is none; ``pattern`` is 0 for a genuine one, else 1
# + the row of `PATTERNS`, and is never written: it is the answer.
EVENT = np.dtype(
    [
        ("time_ms", "i8"),
        ("card", "i8"),
        ("terminal", "i8"),
        ("device", "i8"),
        ("cents", "i8"),
        ("channel", "i8"),
        ("country", "i8"),
        ("latitude", "f8"),
        ("longitude", "f8"),
        ("pattern", "i8"),
    ]
)
Rows = NDArray[Any]  # Any: numpy has no static type for the rows of a structured array


class Pattern(NamedTuple):
    """A kind of crime, its share of all frauds, its mean number of events, and what makes one."""

    name: str
    share: float
    events_mean: float
    commit: Callable[[Population, np.random.Generator, int], Rows]


def blank(count: int) -> Rows:
    """Return ``count`` rows without a device."""
    rows = np.zeros(count, EVENT)
    rows["device"] = -1
    return rows


def to_cents(euros: NDArray[np.float64]) -> Ints:
    """Return amounts in cents, kept within 0.50 and 5,000 euros."""
    return np.clip(np.rint(euros * 100), CENTS_MIN, CENTS_MAX).astype(np.int64)


def foreign_device(rng: np.random.Generator) -> int:
    """Return a device number that no card owns (those are below 2**32)."""
    return int(rng.integers(2**32, 2**40))


def at_terminals(world: Population, rows: Rows) -> None:
    """Give rows made at a counter the country and the position of their terminal, in place."""
    for name in ("country", "latitude", "longitude"):
        rows[name] = getattr(world.terminals, name)[rows["terminal"]]


def compromised_terminal(world: Population, rng: np.random.Generator, day_ms: int) -> Rows:
    """Return the misuse of cards copied at one terminal: 15 to 30 events over 2 to 5 days.

    Amounts, hours and channel look like those of any customer; what gives it away is the terminal.
    """
    place = int(rng.choice(np.flatnonzero(~world.terminals.online)))
    rows = blank(int(rng.integers(15, 31)))
    days = rng.uniform(2, 5)
    rows["time_ms"] = day_ms + (rng.uniform(0, days, len(rows)) * DAY_MS).astype(np.int64)
    rows["terminal"] = place
    rows["card"] = rng.integers(0, len(world.cards), len(rows))
    rows["cents"] = _spend(world, rng, rows["card"], 1.8)
    rows["channel"] = CHIP
    at_terminals(world, rows)
    return rows


def stolen_card(world: Population, rng: np.random.Generator, day_ms: int) -> Rows:
    """Return a burst of 5 to 12 larger purchases within three hours, far from home or online."""
    card = int(rng.integers(len(world.cards)))
    rows = blank(int(rng.integers(5, 13)))
    start_ms = day_ms + int(rng.uniform(0, DAY_MS))
    minutes = rng.uniform(0, rng.uniform(60, 180), len(rows))
    rows["time_ms"] = start_ms + (minutes * MINUTE_MS).astype(np.int64)
    rows["card"] = card
    rows["cents"] = _spend(world, rng, rows["card"], rng.uniform(3.0, 7.0))
    abroad = _elsewhere(rng, int(world.cards.country[card]))
    if rng.random() < 0.5:
        _shop_online(world, rng, rows, abroad)
    else:
        _shop_at_counters(world, rng, rows, abroad)
    return rows


def card_testing(world: Population, rng: np.random.Generator, day_ms: int) -> Rows:
    """Return 6 to 14 tiny payments at one web shop within minutes, then a large one elsewhere."""
    rows = blank(int(rng.integers(7, 16)))
    start_ms = day_ms + int(rng.uniform(0, DAY_MS))
    minutes = np.sort(rng.uniform(0, 8, len(rows)))
    minutes[-1] += rng.uniform(5, 40)
    rows["time_ms"] = start_ms + (minutes * MINUTE_MS).astype(np.int64)
    rows["card"] = int(rng.integers(len(world.cards)))
    _shop_online(world, rng, rows, int(rng.integers(len(COUNTRIES))))
    rows["terminal"][:-1] = rows["terminal"][0]
    rows["cents"] = to_cents(rng.uniform(0.5, 3.0, len(rows)))
    rows["cents"][-1:] = _spend(world, rng, rows["card"][-1:], 8.0)
    return rows


def account_takeover(world: Population, rng: np.random.Generator, day_ms: int) -> Rows:
    """Return 3 to 7 online purchases within two days, from a new device in a new country."""
    card = int(rng.integers(len(world.cards)))
    rows = blank(int(rng.integers(3, 8)))
    rows["time_ms"] = day_ms + (np.sort(rng.uniform(0, 2, len(rows))) * DAY_MS).astype(np.int64)
    rows["card"] = card
    rows["cents"] = _spend(world, rng, rows["card"], 2.5)
    _shop_online(world, rng, rows, _elsewhere(rng, int(world.cards.country[card])))
    return rows


PATTERNS = (
    Pattern("compromised_terminal", 0.30, 22.5, compromised_terminal),
    Pattern("stolen_card", 0.35, 8.5, stolen_card),
    Pattern("card_testing", 0.20, 11.0, card_testing),
    Pattern("account_takeover", 0.15, 5.0, account_takeover),
)


class Crimes:
    """Commits crimes day by day so that frauds stay a given number per day on average.

    Each pattern runs up a debt of its share of ``frauds_per_day``; a crime is committed while the
    debt covers half of one. So small worlds hold every pattern too, and the share does not drift.
    """

    def __init__(self, world: Population, frauds_per_day: float) -> None:
        self._world, self._frauds_per_day = world, frauds_per_day
        self._debt = np.zeros(len(PATTERNS))

    def commit(self, rng: np.random.Generator, day_ms: int) -> list[Rows]:
        """Return the events of all crimes that begin on this day; some lie on later days."""
        crimes = []
        for index, pattern in enumerate(PATTERNS):
            self._debt[index] += self._frauds_per_day * pattern.share
            while self._debt[index] >= pattern.events_mean / 2:
                rows = pattern.commit(self._world, rng, day_ms)
                rows["pattern"] = index + 1
                self._debt[index] -= len(rows)
                crimes.append(rows)
        return crimes


def _spend(world: Population, rng: np.random.Generator, cards: Ints, times: float) -> Ints:
    """Return amounts in cents around ``times`` the cards' own median."""
    return to_cents(world.cards.amount[cards] * times * np.exp(rng.normal(0, 0.5, len(cards))))


def _elsewhere(rng: np.random.Generator, home: int) -> int:
    """Return a country that is not ``home``."""
    return int((home + rng.integers(1, len(COUNTRIES))) % len(COUNTRIES))


def _shop_at_counters(
    world: Population, rng: np.random.Generator, rows: Rows, country: int
) -> None:
    """Make rows chip payments at any counters of a country, in place."""
    rows["channel"] = CHIP
    rows["terminal"] = rng.choice(world.terminals_in(country), len(rows))
    at_terminals(world, rows)


def _shop_online(world: Population, rng: np.random.Generator, rows: Rows, country: int) -> None:
    """Make rows online purchases of one unknown device in a country, at any web shops, in place."""
    rows["channel"] = ONLINE
    rows["terminal"] = rng.choice(world.online_terminals(), len(rows))
    rows["device"] = foreign_device(rng)
    rows["country"] = country
    rows["latitude"] = LATITUDES[country] + rng.normal(0, 0.5)
    rows["longitude"] = LONGITUDES[country] + rng.normal(0, 0.5)
