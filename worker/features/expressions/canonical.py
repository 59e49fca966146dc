"""The one way to write a tree: same meaning, same text, for the hash of a spec."""

from __future__ import annotations

from worker.features.expressions.syntax import COMPARISONS, Field, Literal, Node

_LEVELS: tuple[tuple[str, ...], ...] = (
    ("or",), ("and",), ("not",), (*COMPARISONS, "in"), ("+", "-"), ("*", "/", "%"), ("-x",),
)  # fmt: skip
_LEVEL = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs}
_HIGHEST = len(_LEVELS)


def text_of(node: Node) -> str:
    """Return a tree as text, with no more parentheses than it needs.

    >>> from worker.features.expressions.syntax import tree_of
    >>> text_of(tree_of("((hour( $time )<6.0)) or (not $a in(1,2))"))
    'hour($time) < 6 or not $a in [1, 2]'
    """
    if isinstance(node, Literal):
        return _literal(node.value)
    if isinstance(node, Field):
        return f"${node.name}"
    name, arguments = node.name, node.arguments
    if name not in _LEVEL:
        return f"{name}({', '.join(map(text_of, arguments))})"
    level = _LEVEL[name]
    if name == "not":
        return f"not {_within(arguments[0], level)}"
    if name == "-x":
        return f"-{_within(arguments[0], level)}"
    if name == "in":
        return f"{_within(arguments[0], level + 1)} in [{', '.join(map(text_of, arguments[1:]))}]"
    # Comparisons are not joined; all other operators take the left ones first.
    left = _within(arguments[0], level + (name in COMPARISONS))
    return f"{left} {name} {_within(arguments[1], level + 1)}"


def _within(node: Node, level: int) -> str:
    """Return the text of an operand of an operator of a level."""
    text = text_of(node)
    return text if _level(node) >= level else f"({text})"


def _level(node: Node) -> int:
    if isinstance(node, Literal | Field):
        return _HIGHEST
    return _LEVEL.get(node.name, _HIGHEST)


def _literal(value: float | str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return repr(value).removesuffix(".0")
