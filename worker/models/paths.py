"""River estimators by dotted path: what a configuration may name, checked before anything runs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any  # values of a YAML file, and River's classes, which have no types

import river
from river import base, compose

from worker.errors import ConfigError, Problem
from worker.models.checking import said, wrong_params

Path = tuple[str | int, ...]
_DOTTED = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.[A-Z][A-Za-z0-9]*$")


class Builder:
    """Builds River objects from configuration values and collects every mistake.

    Parameters
    ----------
    seed
        Given to each estimator that has a ``seed`` parameter which the configuration leaves out.
    """

    def __init__(self, seed: int) -> None:
        self.problems: list[Problem] = []
        self._seed = seed

    def pipeline(self, value: Any, params: Mapping[str, Any], path: Path) -> Any | None:
        """Return the estimator that a ``river`` entry declares, or None after noting problems.

        ``value`` is a dotted path, a ``{path: params}`` mapping, or a sequence of either;
        ``params`` belong to a plain path only.
        """
        if isinstance(value, str):
            return self._make(value, params, path, (*path[:-1], "params"))
        if params:
            got = f"params beside {_words_of(value)}"
            self._note((*path[:-1], "params"), "no params", got, "write them below each path")
        if isinstance(value, Mapping):
            return self._entry(value, path)
        steps = [self._step(step, (*path, i)) for i, step in enumerate(value)]
        if not steps:
            self._note(path, "at least one step", "none", "for example linear_model.PAClassifier")
        return None if not steps or None in steps else self._joined(steps, path)

    def call(
        self, function: Any, name: str, params: Mapping[str, Any], path: Path,
        at: Path | None = None,
    ) -> Any | None:  # fmt: skip
        """Return ``function(**params)`` with the seed where it takes one, or None and problems.

        ``at`` is where the parameters stand, ``params`` beside ``path`` unless given. A function
        may raise a `ConfigError` whose paths begin there.
        """
        signature = inspect.signature(function)
        at = (*path[:-1], "params") if at is None else at
        if not self._fits(signature, name, params, at):
            return None
        words = dict(params)
        if "seed" in signature.parameters:
            words.setdefault("seed", self._seed)
        try:
            return function(**words)
        except ConfigError as error:
            self.problems += [replace(one, path=(*at, *one.path)) for one in error.problems]
            return None
        except Exception as error:  # a constructor may refuse its values in any way
            self._note(path, f"parameters that {name} accepts", said(error))
            return None

    def preset(
        self, function: Any, name: str, params: Mapping[str, Any], path: Path,
        at: Path | None = None,
    ) -> Any | None:  # fmt: skip
        """Return as `call`, with the values held against the function's annotations first."""
        at = (*path[:-1], "params") if at is None else at
        wrong = wrong_params(function, params, at)
        self.problems += wrong
        if wrong:
            self._fits(inspect.signature(function), name, params, at)
            return None
        return self.call(function, name, params, path, at)

    def refuse(self) -> None:
        """Raise what was noted; its text has all of it, for who does not render problems."""
        if self.problems:
            told = (f"{'.'.join(map(str, one.path))}: expected {one.expected}, got {one.got}"
                    for one in self.problems)  # fmt: skip
            raise ConfigError("models", self.problems, got="; ".join(told))

    def note(self, path: Path, expected: str, got: str, hint: str = "") -> None:
        """Add one problem."""
        self._note(path, expected, got, hint)

    def _note(self, path: Path, expected: str, got: str, hint: str = "") -> None:
        self.problems.append(Problem(path, expected, got, hint))

    def _step(self, value: Any, path: Path) -> Any | None:
        if isinstance(value, str):
            return self._make(value, {}, path, path)
        return self._entry(value, path)

    def _entry(self, value: Mapping[str, Any], path: Path) -> Any | None:
        if len(value) != 1:
            self._note(path, "one path with its parameters", f"{len(value)} keys",
                       "write each step as its own list item")  # fmt: skip
            return None
        dotted, params = next(iter(value.items()))
        if params is not None and not isinstance(params, Mapping):
            self._note((*path, dotted), "a mapping of parameters", _words_of(params))
            return None
        return self._make(dotted, params or {}, (*path, dotted), (*path, dotted))

    def _make(self, dotted: str, params: Mapping[str, Any], path: Path, at: Path) -> Any | None:
        found = find_class(dotted)
        if found is None:
            self._note(path, "the path of an estimator below river", repr(dotted), near(
                dotted, known_paths()))  # fmt: skip
            return None
        before = len(self.problems)
        words = {k: self._value(v, (*at, k)) for k, v in params.items()}
        if len(self.problems) > before:
            return None
        return self.call(found, dotted, words, path, at)

    def _value(self, value: Any, path: Path) -> Any:
        """Return a parameter's value: ``{optim.Adam: {lr: 0.1}}`` becomes the object it names."""
        if isinstance(value, (list, tuple)):
            return [self._value(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, Mapping) and len(value) == 1:
            key = next(iter(value))
            if isinstance(key, str) and _looks_like_path(key):
                return self._entry(value, path)
        return value

    def _fits(
        self, signature: inspect.Signature, name: str, params: Mapping[str, Any], path: Path
    ) -> bool:
        known = signature.parameters
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return True
        count = len(self.problems)
        for key in params:
            if key not in known:
                self._note((*path, key), f"a parameter of {name}", repr(key), near(key, known))
        for key, parameter in known.items():
            is_optional = parameter.default is not parameter.empty
            if not (is_optional or key in params or key == "seed") and (
                parameter.kind is not parameter.VAR_POSITIONAL
            ):
                self._note((*path, key), "a value, there is no default", "nothing")
        return len(self.problems) == count

    def _joined(self, steps: list[Any], path: Path) -> Any | None:
        for i, step in enumerate(steps[:-1]):
            if not isinstance(step, (base.Transformer, base.AnomalyFilter, compose.Pipeline)):
                got = f"{type(step).__name__}, which only the last step can be"
                self._note((*path, i), "a transformer", got)
                return None
        return steps[0] if len(steps) == 1 else compose.Pipeline(*steps)


def find_class(dotted: str) -> type | None:
    """Return the class at a path below ``river``, or None. Nothing outside of River can be reached.

    >>> find_class("optim.Adam").__name__
    'Adam'
    >>> find_class("linear_model.NoSuch"), find_class("os.system"), find_class("api.sys.Exit")
    (None, None, None)
    """
    if not isinstance(dotted, str) or not _DOTTED.match(dotted):
        return None
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(f"river.{module}"), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, base.Base) else None


@cache
def known_paths() -> tuple[str, ...]:
    """Return the paths of all of River's public estimators, sorted.

    >>> "anomaly.HalfSpaceTrees" in known_paths()
    True
    """
    paths = set()
    for module in _modules():
        for name in getattr(importlib.import_module(f"river.{module}"), "__all__", ()):
            if find_class(f"{module}.{name}") is not None:
                paths.add(f"{module}.{name}")
    return tuple(sorted(paths))


def near(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known names nearest to a word; empty where none is near.

    >>> near("half_space_tree", ["logistic", "half_space_trees"])
    'did you mean half_space_trees?'
    """
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if not close and "." in word:
        last = word.rpartition(".")[2].lower()
        close = [n for n in names if n.rpartition(".")[2].lower() == last][:3]
    return f"did you mean {' or '.join(close)}?" if close else ""


@cache
def _modules() -> frozenset[str]:
    found = [m.name for m in pkgutil.iter_modules(river.__path__) if m.ispkg]
    return frozenset(m for m in found if not m.startswith("_") and m not in ("datasets", "checks"))


def _looks_like_path(key: str) -> bool:
    return "." in key and key.partition(".")[0] in _modules()


def _words_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, Sequence) and not isinstance(value, str) else repr(value)
