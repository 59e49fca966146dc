"""The people and places of the synthetic card stream: cards with habits, terminals with positions.

All of it is drawn once from the seed and held as columns; card and terminal are row numbers here
and become ids such as ``c00042`` only when an event is written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Country code, latitude and longitude of its busiest city in degrees, share of cards and terminals.
COUNTRIES = (
    ("FR", 48.86, 2.35, 0.34),
    ("BE", 50.85, 4.35, 0.20),
    ("DE", 52.52, 13.40, 0.18),
    ("ES", 40.42, -3.70, 0.12),
    ("GB", 51.51, -0.13, 0.08),
    ("US", 40.71, -74.01, 0.05),
    ("BR", -23.55, -46.63, 0.03),
)
COUNTRY_CODES = tuple(row[0] for row in COUNTRIES)
LATITUDES = np.array([row[1] for row in COUNTRIES])
LONGITUDES = np.array([row[2] for row in COUNTRIES])
_COUNTRY_SHARES = np.array([row[3] for row in COUNTRIES])

# What a terminal sells: its usual amount as a multiple of the card's own, its share of terminals.
CATEGORIES = (
    ("grocery", 0.9, 0.26),
    ("restaurant", 0.7, 0.20),
    ("fuel", 1.3, 0.12),
    ("fashion", 1.6, 0.10),
    ("electronics", 3.0, 0.07),
    ("online_shop", 1.2, 0.25),
)
_CATEGORY_FACTORS = np.array([row[1] for row in CATEGORIES])
_CATEGORY_SHARES = np.array([row[2] for row in CATEGORIES])
_ONLINE = len(CATEGORIES) - 1

_LOCAL_FAVOURITES, _ONLINE_FAVOURITES = 8, 4
_HOME_SPREAD_DEGREES = 0.4  # about 40 km: a city and its surroundings


@dataclass(frozen=True, slots=True)
class Terminals:
    """Columns of length n: country (row of `COUNTRIES`), degrees, category, amount factor."""

    country: Ints
    latitude: Floats
    longitude: Floats
    category: Ints
    amount_factor: Floats
    online: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.country)


@dataclass(frozen=True, slots=True)
class Cards:
    """Columns of length n.

    ``amount`` is the card's median amount in euros, ``activity`` its share of the mean number of
    transactions (mean 1), ``peak_hour`` when it is used most, ``weekend`` how much more on Saturday
    and Sunday. ``favourites`` holds terminal rows, shape (n, 12), the most used first; -1 never
    occurs.
    """

    country: Ints
    latitude: Floats
    longitude: Floats
    amount: Floats
    activity: Floats
    peak_hour: Floats
    hour_spread: Floats
    weekend: Floats
    favourites: Ints

    def __len__(self) -> int:
        return len(self.country)


@dataclass(frozen=True, slots=True)
class Population:
    """Everybody in one synthetic world."""

    cards: Cards
    terminals: Terminals

    def online_terminals(self) -> Ints:
        """Return the rows of all web shops; there is at least one."""
        return np.flatnonzero(self.terminals.online)

    def terminals_in(self, country: int) -> Ints:
        """Return the rows of a country's terminals with a door; every country has one."""
        here = self.terminals
        return np.flatnonzero((here.country == country) & ~here.online)


def draw_population(rng: np.random.Generator, cards: int, terminals: int) -> Population:
    """Return a world of that many cards and terminals; the same for the same generator.

    Raises
    ------
    ValueError
        There is no card, or there are fewer than 20 terminals: too few for habits.

    Examples
    --------
    >>> world = draw_population(np.random.default_rng(1), cards=50, terminals=40)
    >>> world.cards.favourites.shape
    (50, 12)
    """
    if cards < 1 or terminals < 20:
        raise ValueError(f"expected at least 1 card and 20 terminals, got {cards} and {terminals}")
    places = _draw_terminals(rng, terminals)
    return Population(_draw_cards(rng, cards, places), places)


def _draw_terminals(rng: np.random.Generator, count: int) -> Terminals:
    country = rng.choice(len(COUNTRIES), count, p=_COUNTRY_SHARES)
    category = rng.choice(len(CATEGORIES), count, p=_CATEGORY_SHARES)
    # The first rows make sure that each country has a shop with a door, and the next that the web
    # has one.
    country[: len(COUNTRIES)] = np.arange(len(COUNTRIES))
    category[: len(COUNTRIES)] = 0
    category[len(COUNTRIES) : len(COUNTRIES) + _ONLINE_FAVOURITES] = _ONLINE
    return Terminals(
        country=country,
        latitude=LATITUDES[country] + rng.normal(0, _HOME_SPREAD_DEGREES, count),
        longitude=LONGITUDES[country] + rng.normal(0, _HOME_SPREAD_DEGREES, count),
        category=category,
        amount_factor=_CATEGORY_FACTORS[category],
        online=category == _ONLINE,
    )


def _draw_cards(rng: np.random.Generator, count: int, terminals: Terminals) -> Cards:
    country = rng.choice(len(COUNTRIES), count, p=_COUNTRY_SHARES)
    latitude = LATITUDES[country] + rng.normal(0, _HOME_SPREAD_DEGREES, count)
    longitude = LONGITUDES[country] + rng.normal(0, _HOME_SPREAD_DEGREES, count)
    return Cards(
        country=country,
        latitude=latitude,
        longitude=longitude,
        amount=np.exp(rng.normal(np.log(25.0), 0.6, count)),
        activity=rng.gamma(4.0, 0.25, count),
        peak_hour=rng.choice([9.0, 13.0, 18.5], count, p=[0.2, 0.35, 0.45]),
        hour_spread=rng.uniform(1.5, 3.5, count),
        weekend=rng.uniform(0.6, 1.6, count),
        favourites=_draw_favourites(rng, latitude, longitude, terminals),
    )


def _draw_favourites(
    rng: np.random.Generator, latitude: Floats, longitude: Floats, terminals: Terminals
) -> Ints:
    """Return for each card its local and its web terminals, shuffled: the first are used most."""
    doors, web = np.flatnonzero(~terminals.online), np.flatnonzero(terminals.online)
    rows = np.empty((len(latitude), _LOCAL_FAVOURITES + _ONLINE_FAVOURITES), dtype=np.int64)
    close = min(3 * _LOCAL_FAVOURITES, len(doors))
    for card in range(len(latitude)):
        east = terminals.longitude[doors] - longitude[card]
        north = terminals.latitude[doors] - latitude[card]
        # Sorted, because the order within a partition differs between processors.
        near = np.sort(np.argpartition(east * east + north * north, close - 1)[:close])
        rows[card, :_LOCAL_FAVOURITES] = rng.choice(doors[near], _LOCAL_FAVOURITES)
        rows[card, _LOCAL_FAVOURITES:] = rng.choice(web, _ONLINE_FAVOURITES)
        rng.shuffle(rows[card])
    return rows
