"""An expression that is ready to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from worker.contracts.records import Bool, Events, Float64, Int64
from worker.features.expressions.canonical import text_of
from worker.features.expressions.categories import CATEGORIES
from worker.features.expressions.checking import (
    QUANTILE_BUCKET,
    Schema,
    Typed,
    checked,
    with_zones,
    zone_name,
)
from worker.features.expressions.functions import FUNCTIONS
from worker.features.expressions.syntax import Call, Field, Literal, Node, parts_of, tree_of
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
    return Expression(tree, checked(tree, schema), schema)


def parse_feature(text: str, schema: Schema) -> Expression:
    """Return what a feature says: an expression, or a category of it with a column per class.

    >>> from worker.contracts.settings import FieldSettings
    >>> schema = Schema({"web": FieldSettings(type="boolean")}, "at")
    >>> parse_feature("cross($web, is_night($time))", schema).classes[:2]
    ('false,false', 'false,true')
    """
    schema = replace(schema, learns=True)
    tree = with_zones(tree_of(text), schema)
    category = CATEGORIES.get(tree.name) if isinstance(tree, Call) else None
    if category is None or not isinstance(tree, Call):
        return Expression(tree, checked(tree, schema), schema)
    return Expression(tree, category.typed(tree, schema), schema)


class Expression:
    """A checked expression. Equal ones have the same ``canonical`` text.

    Attributes
    ----------
    kind
        ``number``, ``boolean``, ``text``, ``time``, or ``category``: numbers of its classes.
    fields
        Names of the declared fields that it reads, sorted; the event time is none.
    canonical
        The one way to write it.
    classes
        Names of its values where these are few (a category, a boolean, a bucket), else empty.
    learned
        What it needs derived from earlier events: number and parts of each `quantile_bucket`.
    """

    def __init__(self, tree: Node, typed: Typed, schema: Schema) -> None:
        self.kind = typed.kind
        self.classes = typed.classes
        self.canonical = text_of(tree)
        parts = list(parts_of(tree))
        self.fields = tuple(
            sorted({part.name for part in parts if isinstance(part, Field) and part.name != "time"})
        )
        self._zones = sorted({zone for part in parts if (zone := zone_name(part))})
        self.learned = {text_of(p): _learned(p, schema) for p in parts if is_learned(p)}
        self._tree = tree
        self._typed = typed

    @property
    def meaning(self) -> dict[str, str]:
        """Return all that decides the result: for the hash of a spec."""
        return {"expression": self.canonical, **{z: zone_of(z).digest for z in self._zones}}

    @property
    def words(self) -> str:
        """Return it as a person reads it: the calendar in words, all else as it is written."""
        tree = self._tree
        name = tree.name if isinstance(tree, Call) else ""
        if name in FUNCTIONS and FUNCTIONS[name].takes_zone and self._of_the_event_time():
            return f"{FUNCTIONS[name].words} ({self._zones[0] if self._zones else 'UTC'})"
        return self.canonical

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
        if self.kind == "category":
            return np.asarray(self.evaluate(events, derived), np.int64)
        if self._typed.codes is not None:
            return np.asarray(self._typed.codes(Rows(events, derived)), np.int64)
        return codes_of(self.evaluate(events, derived))

    def _of_the_event_time(self) -> bool:
        tree = self._tree
        return isinstance(tree, Call) and isinstance(tree.arguments[0], Field) and not self.fields

    def __eq__(self, other: Any) -> bool:
        """Compare by meaning."""
        return isinstance(other, Expression) and self.canonical == other.canonical

    def __hash__(self) -> int:
        """Agree with equality."""
        return self.canonical.__hash__()

    def __repr__(self) -> str:
        """Show the text."""
        return f"<{self.kind} {self.canonical}>"


def is_learned(node: Node) -> bool:
    """Return whether a node has a state of its own."""
    return isinstance(node, Call) and node.name == QUANTILE_BUCKET


def _learned(node: Node, schema: Schema) -> tuple[Expression, int]:
    assert isinstance(node, Call)
    number, parts = node.arguments
    assert isinstance(parts, Literal)
    return Expression(number, checked(number, schema), schema), int(parts.value)
