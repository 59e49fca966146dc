"""Allow and block lists: entities or field values that decide before any score does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.contracts.records import Bool, Events, Float64, Int64
from worker.contracts.settings import ListSettings, Settings


class Lists:
    """One or more lists; an event is on them where any of its values is.

    Costs nothing for events that are not asked about.
    """

    def __init__(self, lists: Sequence[ListSettings], settings: Settings) -> None:
        self._lists = [(one.field, _known(one, settings)) for one in lists]

    def on(self, events: Events, rows: Int64) -> Bool:
        """Return for each row of the events whether it is on a list."""
        found = np.zeros(len(rows), np.bool_)
        for name, known in self._lists:
            column = _column(events, name)
            found |= np.fromiter((column[i] in known for i in rows.tolist()), np.bool_, len(rows))
        return found

    def field_of(self, events: Events, row: int) -> str | None:
        """Return the name of the first entity or field that has the row on a list."""
        for name, known in self._lists:
            column = _column(events, name)
            if column[row] in known:
                return name
        return None

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._lists)


def _column(events: Events, name: str) -> Int64 | Float64 | list[str]:
    return events.entity_ids[name] if name in events.entity_ids else events.columns[name]


def _known(one: ListSettings, settings: Settings) -> frozenset[str | int]:
    """Return the values as the columns of the events hold them."""
    declared = settings.events.fields.get(one.field)
    if one.field in settings.entities or declared is None or declared.type == "string":
        return frozenset(str(value) for value in one.values)
    if declared.type == "category":
        known = {value: i for i, value in enumerate(declared.values or ())}
        return frozenset(known[str(value)] for value in one.values if str(value) in known)
    return frozenset(int(value) for value in one.values)
