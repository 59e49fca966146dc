"""From the words of an expression to its tree, by a parser of one function per precedence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.features.expressions.tokens import ExpressionError, Token, tokens_of

DEPTH_MAX = 40
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_WORDS = ("and", "or", "not", "in", "true", "false")


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, a text, true or false."""

    value: float | str | bool
    column: int


@dataclass(frozen=True, slots=True)
class Field:
    """``$name``."""

    name: str
    column: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator with its operands; operators are named by their sign."""

    name: str
    arguments: tuple[Node, ...]
    column: int


Node = Literal | Field | Call


def tree_of(text: str) -> Node:
    """Return the tree of an expression. ``if`` and ``-x`` are calls like any other.

    Raises
    ------
    ExpressionError
        It is not one, is longer than 500 characters, or nests deeper than `DEPTH_MAX`.

    Examples
    --------
    >>> tree_of("hour($time) < 6").name
    '<'
    """
    return _Parser(tokens_of(text)).whole()


def parts_of(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    yield node
    if isinstance(node, Call):
        for argument in node.arguments:
            yield from parts_of(argument)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._nesting = 0

    def whole(self) -> Node:
        node = self._any()
        token = self._next
        if token.kind != "end":
            hint = "there are no powers: write $a * $a" if token.text == "*" else ""
            raise ExpressionError(token.column, "an operator or the end", token.shown, hint)
        _check_depth(node)
        return node

    def _any(self) -> Node:
        return self._chain(("or",), lambda: self._chain(("and",), self._negation))

    def _negation(self) -> Node:
        if self._next.text != "not":
            return self._comparison()
        token = self._take()
        return Call("not", (self._deeper(self._negation),), token.column)

    def _comparison(self) -> Node:
        left = self._sum()
        token = self._next
        if token.text in ("in", "not"):
            return self._membership(left)
        if token.text not in COMPARISONS:
            return left
        self._take()
        node = Call(token.text, (left, self._sum()), token.column)
        if self._next.text in COMPARISONS:
            hint = "join two comparisons by and"
            raise ExpressionError(self._next.column, "one comparison", self._next.shown, hint)
        return node

    def _membership(self, left: Node) -> Node:
        token = self._take()
        if token.text == "not":
            self._expect("in")
        close = {"[": "]", "(": ")"}.get(self._next.text)
        if close is None:
            expected = "a list such as [1, 2]"
            raise ExpressionError(self._next.column, expected, self._next.shown)
        self._take()
        node = Call("in", (left, *self._arguments(close)), token.column)
        return Call("not", (node,), token.column) if token.text == "not" else node

    def _sum(self) -> Node:
        return self._chain(("+", "-"), lambda: self._chain(("*", "/", "%"), self._signed))

    def _signed(self) -> Node:
        if self._next.text != "-" or self._next.kind != "sign":
            return self._primary()
        token = self._take()
        operand = self._deeper(self._signed)
        if isinstance(operand, Literal) and type(operand.value) is float:
            return Literal(-operand.value, token.column)
        return Call("-x", (operand,), token.column)

    def _primary(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return Literal(_number(token), token.column)
        if token.kind == "text":
            return Literal(_text(token), token.column)
        if token.kind == "field":
            return Field(token.text[1:], token.column)
        if token.text == "(":
            node = self._deeper(self._any)
            self._expect(")")
            return node
        if token.text in ("true", "false"):
            return Literal(token.text == "true", token.column)
        if token.kind != "name" or token.text in _WORDS:
            expected = "a field such as $amount, a function, a number or a text"
            raise ExpressionError(token.column, expected, token.shown)
        if self._next.text != "(":
            hint = f"a field is written ${token.text}, a text in quotes"
            raise ExpressionError(token.column, "a call such as hour($time)", token.shown, hint)
        self._take()
        return Call(token.text, self._arguments(")"), token.column)

    def _arguments(self, close: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while self._next.text != close or self._next.kind != "sign":
            if found:
                self._expect(",", close)
            found.append(self._deeper(self._any))
        self._take()
        return tuple(found)

    def _chain(self, signs: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        """Return operands joined by operators of one precedence, the left ones first."""
        node = operand()
        while self._next.text in signs and self._next.kind in ("sign", "name"):
            token = self._take()
            node = Call(token.text, (node, operand()), token.column)
        return node

    def _deeper(self, parse: Callable[[], Node]) -> Node:
        self._nesting += 1
        if self._nesting > DEPTH_MAX:
            raise _too_deep(self._next.column)
        node = parse()
        self._nesting -= 1
        return node

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _expect(self, *texts: str) -> None:
        token = self._next
        if token.text not in texts or token.kind not in ("sign", "name"):
            expected = " or ".join(f'"{text}"' for text in texts)
            hint = "there are no powers: write $a * $a" if token.text == "*" else ""
            raise ExpressionError(token.column, expected, token.shown, hint)
        self._take()


def _number(token: Token) -> float:
    value = float(token.text)
    if not math.isfinite(value):
        raise ExpressionError(token.column, "a finite number", token.shown)
    return value


def _text(token: Token) -> str:
    text = token.text[1:-1]
    if not text or not text.isprintable():
        hint = "" if text else "an empty text is missing: write is_missing(X)"
        raise ExpressionError(token.column, "a text of printable characters", token.shown, hint)
    return text


def _check_depth(node: Node) -> None:
    """Hold the depth of the tree within bounds: a long sum is deep as well."""
    level = [node]
    for _ in range(DEPTH_MAX):
        level = [a for one in level if isinstance(one, Call) for a in one.arguments]
    if level:
        raise _too_deep(level[0].column)


def _too_deep(column: int) -> ExpressionError:
    return ExpressionError(column, f"at most {DEPTH_MAX} levels", "a deeper one")
