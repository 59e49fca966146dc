"""What pydantic says about a configuration, in the house form: expected, got, hint."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from worker.contracts.settings import Section, Settings
from worker.errors import Problem

Path = tuple[str | int, ...]

_GOT_LENGTH_MAX = 60
_PATTERNS = {
    r"^[A-Za-z_][A-Za-z0-9_]*$": "a name of letters, digits and _ that begins with no digit",
    r"^[A-Za-z0-9._-]{1,249}$": "a topic: 1 to 249 letters, digits, dots, _ or -",
    r"^[a-z][a-z0-9-]{0,62}$": "at most 63 lower-case letters, digits or -, a letter first",
}
# By the beginning of pydantic's error type; the bounds are in the error's context.
_EXPECTED = {
    "missing": "a value",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_long": "at most {max_length} characters",
    "finite_number": "a finite number",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "dict": "a mapping",
    "model": "a mapping",
    "tuple": "a list",
    "list": "a list",
}


def problems_of(error: ValidationError, raw: object) -> list[Problem]:
    """Return one problem per place; alternatives of a union are joined by ``or``.

    ``raw`` is what was validated: it tells keys of the file from words that pydantic adds.
    """
    found: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False):
        problem = _problem(detail, raw)
        known = found.get(problem.path)
        if known is not None and problem.expected not in known.expected.split(" or "):
            joined = f"{known.expected} or {problem.expected}"
            problem = Problem(known.path, joined, known.got, known.hint)
        found[problem.path] = problem if known is None or problem.got == known.got else known
    return list(found.values())


def near(word: object, known: Iterable[str]) -> str:
    """Return a hint with the known word that is nearest, or with all of them if they are few.

    >>> near("treshold", ["threshold", "alert_rate"])
    'did you mean threshold?'
    """
    words = list(known)
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(words)}" if 0 < len(words) <= 12 else ""


def shown(value: object) -> str:
    """Return a value for a message: texts in quotes, collections by their kind.

    >>> shown("7 dayz"), shown(None), shown([1, 2])
    ('"7 dayz"', 'nothing', 'a list')
    """
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _GOT_LENGTH_MAX else f"{text[:_GOT_LENGTH_MAX]}..."


def section_at(path: Path) -> type[Section] | None:
    """Return the section that lies at a path of a file, or None where there is none.

    Of several kinds of a section (Kafka or memory) it is the first.
    """
    kind: Any = Settings
    for part in path:
        section = _section(kind)
        if section is not None:
            declared = section.model_fields.get(str(part))
            kind = None if declared is None else declared.annotation
        else:
            kind = _values_of(kind)
    return _section(kind)


def _problem(detail: Any, raw: object) -> Problem:
    """Translate one entry of ``ValidationError.errors()``; Any: pydantic's own typed dict."""
    kind, context = str(detail["type"]), detail.get("ctx") or {}
    path = _path_in(raw, tuple(detail["loc"]), kind)
    got = shown(detail.get("input"))
    if kind == "missing":
        return Problem(path, "a value", "nothing", _description(path))
    if kind == "extra_forbidden":
        section = section_at(path[:-1])
        hint = near(path[-1], section.model_fields) if section else ""
        return Problem(path, "a known key", shown(path[-1]), hint)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = _words(context.get("expected_tags", "'kafka', 'redis' or 'memory'"))
        tag = context.get("tag")
        return Problem((*path, "kind"), _one_of(tags), shown(tag), near(tag, tags) if tag else "")
    if kind == "literal_error":
        words = _words(context["expected"])
        given = path[-1] if detail["loc"][-1] == "[key]" else detail.get("input")
        hint = near(given, words).replace(f"there are {', '.join(words)}", "")
        return Problem(path, _one_of(words), shown(given), hint)
    return Problem(path, _expected(kind, context, str(detail["msg"])), got)


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"a text like {context['pattern']}")
    words = _EXPECTED.get(kind) or _EXPECTED.get(kind.split("_")[0])
    return words.format(**context) if words else message[:1].lower() + message[1:]


def _path_in(raw: object, location: Path, kind: str) -> Path:
    """Return pydantic's location without the names of the types that it tried."""
    path: list[str | int] = []
    here = raw
    for i, part in enumerate(location):
        is_last = i == len(location) - 1
        if _has(here, part):
            here = here[part]  # type: ignore[index]  # it has the part
        elif not (is_last and kind == "missing"):
            continue
        path.append(part)
    return tuple(path)


def _has(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _description(path: Path) -> str:
    section = section_at(path[:-1])
    declared = section.model_fields.get(str(path[-1])) if section else None
    return (declared.description or "") if declared else ""


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _section(kind: Any) -> type[Section] | None:
    """Return the section that an annotation stands for, the first one of a union."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    if get_origin(kind) in (Union, UnionType, Annotated):
        found = (_section(one) for one in get_args(kind))
        return next((section for section in found if section is not None), None)
    return None


def _values_of(kind: Any) -> Any:
    """Return the annotation of a mapping's values, or of a list's items."""
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return get_args(kind)[0] if get_origin(kind) is tuple else None
