"""Ids of entities: of one field, or of several joined so that no two pairs give one text."""

from __future__ import annotations

from collections.abc import Sequence

OTHER = "*"
"""The id that all undeclared values of a category share."""

NO_ENTITY = ""
"""The id of an event that has no such entity."""


def joined_id(*parts: str) -> str:
    """Return the id of a composite entity: the lengths of all parts but the last, then the parts.

    It is no entity if a part is missing.

    >>> joined_id("c1", "m7"), joined_id("a|b", "c"), joined_id("a", "b|c"), joined_id("c1", "")
    ('2|c1|m7', '3|a|b|c', '1|a|b|c', '')
    """
    if not all(parts):
        return NO_ENTITY
    lengths = ",".join(str(len(part)) for part in parts[:-1])
    return "|".join((lengths, *parts))


def joined_ids(columns: Sequence[list[str]]) -> list[str]:
    """Return the id of each event's composite entity."""
    if len(columns) == 2:
        return [
            f"{len(a)}|{a}|{b}" if a and b else NO_ENTITY
            for a, b in zip(columns[0], columns[1], strict=True)
        ]
    return [joined_id(*parts) for parts in zip(*columns, strict=True)]
