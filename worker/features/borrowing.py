"""Arrays without a count of references, for kernels that hand them from helper to helper."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = TypeVar("Array", bound=NDArray[np.generic])


class _Borrow(Protocol):
    def __call__(self, array: Array) -> Array: ...


@intrinsic
def _borrowed(typing_context: Any, array: Any) -> Any:  # Any: numba's own types
    if not isinstance(array, types.Array):
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        proxy = cgutils.create_struct_proxy(array)  # type: ignore[no-untyped-call]  # untyped
        struct = proxy(context, builder, value=args[0])
        struct.meminfo = cgutils.get_null_value(struct.meminfo.type)  # type: ignore[no-untyped-call]
        return struct._getvalue()

    return array(array), codegen


borrowed = cast(_Borrow, _borrowed)
"""Return the same array, of which no reference is counted. Only for use inside a kernel.

Numba counts a reference up and down, atomically, wherever an array becomes an argument; in
`worker.features.kernels` that was half of the time. The caller must hold the array for the whole
call, as Python does with arguments; never borrow one that a kernel made.
"""
