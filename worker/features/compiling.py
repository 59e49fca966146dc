"""How kernels are compiled: helpers are only linked in, and stale machine code is noticed.

Numba keeps machine code on disk and makes it anew when the kernel's own file changes. Of helpers
and constants in other files it knows nothing: after an edit there, old code would go on running.
So the kernels that are called from Python are closures over a digest of all these files: numba
puts the values of a closure into the key of its cache.

By itself numba would optimise each helper, with all that it calls, and make machine code of it and
of two wrappers for callers in Python, over and over up to the kernel: two thirds of the time to
compile. And it would count a reference, atomically, wherever an array becomes an argument: half of
the time to run. So helpers and bare kernels make no arrays.
"""

# mypy: disable-error-code="no-untyped-call, call-overload, attr-defined"
# The insides of numba have no types.

from __future__ import annotations

import inspect
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import _dynfunc, njit
from numba.core import cgutils, config, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])


def helper(function: F) -> F:
    """Return a function that is compiled into each kernel that calls it; only kernels can.

    A call costs 30 to 50 ns, most of it to hand over arrays; inlined, the arrays vanish. Tests have
    the Python function as its ``py_func``.
    """
    return _ingredient(function, forceinline=True)


def outlined(function: F) -> F:
    """Return a function that kernels call: for what is long, and not for every spec."""
    return _ingredient(function, forceinline=False)


def allocating(function: F) -> F:
    """Return a function that kernels call and that may make arrays, or sort one."""
    return _ingredient(function, forceinline=False, counts=True)


@intrinsic
def _prefetch(_typing: Any, array: Any, item: Any) -> Any:  # Any: numba's own types
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(made.data, [arguments[1]]), cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _no_prefetch(array: Any, item: Any) -> None:
    """Do nothing: plain Python has no cache lines."""


prefetch: Any = _no_prefetch if config.DISABLE_JIT else _prefetch
"""Ask, in a kernel, for the cache line of an item of a contiguous array, counted flat.

It returns at once. To wait for a line that is in no cache takes 0.1 us, half of the time of an
event; asked for some events ahead, it is there when it is read.
"""


@intrinsic
def _bit_length(_typing: Any, number: Any) -> Any:  # Any: numba's own types
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.IntType(1)(0))
        return builder.sub(ir.IntType(64)(64), zeros)

    return types.int64(types.uint64), generate


def _plain_bit_length(number: Any) -> int:
    return int(number).bit_length()


bit_length: Any = _plain_bit_length if config.DISABLE_JIT else _bit_length
"""Return, in a kernel, how many bits an unsigned number has, 0 for 0."""


def kernel(function: F) -> F:
    """Return a function as machine code, cached on disk. It must be a closure over `digest_of`."""
    assert function.__closure__, function.__name__
    return cast(F, njit(cache=True, error_model="numpy")(function))


def bare_kernel(function: F) -> F:
    """Return a `kernel` that makes no array and counts no reference."""
    assert function.__closure__, function.__name__
    return cast(F, njit(cache=True, error_model="numpy", _nrt=False)(function))


def digest_of(*modules: ModuleType) -> str:
    """Return what changes with the source of any of these modules.

    >>> import worker.errors
    >>> len(digest_of(worker.errors))
    64
    """
    return sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()


def _ingredient(function: F, forceinline: bool, counts: bool = False) -> F:
    if config.DISABLE_JIT:
        return function
    made = njit(
        error_model="numpy", _nrt=counts, forceinline=forceinline, pipeline_class=_Ingredients
    )(function)
    made.__class__ = _Ingredient
    resolve = made.get_call_template
    # One version for all integers; constants are propagated when it is inlined.
    made.get_call_template = lambda args, kws: resolve(tuple(map(types.unliteral, args)), kws)
    return cast(F, made)


# Numba has no types of its own.
class _Ingredient(Dispatcher):
    """A function that has no machine code for callers in Python: to jump there would be a crash."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{self.py_func.__name__} is for kernels; from Python, call its py_func")


class _Library(JITCodeLibrary):
    """Code that is only linked into a kernel, and optimised and made machine code there."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Makes a `_Library`, and tells numba how to call what is in it."""

    _name = "ingredient_lowering"

    def run_pass(self, state: Any) -> bool:
        library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        library.enable_object_caching()
        state.library, state.flags.no_compile = library, True
        super().run_pass(state)
        lowered = state["cr"]
        module, name = lowered.fndesc.lookup_module(), lowered.fndesc.qualname
        entry = _dynfunc.make_function(module, name, name, 0, lowered.env, (library,))
        state.targetctx.insert_user_function(entry, lowered.fndesc, [library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class _Ingredients(CompilerBase):
    """Numba's passes, with `_Lowering` as the last but one, and without wrappers for Python."""

    def define_pipelines(self) -> list[Any]:
        self.state.flags.no_cpython_wrapper = self.state.flags.no_cfunc_wrapper = True
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [
            (_Lowering if step is NativeLowering else step, text) for step, text in manager.passes
        ]
        manager.finalize()
        return [manager]
