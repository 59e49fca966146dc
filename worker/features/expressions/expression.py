"""An expression that is ready to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worker.contracts.records import Bool, Events, Float64, Int64
from worker.features.expressions.canonical import text_of
from worker.features.expressions.checking import Schema, Typed, checked, with_zones, zone_name
from worker.features.expressions.syntax import Field, Node, parts_of, tree_of
from worker.features.expressions.values import TRUE, Rows, Values, codes_of
from worker.features.expressions.zones import zone_of

_NONE: Mapping[str, Float64] = {}


def parse(text: str, schema: Schema) -> Expression:
    """Return the expression that a text says.

    Raises
    ------
    ExpressionError
        The text is none, or contradicts the schema; the error has the column and a hint.

    Examples
    --------
    >>> from worker.contracts.settings import FieldSettings
    >>> fields = {"amount": FieldSettings(type="decimal", resolution=0.01)}
    >>> night = parse("hour( $time )<6 and $amount > 100.0", Schema(fields, "at"))
    >>> night.kind, night.fields, night.canonical
    ('boolean', ('amount',), 'hour($time) < 6 and $amount > 100')
    """
    tree = with_zones(tree_of(text), schema)
    return Expression(tree, checked(tree, schema))


class Expression:
    """A checked expression. Equal ones have the same ``canonical`` text.

    Attributes
    ----------
    kind
        ``number``, ``boolean``, ``text`` or ``time``.
    fields
        Names of the declared fields that it reads, sorted; the event time is none.
    canonical
        The one way to write it.
    classes
        Names of its values where these are few (a category, a boolean, a bucket), else empty.
    """

    def __init__(self, tree: Node, typed: Typed) -> None:
        self.kind = typed.kind
        self.classes = typed.classes
        self.canonical = text_of(tree)
        parts = list(parts_of(tree))
        self.fields = tuple(
            sorted({part.name for part in parts if isinstance(part, Field) and part.name != "time"})
        )
        self._zones = sorted({zone for part in parts if (zone := zone_name(part))})
        self._typed = typed

    @property
    def meaning(self) -> dict[str, str]:
        """Return all that decides the result: for the hash of a spec."""
        return {"expression": self.canonical, **{z: zone_of(z).digest for z in self._zones}}

    def evaluate(self, events: Events, derived: Mapping[str, Float64] = _NONE) -> Values:
        """Return the value of each event, as `worker.features.expressions.values` holds the kind.

        A number is missing where it is NaN, and never infinite; a boolean is 0 false, 1 missing, 2
        true; a text is missing where empty, a time where it is the smallest int64. Each event by
        itself: neighbours make no difference.
        """
        with np.errstate(all="ignore"):
            values = np.asarray(self._typed.run(Rows(events, derived)))
        return values if values.ndim else np.full(len(events), values)

    def column(self, events: Events, derived: Mapping[str, Float64] = _NONE) -> Float64:
        """Return numbers for X, all finite: a missing value is 0.0, true is 1.0."""
        values = self.evaluate(events, derived)
        if self.kind == "boolean":
            return np.asarray(values == TRUE, np.float64)
        assert self.kind == "number", self.canonical
        return np.asarray(np.where(np.isnan(values), 0.0, values))

    def mask(self, events: Events) -> Bool:
        """Return where a boolean is true; missing is not."""
        assert self.kind == "boolean", self.canonical
        return np.asarray(self.evaluate(events) == TRUE, np.bool_)

    def codes(self, events: Events, derived: Mapping[str, Float64] = _NONE) -> Int64:
        """Return the number of each event's class; any other number where it has none of them."""
        assert self.classes, self.canonical
        if self._typed.codes is not None:
            return np.asarray(self._typed.codes(Rows(events, derived)), np.int64)
        return codes_of(self.evaluate(events, derived))

    def __eq__(self, other: Any) -> bool:
        """Compare by meaning."""
        return isinstance(other, Expression) and self.canonical == other.canonical

    def __hash__(self) -> int:
        """Agree with equality."""
        return self.canonical.__hash__()

    def __repr__(self) -> str:
        """Show the text."""
        return f"<{self.kind} {self.canonical}>"
