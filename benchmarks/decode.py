"""How long a record takes from bytes to columns, against a pydantic model per record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from worker.contracts.clock import EventClock
from worker.contracts.records import Records
from worker.contracts.settings import Settings
from worker.decode import Decoder

_BATCH_RECORDS = 1_000
_ROUNDS = 15

_SETTINGS = {
    "name": "decode",
    "events": {
        "topic": "transactions",
        "id": "transaction_id",
        "key": "card_id",
        "time": {"field": "time"},
        "fields": {
            "transaction_id": "string",
            "card_id": "string",
            "terminal_id": "string",
            "time": "timestamp",
            "amount": {"type": "decimal", "resolution": 0.01, "min": 0},
            "currency": {"type": "category", "values": ["EUR", "USD", "GBP"]},
            "channel": {"type": "category", "values": ["chip", "web", "tap"]},
            "items": {"type": "integer", "min": 0},
            "mcc": "integer",
            "present": "boolean",
            "latitude": "float",
            "device_id": {"type": "string", "default": ""},
        },
    },
    "entities": {
        "card": {"key": "card_id"},
        "terminal": {"key": "terminal_id"},
        "device": {"key": "device_id"},
    },
    "features": {},
    "models": {"m": {"preset": "logistic"}},
    "decision": {"model": "m", "threshold": 0.5},
}


class _Transaction(BaseModel):
    """The same contract as a user would write it."""

    transaction_id: str
    card_id: str
    terminal_id: str
    time: datetime
    amount: float
    currency: Literal["EUR", "USD", "GBP"]
    channel: Literal["chip", "web", "tap"]
    items: int
    mcc: int
    present: bool
    latitude: float
    device_id: str = ""


def _event(i: int, **extra: object) -> bytes:
    fields = {
        "transaction_id": f"t{i:09d}",
        "card_id": f"c{i * 7919 % 5000:06d}",
        "terminal_id": f"m{i * 104729 % 10000:06d}",
        "time": f"2018-04-01T{i // 3600 % 24:02d}:{i // 60 % 60:02d}:{i % 60:02d}.{i % 1000:03d}Z",
        "amount": i % 50_000 / 100,
        "currency": ("EUR", "USD", "GBP")[i % 3],
        "channel": ("chip", "web", "tap")[i % 3],
        "items": i % 9,
        "mcc": 4000 + i % 999,
        "present": i % 2 == 0,
        "latitude": 40 + i % 1000 / 97,
        "device_id": f"d{i % 777}",
    }
    return json.dumps(fields | extra, separators=(",", ":")).encode()


def _records(values: list[bytes]) -> Records:
    n = len(values)
    keys: list[bytes | None] = [json.loads(value)["card_id"].encode() for value in values]
    return Records("transactions", 0, list(range(n)), [0] * n, keys, list(values), n)


def _fastest_us(step: Callable[[], object]) -> float:
    """Return the microseconds a record takes in the fastest of the rounds."""
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times) * 1e6 / _BATCH_RECORDS


def run() -> list[dict[str, object]]:
    """Return the rows of the table: decode of plain events, with unknown fields, and pydantic."""
    decoder = Decoder(Settings.model_validate(_SETTINGS))
    plain = _records([_event(i) for i in range(_BATCH_RECORDS)])
    wider = _records([_event(i, note="x", score=[1, 2]) for i in range(_BATCH_RECORDS)])

    def decode(records: Records) -> None:
        decoded = decoder.decode(records, EventClock(86_400_000))
        assert len(decoded.events) == _BATCH_RECORDS, decoded.rejected[:1]

    validate = _Transaction.model_validate_json
    pydantic_us = _fastest_us(lambda: [validate(value or b"") for value in plain.values])
    plain_us = _fastest_us(lambda: decode(plain))
    wider_us = _fastest_us(lambda: decode(wider))
    return [
        _row("decode: 12 fields to columns", plain_us, pydantic_us),
        _row("decode: with 2 unknown fields", wider_us, pydantic_us),
        _row("pydantic model_validate_json, 12 fields to objects", pydantic_us, pydantic_us),
    ]


def _row(name: str, value_us: float, pydantic_us: float) -> dict[str, object]:
    return {
        "name": name,
        "value": round(value_us, 3),
        "unit": "us/event",
        "ratio": round(pydantic_us / value_us, 2),
        "ratio_to": "pydantic model_validate_json loop",
    }


if __name__ == "__main__":
    for row in run():
        print(row)
