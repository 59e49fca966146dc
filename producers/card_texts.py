"""Rows of synthetic transactions as the JSON bytes of events and labels.

Written by format strings and not by an encoder: amounts keep their two decimals, and a stream of
millions costs microseconds per event.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from producers.frauds import CHANNELS, Rows
from producers.items import Item
from producers.population import COUNTRY_CODES, Ints

_EVENT = (
    '{"transaction_id":"%s%07d","card_id":"c%05d","terminal_id":"m%05d",%s"amount":%d.%02d,'
    '"channel":"%s","country":"%s","lat":%.4f,"lon":%.4f,"time":"%s"}'
)
_SOURCES = ("maturity", "chargeback")
_LABEL = '{"event_id":"%s%07d","card_id":"c%05d","label":%d,"time":"%s","source":"%s"}'


def event_items(rows: Rows, prefix: str, number: int) -> Iterator[Item]:
    """Yield the events of sorted rows; ids count from ``number`` on, the key is the card."""
    for index, (row, time) in enumerate(zip(rows.tolist(), _iso(rows["time_ms"]), strict=True)):
        time_ms, card, terminal, device, cents, channel, country, latitude, longitude, _ = row
        device_text = f'"device_id":"d{device:08x}",' if device >= 0 else ""
        text = _EVENT % (
            prefix, number + index, card, terminal, device_text, *divmod(cents, 100),
            CHANNELS[channel], COUNTRY_CODES[country], latitude, longitude, time,
        )  # fmt: skip
        yield Item("event", time_ms, b"c%05d" % card, text.encode())


def label_items(rows: Rows, delays_ms: Ints, prefix: str, number: int) -> Iterator[Item]:
    """Yield the label of each row, in row order; its time is when it became known."""
    known_ms = rows["time_ms"] + delays_ms
    fraud = (rows["pattern"] > 0).tolist()
    columns = zip(rows["card"].tolist(), fraud, known_ms.tolist(), _iso(known_ms), strict=True)
    for index, (card, y, time_ms, time) in enumerate(columns):
        text = _LABEL % (prefix, number + index, card, y, time, _SOURCES[y])
        yield Item("label", time_ms, b"c%05d" % card, text.encode())


def _iso(times_ms: Ints) -> list[str]:
    """Return ISO 8601 texts in UTC with milliseconds."""
    texts: list[str] = np.datetime_as_string(times_ms.astype("M8[ms]"), timezone="UTC").tolist()
    return texts
