"""Objects of River as plain values, and back: no pickle, and no class but those on a list.

Reading follows what `copy.copy` does: a class is called without its ``__init__``, attributes are
set, items are added. A class or function that data names is looked up by `allowed` alone.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import copyreg
import functools
import importlib
import random
import types
from collections.abc import Callable
from typing import Any  # plain values nest, and River's objects have no common type

import numpy as np

from worker.errors import StateLostError
from worker.models.plain import State

_ATOMS = (bool, float, str, bytes, type(None))
_BUILTINS: dict[str, Any] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (
        bool, int, float, str, tuple, list, dict, set, frozenset, object, type(None),
        collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque,
        random.Random, copy.deepcopy,
    )
}  # fmt: skip
_OWN = frozenset(
    {
        "worker.models.bins.LearnedBins", "worker.models.blend.Blend",
        "worker.models.causes.Causes", "worker.models.distance.RobustDistance",
        "worker.models.grown_bins.GrownBins", "worker.models.grown_bins.Sample",
        "worker.models.sampled_scaler.SampledScaler", "worker.models.series.Series",
    }
)  # fmt: skip
_REFUSED = ("river.datasets", "river.checks", "river.test", "river.dev", "river.dummy")


def to_plain(value: Any) -> State:
    """Return an object and all it holds as plain values: shared parts once, cycles kept.

    Raises
    ------
    TypeError
        It holds something that has no plain form: a lambda, or an object of a class which is
        neither River's nor a plain container. Such a model has no snapshots.

    Examples
    --------
    >>> from river import linear_model
    >>> from worker.models.plain import pack, unpack
    >>> model = linear_model.LogisticRegression()
    >>> model.learn_one({"a": 1.0}, True)
    >>> from_plain(unpack(pack(to_plain(model)))).predict_proba_one({"a": 1.0})
    {False: 0.497500..., True: 0.502499...}
    """
    writer = _Writer()
    root = writer.value(value)
    return {"root": root, "objects": writer.objects}


def from_plain(plain: State) -> Any:
    """Return a new object equal to the one that `to_plain` took.

    Raises
    ------
    StateLostError
        The values are not of this form, or name a class that is not on the allow-list.
    """
    try:
        return _Reader(plain["objects"]).value(plain["root"])
    except StateLostError:
        raise
    except Exception as error:  # whatever damaged values make a constructor raise
        raise StateLostError("a model's state", "the form of an object", "another") from error


def allowed(name: str) -> Any:
    """Return the class or function of a name like ``river.stats.mean.Mean``.

    Classes and functions that River itself defines, outside of its data sets and its own tests, the
    estimators of the presets, and a few plain containers.

    Raises
    ------
    StateLostError
        The name is none of these.

    Examples
    --------
    >>> allowed("river.stats.mean.Mean").__name__
    'Mean'
    >>> allowed("os.system")
    Traceback (most recent call last):
        ...
    worker.errors.StateLostError: a model's state: expected a class of River, got 'os.system'
    """
    found = _BUILTINS.get(name)
    is_river = name.startswith("river.") and not name.startswith(_REFUSED)
    if found is None and (is_river or name in _OWN):
        found = _part(name)
    if found is None:
        raise StateLostError("a model's state", "a class of River", repr(name))
    return found


def _part(name: str) -> Any | None:
    """Return what a package itself defines under exactly this name, not what it only imported."""
    package, *words = name.split(".")
    found: Any = importlib.import_module(package)
    for word in words:
        if isinstance(found, types.ModuleType) and not hasattr(found, word):
            _import(f"{found.__name__}.{word}")
        found = getattr(found, word, None)
    is_code = isinstance(found, (type, types.FunctionType, types.BuiltinFunctionType))
    return found if is_code and name_of(found) == name else None


def _import(module: str) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module(module)


def name_of(value: Any) -> str:
    """Return the full name under which a class or function is defined."""
    return f"{value.__module__}.{value.__qualname__}"


class _Writer:
    """Numbers objects in the order in which they are met."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id may be given twice once its object is gone
        self._unused_generator = random.Random(0)

    def value(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 63 else ["int", str(value)]
        if kind is tuple:
            return ["tuple", [self.value(v) for v in value]]
        if isinstance(value, np.generic):
            return ["scalar", np.asarray(value)]
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            return ["name", self._name(value)]
        return ["object", self._number(value)]

    def _number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            number = self._numbers[id(value)] = len(self.objects)
            self._alive.append(value)
            self.objects.append(None)
            self.objects[number] = self._parts(value)
        return self._numbers[id(value)]

    def _parts(self, value: Any) -> Any:
        kind = type(value)
        if kind is np.ndarray and value.dtype != object:
            return value
        if kind is list:
            return ["list", [self.value(v) for v in value]]
        if kind is dict:
            return ["dict", [self.value(v) for item in value.items() for v in item]]
        if kind in (set, frozenset):
            return ["set", [self.value(v) for v in sorted(value)], kind is frozenset]
        if isinstance(value, types.MethodType):
            return ["method", self.value(value.__self__), value.__func__.__name__]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.value, (value.func, value.args, value.keywords))]
        if isinstance(value, random.Random):
            return ["random", self.value(value.getstate())]
        if type(value) is np.random.RandomState:
            return ["random_state", self.value(value.get_state())]
        return self._reduced(value)

    def _reduced(self, value: Any) -> Any:
        """Return what a copy needs: the maker, its arguments, state, list items, dict items."""
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            raise TypeError(f"{type(value).__name__} has no plain form")
        maker, arguments, *rest = reduced
        state, items, pairs = [*rest, None, None, None][:3]
        if type(value).__module__.startswith("river.proba.") and "_rng" in (state or ()):
            # Unseeded, and of use for sampling alone: one for all, so that equal models are equal.
            state = {**state, "_rng": self._unused_generator}
        is_new = maker is copyreg.__newobj__  # type: ignore[attr-defined]
        if is_new:
            maker, *arguments = arguments
        return [
            "new" if is_new else "call",
            self._name(maker),
            [self.value(a) for a in arguments],
            self.value(state),
            [self.value(v) for v in items or ()],
            [self.value(v) for pair in pairs or () for v in pair],
        ]

    def _name(self, value: Any) -> str:
        name = name_of(value)
        try:
            found = allowed(name)
        except StateLostError as error:
            raise TypeError(f"{name} has no plain form") from error
        assert found is value, name
        return name


