"""The words of an expression, and the one error that it can have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

LENGTH_MAX = 500
_PATTERN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.$"']))
      | (?P<field>\$[A-Za-z_][A-Za-z0-9_]*(?!\w))
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?!\w))
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<sign><=|>=|==|!=|[-+*/%<>()\[\],])""",
    re.VERBOSE,
)
_HINTS = {
    "=": "write == to compare",
    "&": "write and",
    "|": "write or",
    "!": "write not, or != to compare",
    "^": "there are no powers: write $a * $a",
    ".": "there are no attributes: a field is written $NAME",
    "$": "a field is written $NAME",
    '"': "a text ends with the quote it began with",
    "'": "a text ends with the quote it began with",
}


class ExpressionError(ValueError):
    """What is wrong with an expression: the first column of the place, from 1, and words."""

    def __init__(self, column: int, expected: str, got: str, hint: str = "") -> None:
        self.column, self.expected, self.hint = column, expected, hint
        self.got = f"{got} at column {column}"
        super().__init__(f"expected {expected}, got {self.got}" + (f" ({hint})" if hint else ""))


class Token(NamedTuple):
    """A word: ``kind`` is number, field, name, text, sign or end."""

    kind: str
    text: str
    column: int

    @property
    def shown(self) -> str:
        """Return the word as it is named in an error."""
        return "the end" if self.kind == "end" else shown(self.text)


def tokens_of(text: str) -> list[Token]:
    """Return the words of a text, the end last.

    Raises
    ------
    ExpressionError
        The text is longer than `LENGTH_MAX`, or has a character of no word.

    Examples
    --------
    >>> [token.text for token in tokens_of("hour($time) < 6")]
    ['hour', '(', '$time', ')', '<', '6', '']
    """
    if len(text) > LENGTH_MAX:
        raise ExpressionError(
            LENGTH_MAX + 1, f"at most {LENGTH_MAX} characters", f"{len(text)}, the first too many"
        )
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            expected = "a field such as $amount, a function, a number or a sign"
            raise ExpressionError(at + 1, expected, shown(text[at]), _HINTS.get(text[at], ""))
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup or "", match[0], at + 1))
        at = match.end()
    return [*found, Token("end", "", len(text) + 1)]


def shown(text: str) -> str:
    """Return a piece of an expression for an error: quoted, printable, short."""
    cut = text if len(text) <= 40 else text[:37] + "..."
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut) + '"'


def near(name: str, known: Iterable[str], sign: str = "") -> str:
    """Return a hint with the nearest known name, or nothing.

    >>> near("amuont", ["amount", "time"], "$"), near("x", ["amount"])
    ('did you mean $amount?', '')
    """
    found = get_close_matches(name, list(known), n=1)
    return f"did you mean {sign}{found[0]}?" if found else ""
