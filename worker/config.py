"""One configuration file to settings: every mistake at once, each with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.config_lists import with_list_files
from worker.config_problems import problems_of
from worker.config_repair import repaired
from worker.config_rules import semantic_problems
from worker.config_yaml import Document, read_document
from worker.contracts.settings import Settings
from worker.errors import ConfigError, Problem

Check = Callable[[Settings], object]

_SECRET_LENGTH_MIN, _SECRET_LENGTH_LONG = 3, 8
_HIDDEN = "***"
# A value at such a key never appears in a message, wherever it came from.
_SECRET_KEY = re.compile(r"passw|secret|token|credential|^url$", re.IGNORECASE)
_URL_WITH_PASSWORD = re.compile(r"://[^/@]*:[^/@]+@")


def load_settings(path: Path, environ: Mapping[str, str], checks: Sequence[Check] = ()) -> Settings:
    """Return the settings in a YAML file.

    Parameters
    ----------
    path
        The file.
    environ
        Where ``${NAME}`` inside a text is looked up; nothing else is expanded.
    checks
        Further checks of the settings that raise `ConfigError`, for example the compilation of
        features. They also run when something else is wrong, on what can be made of the file, so
        that their problems come with all others.

    Raises
    ------
    ConfigError
        With all problems found, one per line of its text: correct the file.
    """
    document = read_document(_text(path), environ)
    problems = list(document.problems)
    settings: Settings | None = None
    if not problems or document.value is not None:
        settings = _settings(document, path, problems, checks)
    if problems or settings is None:
        clean = [_without_secrets(problem, document) for problem in problems]
        clean.sort(key=lambda problem: _line(document.lines, problem.path))
        raise ConfigError(render_problems(path, document.lines, clean), clean)
    return settings


def render_problems(
    path: Path, lines: Mapping[tuple[str | int, ...], int], problems: Sequence[Problem]
) -> str:
    """Return one line of text per problem: file, line, place, expected, got and a hint.

    >>> place = ("features", "card", "mean(amount)", "windows", 1)
    >>> problem = Problem(place, "a duration such as 10m or 7d", '"7 dayz"')
    >>> print(render_problems(Path("cards.yaml"), {place: 31}, [problem]))
    cards.yaml:31 features.card.mean(amount).windows[1]: expected a duration such as 10m or 7d, got "7 dayz"
    """  # noqa: E501  # the example shows one whole line
    return "\n".join(
        _one_line(ConfigError(
            f"{path}:{_line(lines, problem.path)} {_dotted(problem.path)}".rstrip(),
            expected=problem.expected, got=problem.got, hint=problem.hint,
        ))
        for problem in problems
    )  # fmt: skip


def _one_line(error: ConfigError) -> str:
    """Return the text of an error with what cannot be printed, such as a line break, escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(error))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(path), expected="a file that can be read", got=error.strerror or ""
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), expected="UTF-8", got=f"another byte at position {error.start}"
        ) from None


def _settings(
    document: Document, path: Path, problems: list[Problem], checks: Sequence[Check]
) -> Settings | None:
    """Return the settings, or what can be made of them, and add what is wrong to ``problems``."""
    raw: Any = {} if document.value is None else document.value
    broken: set[str] = set()
    settings: Settings | None
    raw = with_list_files(raw, path.parent, problems)
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        _add(problems, problems_of(error, raw), broken)
        settings, broken = repaired(raw)
    problems += _literal_secrets(document)
    if settings is not None:
        _add(problems, semantic_problems(settings), broken)
        for check in checks:
            _add(problems, _problems_of_check(check, settings, bool(problems)), broken)
    return settings


def _problems_of_check(check: Check, settings: Settings, is_wrong: bool) -> list[Problem]:
    """Return what a check finds. On settings that are wrong anyway it may fail in any way."""
    try:
        check(settings)
    except ConfigError as error:
        return error.problems or [Problem((), str(error), "")]
    except Exception:
        if not is_wrong:
            raise
    return []


def _add(problems: list[Problem], found: Sequence[Problem], broken: set[str]) -> None:
    """Add problems of a later stage unless an earlier one is their likely cause.

    That is so below the place of an earlier problem, in the section that has one among its own
    keys, and where a broken field, entity or model is what came, or has the very place: better to
    say less than to mislead.
    """
    paths = {problem.path for problem in problems}
    sections = {path[:-1] for path in paths if len(path) > 1}
    for problem in found:
        prefixes = {problem.path[:end] for end in range(1, len(problem.path) + 1)}
        words = set(re.findall(r"\w+", f"{problem.path[-1:]} {problem.got}"))
        if not (prefixes & paths or problem.path in sections or words & broken):
            problems.append(problem)


def _literal_secrets(document: Document) -> list[Problem]:
    """Return the secrets that are written in the file instead of taken from the environment."""
    expected, hint = "a secret from the environment", "write ${NAME} and export NAME"
    found = []
    for path, is_secret in (
        (("stream", "sasl_password"), _is_written),
        (("store", "url"), _URL_WITH_PASSWORD.search),
        (("snapshots", "key"), _is_written),
    ):
        value = _at(document.value, path)
        if isinstance(value, str) and is_secret(value) and path not in document.substituted:
            found.append(Problem(path, expected, "one written here", hint))
    return found


def _is_written(text: str) -> bool:
    """Return whether a text stands for itself; a variable that is not set is a problem already."""
    return bool(text) and "${" not in text


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _without_secrets(problem: Problem, document: Document) -> Problem:
    is_secret = problem.path in document.substituted or any(
        isinstance(part, str) and _SECRET_KEY.search(part) for part in problem.path[-1:]
    )
    got = "a hidden value" if is_secret and problem.got[:1] in "\"'-0123456789" else problem.got
    words = [problem.expected, got, problem.hint]
    for secret in sorted(document.secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_LENGTH_MIN:
            pattern = re.escape(secret)
            if len(secret) < _SECRET_LENGTH_LONG and problem.path not in document.substituted:
                pattern = rf"(?<!\w){pattern}(?!\w)"  # such a name may be part of any word
            words = [re.sub(pattern, _HIDDEN, word) for word in words]
    return Problem(problem.path, *words)


def _line(lines: Mapping[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int:
    """Return the line of a place, or of the nearest place around it that the file has."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return lines.get((), 1)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
