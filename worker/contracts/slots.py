"""What a worker is called: its slot in the group, and the transactions that are its own."""

from __future__ import annotations

import re

SLOT = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What a slot may be called; the broker takes it as a member's id too."""


def transactional_id(group: str, slot: str) -> str:
    """Return the id of a slot's transactions. No name of a group holds a dot, so that no other
    group and slot give the same.

    >>> transactional_id("cards", "shadow-0"), transactional_id("cards-shadow", "0")
    ('cards.shadow-0', 'cards-shadow.0')
    """
    return f"{group}.{slot}"


def slot_of(transactional_id: str, group: str) -> str | None:
    """Return the slot of a transaction, None where it is of another group.

    >>> slot_of("cards.0", "cards"), slot_of("cards-shadow.0", "cards")
    ('0', None)
    """
    owner, _, slot = transactional_id.partition(".")
    return slot if owner == group and slot else None
