"""A hash of an object's state that is equal on replicas, in any process and after any scoring."""

from __future__ import annotations

import copyreg
import functools
import hashlib
import random
import struct
import types
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any  # the objects are River's, which has few types

import numpy as np

_ATOMS = (bool, int, str, bytes, type(None), complex)
_NAN = struct.pack("<d", float("nan"))


def state_hash(*objects: Any) -> str:
    """Return a SHA-256 over the state of objects, to be compared, never to be loaded.

    Values are taken bit for bit (0.0 differs from -0.0, all NaN are one), dicts in their order,
    sets sorted. An entry of a defaultdict that equals its default counts as absent: River makes
    such entries when it only looks at a feature, so scoring would seem to change a model.

    Examples
    --------
    >>> from collections import defaultdict
    >>> looked_at = defaultdict(float)
    >>> looked_at["a"]
    0.0
    >>> state_hash(looked_at) == state_hash(defaultdict(float))
    True
    >>> state_hash([1.0]) == state_hash([1])
    False
    """
    walk = _Walk()
    for value in objects:
        walk.feed(value)
    return walk.digest.hexdigest()


class _Walk:
    """Feeds a tree of objects to a digest; what was met before is named by its number."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id may be given twice once its object is gone

    def feed(self, value: Any) -> None:
        """Add one object and all it holds."""
        if isinstance(value, float):
            self._token("float", _NAN if value != value else struct.pack("<d", value))
        elif type(value) in _ATOMS:
            self._token(type(value).__name__, repr(value).encode())
        elif isinstance(value, tuple):
            self._items("tuple", value)
        elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            self._token("name", f"{value.__module__}.{value.__qualname__}".encode())
        elif id(value) in self._numbers:
            self._token("again", str(self._numbers[id(value)]).encode())
        else:
            self._numbers[id(value)] = len(self._numbers)
            self._alive.append(value)
            self._container(value)

    def _token(self, kind: str, body: bytes) -> None:
        self.digest.update(f"{kind} {len(body)}:".encode())
        self.digest.update(body)

    def _items(self, kind: str, items: Iterable[Any]) -> None:
        values = list(items)
        self._token(kind, str(len(values)).encode())
        for value in values:
            self.feed(value)

    def _container(self, value: Any) -> None:
        if isinstance(value, defaultdict):
            self._defaultdict(value)
        elif isinstance(value, dict):
            self._items("dict", (part for item in value.items() for part in item))
        elif isinstance(value, (list, deque)):
            self._items(type(value).__name__, value)
        elif isinstance(value, (set, frozenset)):
            self._items("set", sorted(state_hash(item) for item in value))
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._token(f"array {value.dtype.str} {value.shape}", value.tobytes())
        else:
            self._object(value)

    def _defaultdict(self, value: defaultdict[Any, Any]) -> None:
        default = None
        if value.default_factory is not None:
            default = state_hash(value.default_factory())
        kept = [(k, v) for k, v in value.items() if default is None or state_hash(v) != default]
        self._items("dict", (part for item in kept for part in item))

    def _object(self, value: Any) -> None:
        kind = type(value)
        self._token("object", f"{kind.__module__}.{kind.__qualname__}".encode())
        if isinstance(value, random.Random):
            self.feed(value.getstate())
        elif isinstance(value, functools.partial):
            self.feed((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self.feed((value.__func__, value.__self__))
        elif _is_pipeline(kind):
            self.feed(list(value.steps.items()))  # its other attributes are caches of a plan
        else:
            self._reduced(value)

    def _reduced(self, value: Any) -> None:
        """Feed what pickle would write: arguments, state, list items, dict items."""
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self._token("global", reduced.encode())
            return
        maker, arguments, *rest = reduced
        if maker is not copyreg.__newobj__:  # type: ignore[attr-defined]
            self.feed(maker)
        self.feed(arguments)
        state, *iterators = [*rest, None, None, None][:3]
        if type(value).__module__.startswith("river.proba.") and isinstance(state, dict):
            # Distributions inside of trees and naive Bayes hold an unseeded generator, which
            # serves `sample` alone: neither scores nor learning draw from it.
            state = {k: v for k, v in state.items() if k != "_rng"}
        self.feed(state)
        for items in iterators:
            self._items("items", items or ())


def _is_pipeline(kind: type) -> bool:
    return kind.__module__ == "river.compose.pipeline" and kind.__qualname__ == "Pipeline"
