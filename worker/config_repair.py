"""What can be made of a file that is wrong, so that later checks can report their part too."""

from __future__ import annotations

import copy
from typing import Any  # plain values of a YAML file

from pydantic import ValidationError

from worker.config_problems import problems_of, section_at
from worker.contracts.settings import Settings

Path = tuple[str | int, ...]

_ROUNDS_MAX = 6
# Collections whose items are dropped as a whole when a needed part of one is wrong.
_COLLECTIONS: tuple[Path, ...] = (("events", "fields"), ("entities",), ("models",))
# Options of such items that no other section asks for: without them nothing else becomes wrong.
_BOUNDS = ("min", "max", "ring")
_STAND_INS: dict[Path, Any] = {
    ("name",): "config",
    ("events", "topic"): "events",
    ("events", "time", "unit"): "iso",
    ("features",): {},
    ("models",): {"model": {"preset": "logistic"}},
    ("decision",): {"model": "model", "threshold": 0.5},
}


def repaired(raw: object) -> tuple[Settings | None, set[str]]:
    """Return settings without the wrong parts, and the names of fields, entities and models lost.

    None where too much is wrong to go on. The result serves to find further problems, never to run.
    """
    value = copy.deepcopy(raw)
    broken: set[str] = set()
    for _ in range(_ROUNDS_MAX):
        try:
            return Settings.model_validate(value), broken
        except ValidationError as error:
            paths = [problem.path for problem in problems_of(error, value)]
        # Two problems may lie in one part, which can be taken away only once.
        repairs = [_repair(value, path, broken) for path in paths]
        if not any(repairs):
            break
    return None, broken


def _repair(value: Any, path: Path, broken: set[str]) -> bool:
    """Take the wrong part at a path away, or put a stand-in there; return whether that helps."""
    if not isinstance(value, dict) or not path:
        return False
    item = _item_of(path)
    if item is not None and path[-1] not in _BOUNDS:
        broken.add(str(item[-1]))
    stand_in = _stand_in(value, path)
    if stand_in is not None:
        return _put(value, path, stand_in)
    if item is not None:
        return _drop(value, path if _is_optional(path) else item)
    return _drop(value, path) or _drop_around(value, path)


def _drop_around(value: Any, path: Path) -> bool:
    """Delete the nearest section that need not be there and lacks what is missing at a path."""
    around = (path[:end] for end in range(len(path) - 1, 0, -1))
    return any(_is_optional(section) and _drop(value, section) for section in around)


def _stand_in(value: dict[str, Any], path: Path) -> Any:
    """Return a value for a required place that causes no further problem, or None."""
    try:
        if path == ("decision", "model"):
            return next(iter(value["models"]))
        if path in (("events", "id"), ("events", "key")):
            keys = (entity["key"] for entity in value["entities"].values())
            return next(key for key in keys if isinstance(key, str))
        if path in (("events", "time"), ("events", "time", "field")):
            fields = value["events"]["fields"].items()
            name = next(name for name, declared in fields if "timestamp" in str(declared))
            return name if path[-1] == "field" else {"field": name}
        if path[0] == "entities" and (len(path) == 2 or path[2:] == ("key",)):
            key = value["events"]["key"]
            others = (one for name, one in value["entities"].items() if name != path[1])
            is_primary = all(one["key"] != key for one in others)
            return (key if len(path) == 3 else {"key": key}) if is_primary else None
    except (AttributeError, KeyError, StopIteration, TypeError):
        return None
    return copy.deepcopy(_STAND_INS.get(path))


def _item_of(path: Path) -> Path | None:
    for collection in _COLLECTIONS:
        length = len(collection)
        if path[:length] == collection and len(path) > length:
            return path[: length + 1]
    return None


def _is_optional(path: Path) -> bool:
    """Return whether a section stays valid without the key at a path; unknown keys are optional."""
    section = section_at(path[:-1])
    declared = section.model_fields.get(str(path[-1])) if section else None
    return section is not None and (declared is None or not declared.is_required())


def _drop(value: Any, path: Path) -> bool:
    """Delete what is at a path, or the nearest that holds it; False if nothing is there."""
    parent = _parent(value, path)
    if isinstance(parent, dict) and path[-1] in parent:
        del parent[path[-1]]
        return True
    return False


def _put(value: Any, path: Path, stand_in: Any) -> bool:
    parent = _parent(value, path)
    if not isinstance(parent, dict):
        return False
    parent[path[-1]] = stand_in
    return True


def _parent(value: Any, path: Path) -> Any:
    for part in path[:-1]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value
