"""Machine code is what its source says, and never outlives it on disk."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.features import twin
from worker.features import kernels, label_kernels, packing
from worker.features.compiling import digest_of, kernel


def features_imported_by(module: ModuleType) -> set[str]:
    """Return the modules of worker.features from which a module takes names."""
    tree = ast.parse(inspect.getsource(module))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {(node.module or "", alias.name) for node in froms for alias in node.names}
    full = {f"{a}.{b}" if f"{a}.{b}" in sys.modules else a for a, b in names}
    return {name for name in full if name.startswith("worker.features.")}


@pytest.mark.parametrize("module", [kernels, label_kernels, packing])
def test_the_digest_covers_every_module_whose_code_is_compiled_in(module: ModuleType) -> None:
    """Helpers of helpers included; `state`, `plan` and `codes` give constants only."""
    covered = {source.__name__ for source in module.SOURCES}
    needed = features_imported_by(module)
    for source in module.SOURCES:
        if source.__name__.rsplit(".", 1)[-1] not in ("state", "plan", "codes"):
            needed |= features_imported_by(source)
    assert needed <= covered


def test_the_digest_changes_with_the_sources() -> None:
    """Other modules, or the same in another order, are another digest."""
    assert digest_of(kernels) == digest_of(kernels)
    assert len({digest_of(kernels), digest_of(packing), digest_of(kernels, packing)}) == 3


def test_a_kernel_without_a_digest_is_a_mistake() -> None:
    """Its stale machine code could not be told from new."""

    def bare() -> None: ...

    with pytest.raises(AssertionError):
        kernel(bare)


def test_a_helper_called_from_python_is_a_mistake() -> None:
    """It has no code for that: without the guard the process would crash."""
    with pytest.raises(TypeError, match="py_func"):
        kernels.divide(7, 2, 0.5)
    assert kernels.divide.py_func(7, 2, 0.5) == 3  # type: ignore[attr-defined]


@pytest.mark.timeout(600)  # where nothing is compiled yet, it compiles every kernel
def test_machine_code_gives_the_bits_of_its_source() -> None:
    """Every aggregation and all blobs, as plain Python computes them: X and state byte by byte."""
    command = [sys.executable, "-m", "tests.features.twin"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    folder = Path(__file__).parents[2]
    plain = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert plain.stdout.splitlines() == twin.lines()
