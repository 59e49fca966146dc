"""Machine code of the models on disk never outlives the source that it was made of."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

from worker.models import binned_kernels, causes_kernels


@pytest.mark.parametrize("module", [binned_kernels, causes_kernels])
def test_the_digest_covers_every_module_whose_code_is_compiled_in(module: ModuleType) -> None:
    """What a kernel takes from another file of the models is part of the key of its cache."""
    tree = ast.parse(inspect.getsource(module))
    froms = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    needed = {name for name in froms if name.startswith("worker.models.")}
    assert needed
    assert needed <= {source.__name__ for source in module.SOURCES}


@pytest.mark.parametrize("module", [binned_kernels, causes_kernels])
def test_the_entry_is_a_closure_over_the_digest(module: ModuleType) -> None:
    """Numba puts what a closure holds into the key."""
    cells = module.score_learn.py_func.__closure__
    assert any(len(str(cell.cell_contents)) == 64 for cell in cells)
