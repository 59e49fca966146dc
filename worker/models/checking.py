"""What a configuration gives a model: held against a preset's signature, and tried before it runs.

The signature of a preset is the one place that says what its parameters are: their types and ranges
are checked by it, and the table in the documentation is made of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import (
    Annotated,
    Any,  # values of a YAML file, and River's classes, which have no types
    Literal,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from worker.errors import Problem
from worker.models.river_model import kind_of

Path = tuple[str | int, ...]

Count = Annotated[int, Field(ge=1)]
AboveZero = Annotated[float, Field(gt=0)]
ZeroOrMore = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_KINDS = {int: "a whole number", float: "a number"}
_EXAMPLES = 8


def wrong_params(
    function: Callable[..., Any], params: Mapping[str, Any], path: Path
) -> list[Problem]:
    """Return a problem for each value that the function's annotations do not allow.

    A whole number is a number, a text or a boolean is not; numbers are finite. What the function
    has no parameter for is not judged.

    >>> def preset(*, lr: AboveZero, trees: Count = 10): ...
    >>> [problem] = wrong_params(preset, {"lr": 1, "trees": 2.5}, ("params",))
    >>> problem.path, problem.expected, problem.got
    (('params', 'trees'), 'a whole number of 1 or more', '2.5')
    """
    hints, words, found = _hints(function), param_words(function), []
    for key, value in params.items():
        if key not in hints:
            continue
        try:
            TypeAdapter(hints[key], config=_STRICT).validate_python(value)
        except ValidationError as error:
            place, wrong = _deepest(value, error)
            problem = Problem(
                (*path, key, *place), words[key], _told(wrong), _hint(words, key, wrong)
            )
            found.append(problem)
    return found


def param_words(function: Callable[..., Any]) -> dict[str, str]:
    """Return in words what each parameter of a function takes, by its annotations.

    >>> def preset(*, way: Literal["up", "down"], share: Share = 0.5): ...
    >>> param_words(preset)
    {'way': 'one of up, down', 'share': 'a number from 0 to 1'}
    """
    return {name: _words(hint) for name, hint in _hints(function).items()}


def failure(estimator: Any, names: tuple[str, ...]) -> str | None:
    """Return what an estimator fails of at each of a few examples, None if it works.

    It fails where no positive, no negative or no score ever works: one that does not like some
    numbers, or has to see a few first, is none. A copy learns them.

    >>> from river import naive_bayes
    >>> failure(naive_bayes.GaussianNB(), ("a", "b"))
    >>> failure(naive_bayes.BernoulliNB(alpha="x"), ("a",)).partition(":")[0]
    'TypeError'
    """
    estimator = copy.deepcopy(estimator)
    is_classifier = kind_of(estimator) == "classifier"
    tried: dict[str, list[str]] = {}
    for k in range(_EXAMPLES):
        x = {name: 1.0 + (7 * k + 3 * j + j * k) % 11 for j, name in enumerate(names)}
        y = bool(k % 2)
        told = (x, y) if is_classifier else (x,)
        tried.setdefault(f"learning {y}", []).append(_error(estimator.learn_one, *told))
        tried.setdefault("scoring", []).append(_error(_scored, estimator, x, is_classifier))
    return next((errors[-1] for errors in tried.values() if all(errors)), None)


def said(error: Exception) -> str:
    """Return what an estimator or its constructor raised, in one line.

    >>> said(ValueError("no such loss"))
    'ValueError: no such loss'
    """
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    kind, *extra = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    fields = [one for one in extra if isinstance(one, FieldInfo)]
    described = next((one.description for one in fields if one.description), None)
    bounds = {
        name: getattr(bound, name)
        for one in fields
        for bound in one.metadata
        for name in ("gt", "ge", "le")
        if hasattr(bound, name)
    }
    return described or _KINDS.get(kind, "") + _range_words(bounds)


def _range_words(bounds: Mapping[str, float]) -> str:
    """Return bounds in words, such as `` of 1 or more``."""
    if "gt" in bounds:
        return f" above {bounds['gt']:,}"
    if "le" in bounds:
        return f" from {bounds['ge']:,} to {bounds['le']:,}"
    return f" of {bounds['ge']:,} or more" if bounds else ""


def _deepest(value: Any, error: ValidationError) -> tuple[Path, Any]:
    """Return the place inside a value that is wrong, and what is there."""
    place: list[str | int] = []
    for step in error.errors(include_url=False)[0]["loc"]:
        is_item = isinstance(step, int) and isinstance(value, list | tuple)
        if is_item or (isinstance(value, Mapping) and step in value):
            place.append(step)
            value = value[step]
    return tuple(place), value


def _told(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}" if value else "an empty mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}" if value else "an empty list"
    return repr(value)


def _hint(words: Mapping[str, str], key: str, value: Any) -> str:
    if not isinstance(value, str) or "number" not in words[key]:
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    return "write it without quotes; what ${NAME} gives is a text"


def _error(function: Callable[..., Any], *arguments: Any) -> str:
    """Return in words what a call raised, empty if nothing."""
    try:
        function(*arguments)
    except MemoryError:
        raise
    except Exception as error:  # an estimator may fail in any way
        return said(error)
    return ""


def _scored(estimator: Any, x: dict[str, float], is_classifier: bool) -> None:
    """Score an event as `RiverModel` does; ValueError where that is no finite number."""
    if is_classifier:
        score = float(estimator.predict_proba_one(x).get(True, 0.0))
    else:
        score = float(estimator.score_one(x))
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")


__all__ = [
    "AboveZero", "Count", "Share", "ZeroOrMore", "failure", "param_words", "said", "wrong_params",
]  # fmt: skip
