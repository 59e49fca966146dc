"""Import directions, sizes and forbidden calls, read from the source by its syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

EDGES = ("worker.streams", "worker.stores")
# The shell talks to the world. Every other module of worker is core and held to the core's rules,
# so that a new module is core until somebody says otherwise here.
SHELL = tuple(
    f"worker.{name}"
    for name in (
        "acquire", "backfill", "checkpoint", "cli", "commands", "commands_data", "commands_models",
        "commands_repair", "committing", "config", "config_lists", "dataset", "degrading",
        "describe", "exchange", "features.reader", "flushing", "listening", "log_lines", "owned",
        "patience",
        "positions", "progress", "rekeying", "repair", "replay", "runner", "snapshots", "stopping",
        "telemetry", "testing", "training",
    )
)  # fmt: skip
SHARED = ("worker.contracts", "worker.errors")
IMPURE = (
    "time", "os", "socket", "logging", "structlog", "secrets", "uuid", "threading",
    "subprocess", "asyncio", "pathlib", "tempfile", "kafka", "redis", "confluent_kafka",
)  # fmt: skip
HEAVY = ("river", "numba", "pyarrow", "kafka", "redis", "pandas", "numpy", "scipy")
SEEDED = ("Random", "Generator", "PCG64", "RandomState", "SeedSequence", "default_rng")
LINES_MAX, FUNCTION_LINES_MAX = 400, 70


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its lines and its syntax tree."""

    name: str
    is_package: bool
    lines: int
    tree: ast.Module


def modules(root: Path, package: str) -> list[Module]:
    """Return every module below ``root/package``, by name."""
    return [module(path, root) for path in sorted((root / package).rglob("*.py"))]


def module(path: Path, root: Path) -> Module:
    text = path.read_text()
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, is_package, len(text.splitlines()), ast.parse(text))


def within(name: str, places: tuple[str, ...]) -> bool:
    """Return whether a dotted name is one of the places or lies below one."""
    return any(name == place or name.startswith(place + ".") for place in places)


