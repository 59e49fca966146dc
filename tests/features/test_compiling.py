"""Machine code on disk never outlives the source that it was made of."""

from __future__ import annotations

import ast
import inspect
import sys
from types import ModuleType

import pytest

from worker.features import kernels, packing
from worker.features.compiling import digest_of, kernel


def features_imported_by(module: ModuleType) -> set[str]:
    """Return the modules of worker.features from which a module takes names."""
    tree = ast.parse(inspect.getsource(module))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {(node.module or "", alias.name) for node in froms for alias in node.names}
    full = {f"{a}.{b}" if f"{a}.{b}" in sys.modules else a for a, b in names}
    return {name for name in full if name.startswith("worker.features.")}


@pytest.mark.parametrize("module", [kernels, packing])
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