class _Reader:
    """Makes objects before what they hold, so that cycles close."""

    def __init__(self, objects: list[Any]) -> None:
        self._parts = objects
        self._made: dict[int, Any] = {}

    def value(self, plain: Any) -> Any:
        if not isinstance(plain, list):
            return plain
        kind, body = plain
        makers: dict[str, Callable[[Any], Any]] = {
            "int": int,
            "tuple": lambda items: tuple(map(self.value, items)),
            "scalar": lambda array: array[()],
            "name": allowed,
            "object": self._object,
        }
        return makers[kind](body)

    def _object(self, number: int) -> Any:
        if number not in self._made:
            self._make(number, self._parts[number])
        return self._made[number]

    def _make(self, number: int, parts: Any) -> None:
        if isinstance(parts, np.ndarray):
            self._made[number] = parts
            return
        kind, *body = parts
        if kind in ("new", "call"):
            self._make_object(number, kind, *body)
        elif kind == "list":
            made: list[Any] = []
            self._made[number] = made
            made.extend(map(self.value, body[0]))
        elif kind == "dict":
            self._made[number] = {}
            self._fill(self._made[number], body[0])
        elif kind == "set":
            items = map(self.value, body[0])
            self._made[number] = frozenset(items) if body[1] else set(items)
        elif kind == "method":
            self._made[number] = _method(self.value(body[0]), body[1])
        elif kind == "partial":
            function, arguments, keywords = map(self.value, body)
            self._made[number] = functools.partial(function, *arguments, **keywords)
        elif kind == "random":
            generator = self._made[number] = random.Random(0)
            generator.setstate(self.value(body[0]))
        elif kind == "random_state":
            self._made[number] = np.random.RandomState(0)
            self._made[number].set_state(self.value(body[0]))
        else:
            raise ValueError(kind)

    def _make_object(
        self, number: int, kind: str, name: str, arguments: Any, state: Any, items: Any, pairs: Any
    ) -> None:
        maker = allowed(name)
        values = [self.value(a) for a in arguments]
        made = maker.__new__(maker, *values) if kind == "new" else maker(*values)
        self._made[number] = made
        _set_state(made, self.value(state))
        for item in items:
            made.append(self.value(item))
        self._fill(made, pairs)

    def _fill(self, made: Any, plain: list[Any]) -> None:
        values = [self.value(v) for v in plain]
        for key, item in zip(values[::2], values[1::2], strict=True):
            made[key] = item


def _method(owner: Any, name: str) -> Any:
    """Return a method of an object of River."""
    allowed(name_of(type(owner)))
    found = getattr(owner, name)
    assert isinstance(found, types.MethodType) and not name.startswith("__"), name
    return found


def _set_state(made: Any, state: Any) -> None:
    """Give a new object its attributes, as `copy.copy` does."""
    if state is None:
        return
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    plain, slots = state if isinstance(state, tuple) else (state, {})
    if plain:
        made.__dict__.update(plain)
    for name, value in (slots or {}).items():
        setattr(made, name, value)
