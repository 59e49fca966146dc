"""Commands about features and what was recorded: ``features``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from worker.commands import load, redis_of
from worker.errors import ConfigError
from worker.features.reader import Reader, Reading
from worker.features.spec import compile_features


def run_features(path: Path, entity: str, id_: str, at: str | None, as_json: bool) -> int:
    """Print an entity's features as they stand in Redis. Returns 1 where it is not stored."""
    from redis import Redis

    settings = load(path)
    declared = redis_of(path, settings)
    at_ms = None if at is None else time_ms_of("--at", at)
    with Redis.from_url(
        declared.url.get_secret_value(), socket_timeout=declared.timeout / 1000
    ) as client:
        reader = Reader(settings, client)
        reading = reader.look_up(entity, [id_], at_ms)[0]
        if as_json:
            print(_json(reading, reader.left_out(entity)))
        else:
            words = {f.name: f.words for f in compile_features(settings).features}
            print(_table(reading, words, reader.left_out(entity)))
    return 0 if reading.stored else 1


def time_ms_of(option: str, text: str) -> int:
    """Return Unix ms of a time on the command line: ISO 8601 (no offset means UTC) or Unix ms.

    >>> time_ms_of("--at", "1970-01-02"), time_ms_of("--at", "86400000")
    (86400000, 86400000)

    Raises
    ------
    ConfigError
        It is no time.
    """
    try:
        if text.isdecimal() and len(text) > 4:
            return int(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            option, expected="ISO 8601 such as 2025-03-03T10:00:00Z, or Unix ms", got=repr(text)
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _json(reading: Reading, left_out: dict[str, str]) -> str:
    answer = {
        "features": reading.features,
        "stored": reading.stored,
        "partition": reading.partition,
        "position": reading.position,
        "left_out": left_out,
    }
    return json.dumps(answer, indent=2)


def _table(reading: Reading, words: dict[str, str], left_out: dict[str, str]) -> str:
    if reading.stored:
        head = f"partition {reading.partition}, events before offset {reading.position}"
    else:
        head = "not stored: never seen, or silent for so long that it is forgotten"
    width = max(map(len, (*reading.features, *left_out)))
    lines = [f"{n:<{width}}  {v:>14.10g}  {words[n]}" for n, v in reading.features.items()]
    lines += [f"{name:<{width}}  {'-':>14}  {reason}" for name, reason in left_out.items()]
    return "\n".join([head, *lines])
