"""How kernels are compiled: helpers inlined, references uncounted, stale machine code noticed.

Numba keeps machine code on disk and makes it anew when the kernel's own file changes. Of helpers
and constants in other files it knows nothing: after an edit there, old code would go on running.
So the kernels that are called from Python are closures over a digest of all these files: numba
puts the values of a closure into the key of its cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = TypeVar("Array", bound=NDArray[np.generic] | tuple[Any, ...])
F = TypeVar("F", bound=Callable[..., object])


def helper(function: F) -> F:
    """Return a function that is compiled into each kernel that calls it.

    A call costs 30 to 50 ns, most of it to hand over arrays; inlined, the arrays vanish. Only
    kernels are cached: code of a helper on disk would not see edits of the helpers that it calls.
    """
    return cast(F, njit(error_model="numpy", forceinline=True)(function))


def outlined(function: F) -> F:
    """Return a function that kernels call: for what is long, and not for every spec."""
    return cast(F, njit(error_model="numpy")(function))


def kernel(function: F) -> F:
    """Return a function as machine code, cached on disk. It must be a closure over `digest_of`."""
    assert function.__closure__, function.__name__
    return cast(F, njit(cache=True, error_model="numpy")(function))


def digest_of(*modules: ModuleType) -> str:
    """Return what changes with the source of any of these modules.

    >>> import worker.errors
    >>> len(digest_of(worker.errors))
    64
    """
    return sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()


class _Borrow(Protocol):
    def __call__(self, array: Array) -> Array: ...


@intrinsic
def _borrowed(typing_context: Any, array: Any) -> Any:  # Any: numba's own types
    if not isinstance(array, types.Array | types.NamedTuple):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(array, types.Array):
            return _uncounted(context, builder, array, args[0])
        parts = cgutils.unpack_tuple(builder, args[0])  # type: ignore[no-untyped-call]  # untyped
        lent = [_uncounted(context, builder, t, p) for t, p in zip(array.types, parts, strict=True)]
        return context.make_tuple(builder, array, lent)

    return array(array), codegen


def _uncounted(context: Any, builder: Any, array: Any, value: Any) -> Any:
    """Return an array without the pointer to its reference count."""
    proxy = cgutils.create_struct_proxy(array)  # type: ignore[no-untyped-call]  # untyped
    struct = proxy(context, builder, value=value)
    struct.meminfo = cgutils.get_null_value(struct.meminfo.type)  # type: ignore[no-untyped-call]
    return struct._getvalue()


borrowed = cast(_Borrow, _borrowed)
"""Return the same array, or named tuple of arrays, of which no reference is counted. Only for use
inside a kernel.

Numba counts a reference up and down, atomically, wherever an array becomes an argument; in
`worker.features.kernels` that was half of the time. The caller must hold the array for the whole
call, as Python does with arguments; never borrow one that a kernel made.
"""
