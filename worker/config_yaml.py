"""YAML to plain values with the line of each: strict about what YAML leaves open.

Scalars follow YAML 1.2: ``NO`` is a text (Norway) and ``1:30`` is no number. Tags and merge keys
are not supported, an alias is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any  # plain values of a YAML file

import yaml

from worker.errors import Problem

Path = tuple[str | int, ...]

DEPTH_MAX = 50
VALUES_MAX = 100_000

_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)
_TEXT_TAG = "tag:yaml.org,2002:str"
_SAFE_TAGS = (_TEXT_TAG, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


@dataclass(slots=True)
class Document:
    """A YAML file as plain values.

    ``lines`` holds the line (from 1) of each path, of the key where there is one. ``secrets`` are
    the values that came from the environment; ``substituted`` are the paths that have them.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    substituted: set[Path] = field(default_factory=set)


def read_document(text: str, environ: Mapping[str, str]) -> Document:
    """Return the values of a YAML text; every mistake is in its ``problems``.

    ``${NAME}`` inside a text becomes the variable's value, which stays a text.

    >>> document = read_document("a: ${HOST}:9092\\nb: [10m, {c: 2}]", {"HOST": "h"})
    >>> document.value, document.lines[("b", 1, "c")]
    ({'a': 'h:9092', 'b': ['10m', {'c': 2}]}, 2)
    """
    document = Document(lines={(): 1})
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        _note_syntax(document, error)
    except RecursionError:
        document.problems.append(Problem((), f"at most {DEPTH_MAX} levels", "more"))
    else:
        reader = _Reader(document, environ)
        document.value = None if root is None else reader.value(root, ())
    return document


class _Reader:
    """Turns nodes into values, once through the tree."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._count = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        if len(path) > DEPTH_MAX or self._count > VALUES_MAX:
            # Aliases can make a small file endless; the first excess says so, once.
            if not any(p.expected.startswith("at most") for p in self._document.problems):
                expected = f"at most {DEPTH_MAX} levels and {VALUES_MAX} values"
                self._note(path[:DEPTH_MAX], expected, "more")
            return None
        if node.tag not in _SAFE_TAGS:
            self._note(path, "no YAML tag", node.tag.replace("tag:yaml.org,2002:", "!!"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), node
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self._document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.lines.setdefault(path, line)
                self._note(path, "a key that is a text", "a list or a mapping")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in found:
                first = self._document.lines[inner]
                self._document.lines[inner] = line
                self._note(inner, "each key once", "it again", f"first in line {first}")
                continue
            self._document.lines[inner] = line
            found[key] = self.value(value_node, inner)
        return found

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        is_plain = node.style is None
        value = _resolve(text) if is_plain else text
        return self._substituted(value, path) if isinstance(value, str) else value

    def _substituted(self, text: str, path: Path) -> str:
        def replaced(match: re.Match[str]) -> str:
            name = match[1]
            if not match[0].endswith("}") or not _VARIABLE_NAME.fullmatch(name):
                self._note(path, "${NAME} with the name of a variable", "another form of ${...}")
            elif name not in self._environ:
                hint = f"export {name}=..."
                self._note(path, f"the environment variable {name}", "nothing", hint)
            else:
                self._document.secrets.add(self._environ[name])
                self._document.substituted.add(path)
                return self._environ[name]
            return match[0]

        return _VARIABLE.sub(replaced, text)

    def _note(self, path: Path, expected: str, got: str, hint: str = "") -> None:
        self._document.problems.append(Problem(path, expected, got, hint))


def _resolve(text: str) -> Any:
    """Return a plain scalar as YAML 1.2 reads it (its core schema, without octal and hex)."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) <= 30:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    match = _NOT_FINITE.fullmatch(text)
    return float(match[1] + match[2]) if match else text


def _note_syntax(document: Document, error: yaml.YAMLError) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        document.lines[()] = mark.line + 1
    words = getattr(error, "problem", None) or "characters that YAML does not allow"
    hint = "" if mark is None else f"at column {mark.column + 1}"
    document.problems.append(Problem((), "YAML", str(words), hint))
