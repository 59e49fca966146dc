"""What a whole feature may be beside an expression: a column per class of something.

One class each, found through `CATEGORIES`. An event that has none of the classes, since its value
is missing or not declared, is 0 in all columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import xxhash

from worker.contracts.records import Int64
from worker.features.expressions.canonical import text_of
from worker.features.expressions.checking import Schema, Typed, checked
from worker.features.expressions.syntax import Call, Literal, Node
from worker.features.expressions.tokens import ExpressionError, shown
from worker.features.expressions.values import MISSING, Rows, codes_of

CLASSES_MAX = 1024
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of the first hash is lost


class Category:
    """Base of all categories."""

    name: ClassVar[str]
    usage: ClassVar[str]

    @staticmethod
    def typed(node: Call, schema: Schema) -> Typed:
        """Return the classes and their numbers; raise `ExpressionError` for other arguments."""
        raise NotImplementedError


class OneHot(Category):
    """A column per class of X, 1 where X has it: onehot(bucket($amount, 10, 50)).

    X is a category, a boolean, bucket(...), quantile_bucket(...), hour(...) or weekday(...). A
    category alone, $channel, is short for onehot($channel).
    """

    name = "onehot"
    usage = "onehot(X)"

    @staticmethod
    def typed(node: Call, schema: Schema) -> Typed:
        """Return the classes of the one argument."""
        (argument,) = _arguments(node, OneHot, 1)
        classes, codes = _classes(argument, schema)
        return Typed("category", codes, classes)


class Cross(Category):
    """A column per pair of a class of X and one of Y: cross($channel, is_night($time)).

    At most 1,024 pairs; beyond that hashed(X, Y, N) is the way.
    """

    name = "cross"
    usage = "cross(X, Y)"

    @staticmethod
    def typed(node: Call, schema: Schema) -> Typed:
        """Return all pairs; the classes of the second argument vary first."""
        first, second = _arguments(node, Cross, 2)
        a, codes_a = _classes(first, schema)
        b, codes_b = _classes(second, schema)
        if len(a) * len(b) > CLASSES_MAX:
            hint = f"write hashed({text_of(first)}, {text_of(second)}, 256)"
            expected = f"at most {CLASSES_MAX} pairs"
            raise ExpressionError(node.column, expected, str(len(a) * len(b)), hint)

        def codes(rows: Rows) -> Int64:
            x, y = codes_a(rows), codes_b(rows)
            known = (x >= 0) & (x < len(a)) & (y >= 0) & (y < len(b))
            return np.where(known, x * len(b) + y, MISSING)

        return Typed("category", codes, tuple(f"{one},{other}" for one in a for other in b))


class Hashed(Category):
    """N columns, of which the hash of X chooses one: hashed($merchant, 16); N from 2 to 1,024.

    X is a text, a number or a boolean; with two, hashed(X, Y, N), the pair is
    hashed. Values may share a column. A category's undeclared values share one hash.
    """

    name = "hashed"
    usage = "hashed(X, N) or hashed(X, Y, N)"

    @staticmethod
    def typed(node: Call, schema: Schema) -> Typed:
        """Return N classes; xxh3 of the text of each value, of two mixed by a product."""
        *arguments, size = _arguments(node, Hashed, 2, 3)
        if not (
            isinstance(size, Literal) and type(size.value) is float
            and size.value.is_integer() and 2 <= size.value <= CLASSES_MAX
        ):  # fmt: skip
            expected = f"a number of columns from 2 to {CLASSES_MAX}"
            raise ExpressionError(size.column, expected, shown(text_of(size)))
        count = int(size.value)
        hashes = [_hashes(argument, schema) for argument in arguments]

        def codes(rows: Rows) -> Int64:
            mixed, missing = hashes[0](rows)
            for more in hashes[1:]:
                other, lacks = more(rows)
                mixed = (mixed * _MULTIPLIER) ^ other
                mixed = mixed ^ (mixed >> np.uint64(32))
                missing = missing | lacks
            return np.where(missing, MISSING, (mixed % np.uint64(count)).astype(np.int64))

        return Typed("category", codes, tuple(f"#{i}" for i in range(count)))


CATEGORIES: dict[str, type[Category]] = {c.name: c for c in (OneHot, Cross, Hashed)}
"""Every category by its name in a feature."""


def _arguments(node: Call, kind: type[Category], *counts: int) -> tuple[Node, ...]:
    if len(node.arguments) not in counts:
        got = f"{len(node.arguments)} arguments"
        raise ExpressionError(node.column, kind.usage, got)
    return node.arguments


def _classes(node: Node, schema: Schema) -> tuple[tuple[str, ...], Callable[[Rows], Int64]]:
    typed = checked(node, schema)
    if not typed.classes:
        expected = "a category, a boolean, bucket(...), hour(...) or weekday(...)"
        hint = "hashed(X, N) takes any text" if typed.kind == "text" else "bucket(X, 10, 50)"
        raise ExpressionError(node.column, expected, shown(text_of(node)), hint)
    return typed.classes, _codes(typed)


def _codes(typed: Typed) -> Callable[[Rows], Int64]:
    if typed.codes is not None:
        return typed.codes
    return lambda rows: codes_of(typed.run(rows))


def _hashes(node: Node, schema: Schema) -> Callable[[Rows], tuple[np.ndarray, np.ndarray]]:
    """Return a function that gives the hash of each value, and which values are missing."""
    typed = checked(node, schema)
    if typed.kind == "text":
        return lambda rows: _text_hashes(typed.run(rows))
    if typed.kind == "number":
        return lambda rows: _number_hashes(typed.run(rows))
    if not typed.classes:
        expected = "a text, a number or a boolean"
        raise ExpressionError(node.column, expected, f"{shown(text_of(node))}, a {typed.kind}")
    codes = _codes(typed)
    return lambda rows: _number_hashes(np.where((c := codes(rows)) == MISSING, np.nan, c))


def _text_hashes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    texts = np.atleast_1d(values).tolist()
    found = [xxhash.xxh3_64_intdigest(text.encode()) for text in texts]
    return np.array(found, np.uint64), np.array([not text for text in texts], np.bool_)


def _number_hashes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.atleast_1d(values) + 0.0  # so that -0.0 is 0.0
    found = [xxhash.xxh3_64_intdigest(number.tobytes()) for number in numbers]
    return np.array(found, np.uint64), np.isnan(numbers)
