"""From a tree to something that runs: names looked up, kinds checked, constants read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worker.contracts.settings import FieldSettings
from worker.features.expressions.canonical import text_of
from worker.features.expressions.function import Form, Function
from worker.features.expressions.functions import FUNCTIONS, OPERATORS
from worker.features.expressions.syntax import Call, Field, Literal, Node
from worker.features.expressions.tokens import ExpressionError, near, shown
from worker.features.expressions.values import (
    FALSE,
    MISSING,
    TRUE,
    Rows,
    Values,
    numbers_of,
    texts_of,
    truth,
)
from worker.features.expressions.zones import UTC, zone_names, zone_of
from worker.features.scales import scale_of

KIND_OF_TYPE = {
    "integer": "number", "float": "number", "decimal": "number", "boolean": "boolean",
    "string": "text", "category": "text", "timestamp": "time",
}  # fmt: skip
QUANTILE_BUCKET = "quantile_bucket"
PARTS = range(2, 101)
_CONSTANTS = {"constant": float, "label": str, "zone": str}


@dataclass(frozen=True, slots=True)
class Schema:
    """The declared fields, the one that is ``$time``, and the time zone of the calendar.

    ``learns`` allows what has a state of its own, `quantile_bucket`.
    """

    fields: Mapping[str, FieldSettings]
    time: str
    timezone: str = "UTC"
    learns: bool = False


@dataclass(frozen=True, slots=True)
class Typed:
    """A checked tree. ``classes`` names its few values; ``codes`` gives their numbers."""

    kind: str
    run: Callable[[Rows], Values]
    classes: tuple[str, ...] = ()
    codes: Callable[[Rows], Values] | None = None


def checked(node: Node, schema: Schema) -> Typed:
    """Return what runs.

    Raises
    ------
    ExpressionError
        A name that is not declared, or an argument of another kind.
    """
    if isinstance(node, Literal):
        return _literal(node)
    if isinstance(node, Field):
        return _field(node, schema)
    if node.name == QUANTILE_BUCKET:
        return _quantile_bucket(node, schema)
    function = FUNCTIONS.get(node.name) or OPERATORS.get(node.name)
    if function is None:
        raise ExpressionError(
            node.column, "a function: " + ", ".join(FUNCTIONS), shown(node.name),
            near(node.name, FUNCTIONS),
        )  # fmt: skip
    if node.name in ("==", "!=", "in") and (typed := _category_test(node, schema)):
        return typed
    return _call(node, function, schema)


def with_zones(node: Node, schema: Schema) -> Node:
    """Return a tree whose calls of the calendar name their time zone, unless that is UTC."""
    if not isinstance(node, Call):
        return node
    arguments = tuple(with_zones(argument, schema) for argument in node.arguments)
    function = FUNCTIONS.get(node.name)
    if function is not None and function.takes_zone:
        if len(arguments) == 1 and schema.timezone != "UTC":
            arguments = (*arguments, Literal(schema.timezone, node.column))
        if len(arguments) == 2 and getattr(arguments[1], "value", None) == "UTC":
            arguments = arguments[:1]
    return Call(node.name, arguments, node.column)


def zone_name(node: Node) -> str:
    """Return the time zone that a call of the calendar names, or nothing.

    >>> zone_name(Call("hour", (Field("time", 6), Literal("Asia/Tokyo", 13)), 1))
    'Asia/Tokyo'
    """
    if not isinstance(node, Call) or len(node.arguments) < 2 or node.name not in FUNCTIONS:
        return ""
    zone = node.arguments[1]
    return str(zone.value) if FUNCTIONS[node.name].takes_zone and isinstance(zone, Literal) else ""


def _quantile_bucket(node: Call, schema: Schema) -> Typed:
    """Return a column that is derived from the events before; see `worker.features.learned`."""
    if not schema.learns:
        raise ExpressionError(node.column, "a function without memory", QUANTILE_BUCKET)
    number, parts = node.arguments if len(node.arguments) == 2 else (None, None)
    if (
        number is None
        or checked(number, replace(schema, learns=False)).kind != "number"
        or not isinstance(parts, Literal)
        or parts.value not in PARTS
    ):
        expected = f"quantile_bucket(number, N), N from {PARTS[0]} to {PARTS[-1]}"
        raise ExpressionError(node.column, expected, shown(text_of(node)))
    name = text_of(node)
    classes = tuple(f"q{i}" for i in range(int(parts.value)))
    return Typed("number", lambda rows: rows.derived[name], classes)


def _literal(node: Literal) -> Typed:
    value = node.value
    if isinstance(value, bool):
        held = np.int8(TRUE if value else FALSE)
        return Typed("boolean", lambda _: held)
    if isinstance(value, str):
        return Typed("text", lambda _: np.array(value, np.object_))
    number = np.float64(value)
    return Typed("number", lambda _: number)


def _field(node: Field, schema: Schema) -> Typed:
    name = node.name
    declared = schema.fields.get(name)
    if name == "time" and (declared is None or schema.time == "time"):
        return Typed("time", lambda rows: rows.events.time_ms)
    if name == "time":
        hint = f"${schema.time} is the event time; rename the other field"
        raise ExpressionError(node.column, "a name that is not ambiguous", '"$time"', hint)
    if declared is None:
        hint = near(name, [*schema.fields, "time"], "$")
        raise ExpressionError(node.column, "a declared field", shown("$" + name), hint)
    return _leaf(name, declared)


def _leaf(name: str, declared: FieldSettings) -> Typed:
    def column(rows: Rows) -> Any:
        return rows.events.columns[name]

    kind = KIND_OF_TYPE[declared.type]
    if kind == "number":
        multiply, divide = scale_of(declared.resolution if declared.type == "decimal" else None)
        return Typed(kind, lambda rows: numbers_of(column(rows), multiply, divide))
    if kind == "boolean":
        return Typed(kind, lambda rows: truth(column(rows) == 1, column(rows) == MISSING),
                     ("false", "true"))  # fmt: skip
    if declared.type == "category":
        values = declared.values or ()
        # A missing value is far below 0: cut to -1, it finds the last of these.
        names = np.array([*values, _OTHER, ""], np.object_)
        return Typed(kind, lambda rows: names[np.maximum(column(rows), -1)], values, column)
    return Typed(kind, (lambda rows: texts_of(column(rows))) if kind == "text" else column)


# Stands for every value that is not declared; no text in an expression has such a character.
_OTHER = "\x00"


def _category_test(node: Call, schema: Schema) -> Typed | None:
    """Return a test of a category against texts, by number; None where it is not one."""
    arguments = node.arguments
    if not arguments[1:]:
        return None
    if node.name != "in" and isinstance(arguments[0], Literal):
        arguments = arguments[::-1]
    field, *labels = arguments
    declared = schema.fields.get(field.name) if isinstance(field, Field) else None
    if declared is None or declared.type != "category" or not all(map(_is_text, labels)):
        return None
    assert isinstance(field, Field)
    values = list(declared.values or ())
    numbers = [_class_number(label, field.name, values) for label in labels]
    name, wanted = field.name, node.name != "!="

    def run(rows: Rows) -> Values:
        column = rows.events.columns[name]
        assert isinstance(column, np.ndarray), name
        found = column == numbers[0]
        for number in numbers[1:]:
            found |= column == number
        return truth(found == wanted, column == MISSING)

    return Typed("boolean", run, ("false", "true"))


def _is_text(node: Node) -> bool:
    return isinstance(node, Literal) and isinstance(node.value, str)


def _class_number(label: Node, name: str, values: list[str]) -> int:
    assert isinstance(label, Literal)
    text = str(label.value)
    if text not in values:
        known = ", ".join(values[:8]) + (", ..." if len(values) > 8 else "")
        expected = f"a declared value of ${name} ({known})"
        raise ExpressionError(label.column, expected, shown(text), near(text, values))
    return values.index(text)


def _call(node: Call, function: type[Function], schema: Schema) -> Typed:
    typed = [checked(argument, schema) for argument in node.arguments]
    for form in function.forms:
        kinds = _kinds(form[0], len(typed))
        if kinds is not None and all(map(_fits, kinds, node.arguments, typed)):
            return _running(node, function, form, kinds, typed)
    raise ExpressionError(
        node.column, " or ".join(_usage(function)), _shown_call(node, typed), _hint(node, typed)
    )


def _running(
    node: Call,
    function: type[Function],
    form: Form,
    kinds: tuple[str, ...],
    typed: list[Typed],
) -> Typed:
    constants = [
        _constant(argument, kind)
        for argument, kind in zip(node.arguments, kinds, strict=True)
        if kind in _CONSTANTS
    ]
    if function.name in ("clip", "bucket"):
        _check_ascending(node, constants)
    if function.takes_zone:
        constants = constants or [UTC]
    runs = [one.run for one, kind in zip(typed, kinds, strict=True) if kind not in _CONSTANTS]
    run, rest = function.run, tuple(constants)
    classes = function.classes(rest) if form[1] == "number" else ("false", "true")
    if len(runs) == 1:
        only = runs[0]
        return Typed(form[1], lambda rows: run(only(rows), *rest), classes)
    return Typed(form[1], lambda rows: run(*(one(rows) for one in runs), *rest), classes)


def _kinds(form: tuple[str, ...], count: int) -> tuple[str, ...] | None:
    """Return the kinds of ``count`` arguments, or None where the form has another number."""
    if form[-1] == "...":
        kinds = form[:-1]
        return kinds + kinds[-1:] * (count - len(kinds)) if count >= len(kinds) else None
    return form if count == len(form) else None


def _fits(kind: str, node: Node, typed: Typed) -> bool:
    if kind not in _CONSTANTS:
        return typed.kind == kind
    return isinstance(node, Literal) and type(node.value) is _CONSTANTS[kind]


def _constant(node: Node, kind: str) -> Any:
    assert isinstance(node, Literal)
    if kind != "zone":
        return node.value
    name = str(node.value)
    try:
        return zone_of(name)
    except LookupError:
        hint = near(name, zone_names())
        expected = "a time zone such as Europe/Paris"
        raise ExpressionError(node.column, expected, shown(name), hint) from None


def _check_ascending(node: Call, numbers: list[float]) -> None:
    for i in range(1, len(numbers)):
        if not numbers[i - 1] < numbers[i]:
            argument = node.arguments[len(node.arguments) - len(numbers) + i]
            got = f"{numbers[i]:g} after {numbers[i - 1]:g}"
            raise ExpressionError(argument.column, "numbers that ascend", got)


def _usage(function: type[Function]) -> list[str]:
    words = []
    for kinds, _ in function.forms:
        shown_kinds = ["a number written out" if k == "constant" else
                       "a text written out" if k == "label" else k for k in kinds]  # fmt: skip
        words.append(_written(function.name, shown_kinds))
    return words


def _shown_call(node: Call, typed: list[Typed]) -> str:
    return _written(node.name, [one.kind for one in typed])


def _written(name: str, operands: list[str]) -> str:
    """Return a call as it is written.

    >>> _written("+", ["number", "text"]), _written("log", []), _written("not", ["number"])
    ('number + text', 'log()', 'not number')
    """
    if name in FUNCTIONS or not operands:
        return f"{name}({', '.join(operands)})"
    if name == "in":
        return f"{operands[0]} in [{', '.join(operands[1:])}]"
    sign = "-" if name == "-x" else name
    return f" {sign} ".join(operands) if len(operands) > 1 else f"{sign} {operands[0]}"


def _hint(node: Call, typed: list[Typed]) -> str:
    kinds = [one.kind for one in typed]
    if node.name in ("+", "-", "*", "/") and "boolean" in kinds:
        return "a boolean as a number is if(X, 1, 0)"
    if node.name in ("and", "or", "not", "if") and "number" in kinds:
        return "a number is no condition: write X > 0"
    if "time" in kinds and len(set(kinds)) > 1:
        return "the difference of two times is in seconds"
    return ""