def imports(module: Module) -> Iterator[str]:
    """Yield every imported name in full, wherever the import stands; relative ones resolved."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = origin(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def origin(module: Module, node: ast.ImportFrom) -> str:
    """Return the module that an ``from ... import`` names."""
    if not node.level:
        return node.module or ""
    up = node.level - 1 if module.is_package else node.level
    parts = module.name.split(".")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def edge_violations(found: list[Module]) -> list[str]:
    """An edge imports contracts, errors and its own package, and nothing else of the project."""
    return [
        f"{module.name} imports {name}"
        for module in found
        for edge in EDGES
        if within(module.name, (edge,))
        for name in imports(module)
        if within(name, ("worker", "producers")) and not within(name, (*SHARED, edge))
    ]


def core_violations(found: list[Module]) -> list[str]:
    """The core knows no edge, no shell, no clock and nothing of the system."""
    return [
        f"{module.name} imports {name}"
        for module in found
        if not within(module.name, (*EDGES, *SHELL))
        for name in imports(module)
        if within(name, (*EDGES, *SHELL, *IMPURE))
    ]


def contract_violations(found: list[Module]) -> list[str]:
    """Contracts and errors import nothing of the project but each other."""
    return [
        f"{module.name} imports {name}"
        for module in found
        if within(module.name, SHARED)
        for name in imports(module)
        if within(name, ("worker", "producers")) and not within(name, SHARED)
    ]


def upward_violations(found: list[Module]) -> list[str]:
    """Nothing in worker imports producers, tests or benchmarks."""
    return [
        f"{module.name} imports {name}"
        for module in found
        for name in imports(module)
        if within(name, ("producers", "tests", "benchmarks"))
    ]


def cycle_violations(found: list[Module]) -> list[str]:
    """No two rooms import each other, directly or around a corner."""
    names = {module.name for module in found}
    below = {m.name: {n for i in top_imports(m) if (n := owner(i, names)) and n != m.name}
             for m in found}  # fmt: skip
    done: set[str] = set()
    while ready := {name for name in below.keys() - done if below[name] <= done}:
        done |= ready
    return [f"{name} is in or above a cycle" for name in sorted(below.keys() - done)]


def top_imports(module: Module) -> Iterator[str]:
    """Yield the imports that run when the module is loaded."""
    deferred = {
        id(node)
        for function in ast.walk(module.tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    body = [node for node in ast.walk(module.tree) if id(node) not in deferred]
    loaded = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    yield from imports(Module(module.name, module.is_package, 0, ast.Module(loaded, [])))


def owner(name: str, names: set[str]) -> str | None:
    """Return the module that an imported name belongs to, None for one from outside."""
    if name in names:
        return name
    return name.rpartition(".")[0] if name.rpartition(".")[0] in names else None


def size_violations(found: list[Module]) -> list[str]:
    """No module is over 400 lines and no function over 70."""
    long = [f"{m.name} has {m.lines} lines" for m in found if m.lines > LINES_MAX]
    for module in found:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{module.name}.{node.name} has {lines} lines")
    return long


def forbidden_violations(found: list[Module]) -> list[str]:
    """hash() is salted per process, and a pickle runs the code of whoever wrote it."""
    words = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    pickles = [
        f"{m.name} imports {name}" for m in found for name in imports(m) if within(name, words)
    ]
    return pickles + [
        f"{module.name}:{node.lineno} calls hash()"
        for module in found
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash"
    ]


def random_violations(found: list[Module]) -> list[str]:
    """The core draws from a generator that was given a seed, never from the global ones."""
    return [
        f"{module.name}:{node.lineno} draws without a seed"
        for module in found
        if not within(module.name, (*EDGES, *SHELL))
        for node in ast.walk(module.tree)
        if unseeded(node)
    ]


def unseeded(node: ast.AST) -> bool:
    """Return whether a node is a function of random or numpy.random, or a generator of no seed."""
    if isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random"):
        return any(alias.name not in SEEDED for alias in node.names)
    if isinstance(node, ast.Attribute):
        words = ast.unparse(node).split(".")
        return words[-2:-1] == ["random"] and words[-1] not in SEEDED
    if isinstance(node, ast.Call) and not node.args and not node.keywords:
        return ast.unparse(node.func).rpartition(".")[2] in ("Random", "RandomState", "default_rng")
    return False


RULES = {
    "edge": edge_violations,
    "core": core_violations,
    "random": random_violations,
    "contract": contract_violations,
    "upward": upward_violations,
    "cycle": cycle_violations,
    "size": size_violations,
    "forbidden": forbidden_violations,
}
PLANTED = [
    ("edge", "worker/streams/kafka.py", "from worker.stores import Meta"),
    ("edge", "worker/stores/redis.py", "def f():\n    import worker.shard"),
    ("edge", "worker/streams/files.py", "from worker import decode"),
    ("edge", "worker/streams/files.py", "from ..decode import Decoder"),
    ("edge", "worker/stores/__init__.py", "from ..labels import join"),
    ("core", "worker/features/state.py", "from worker.streams import Stream"),
    ("core", "worker/models/batch.py", "from worker.runner import Runner"),
    ("core", "worker/shard.py", "from .acquire import acquire"),
    ("core", "worker/decode.py", "import time"),
    ("core", "worker/decisions.py", "from os import environ"),
    ("core", "worker/labels.py", "import logging.handlers"),
    ("core", "worker/outputs.py", "def f():\n    from time import time"),
    ("core", "worker/a_new_module.py", "import socket"),
    ("random", "worker/labels.py", "import random\nx = random.random()"),
    ("random", "worker/labels.py", "from random import choice"),
    ("random", "worker/labels.py", "import numpy as np\nx = np.random.rand(3)"),
    ("random", "worker/labels.py", "import numpy as np\nx = np.random.default_rng()"),
    ("random", "worker/labels.py", "import random\nx = random.Random()"),
    ("contract", "worker/contracts/records.py", "from worker.shard import Shard"),
    ("contract", "worker/errors.py", "import worker.shard"),
    ("upward", "worker/commands.py", "def f():\n    from producers.cards import generate"),
    ("cycle", "worker/pending.py", "import worker.labels"),
    ("size", "worker/inbox.py", "x = 1\n" * 401),
    ("size", "worker/inbox.py", "def f():\n" + "    x = 1\n" * 70),
    ("forbidden", "worker/arrow.py", "x = hash('a')"),
    ("forbidden", "worker/models/paths.py", "from pickle import loads"),
    ("forbidden", "worker/stores/redis.py", "def f():\n    import pickle"),
]
ALLOWED = [
    ("worker/streams/kafka.py", "import time\nfrom worker.streams import Polled"),
    ("worker/stores/redis.py", "from worker.errors import FatalError\nfrom . import Meta"),
    ("worker/runner.py", "import time\nfrom worker.shard import Shard"),
    ("worker/models/batch.py", "import numpy as np\nfrom worker.contracts import records"),
    ("worker/timed.py", "import timeit"),
    ("worker/draws.py", "import random\nx = random.Random(3).random()"),
    ("worker/draws.py", "import numpy as np\nx = np.random.default_rng(3).random()"),
    ("worker/draws.py", "import random\ndef f(x):\n    return isinstance(x, random.Random)"),
    ("worker/inbox.py", "x = 1\n" * 400),
    ("worker/inbox.py", "def f():\n" + "    x = 1\n" * 69),
    ("worker/arrow.py", "def __hash__(self):\n    return self.hash()"),
]


def plant(root: Path, path: str, text: str) -> list[Module]:
    """Write one module beside an innocent one that imports it; return all modules."""
    innocent = root / "worker" / "labels.py"
    innocent.parent.mkdir(parents=True)
    innocent.write_text("import worker.pending\n")
    (root / "worker" / "pending.py").write_text("")
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return modules(root, "worker")


@pytest.mark.parametrize("rule", RULES)
def test_the_worker_keeps_every_rule(rule: str) -> None:
    """No module of the worker breaks a rule of the architecture."""
    assert RULES[rule](modules(ROOT, "worker")) == []


@pytest.mark.parametrize("rule", ["size", "forbidden", "cycle"])
def test_the_producers_keep_the_rules_that_hold_everywhere(rule: str) -> None:
    """Producers are small modules too, without hash() and pickle."""
    assert RULES[rule](modules(ROOT, "producers")) == []


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found_by_its_rule(
    rule: str, path: str, text: str, tmp_path: Path
) -> None:
    """Each rule fires on a module that breaks it."""
    assert len(RULES[rule](plant(tmp_path, path, text))) >= 1


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_what_is_allowed_is_not_found(path: str, text: str, tmp_path: Path) -> None:
    """No rule fires on what the architecture allows, at the very limit of each size."""
    found = plant(tmp_path, path, text)
    assert [violation for rule in RULES.values() for violation in rule(found)] == []


def test_every_module_of_the_shell_exists() -> None:
    """The list above names no module that is gone: it would excuse a new one of that name."""
    names = {module.name for module in modules(ROOT, "worker")}
    assert set(SHELL) <= names


@pytest.mark.parametrize("module", ["worker.cli", "producers.cli"])
def test_a_command_line_loads_nothing_heavy(module: str) -> None:
    """Help answers at once: no library that takes long is loaded before a command runs."""
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
