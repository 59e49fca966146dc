"""Learned state as plain values: what a snapshot may hold, and its bytes.

Plain values are None, bool, int, float, str, bytes, numpy arrays of numbers, and lists and dicts
(keys are str) of these. Reading them never runs code and never makes an object of a class.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any  # plain values nest

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.errors import StateLostError

State = dict[str, Any]

_ARRAY = 1  # code of msgpack's extension type


def pack(state: State) -> bytes:
    """Return plain values as bytes (msgpack): the same bytes for the same values.

    >>> unpack(pack({"a": np.array([1.0, 2.0]), "b": [1, None]}))
    {'a': array([1., 2.]), 'b': [1, None]}
    """
    return msgspec.msgpack.encode(state, enc_hook=_array_out)


def unpack(data: bytes) -> State:
    """Return what `pack` gave; arrays are copies that may be changed.

    Raises
    ------
    StateLostError
        The bytes are damaged, or not such a state.
    """
    try:
        state = msgspec.msgpack.decode(data, ext_hook=_array_in)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise StateLostError("a model's state", "intact bytes", "damaged ones") from error
    if not isinstance(state, dict):
        raise StateLostError("a model's state", "named values", type(state).__name__)
    return state


@contextlib.contextmanager
def reading(kind: str, state: State) -> Iterator[None]:
    """Turn whatever a state of another kind or form makes fail into one error.

    Raises
    ------
    StateLostError
        The state is not one of this kind, or its parts do not fit.
    """
    if state.get("kind") != kind:
        raise StateLostError("a model's state", repr(kind), repr(state.get("kind")))
    try:
        yield
    except StateLostError:
        raise
    except Exception as error:  # names, shapes, types: all are a state of other settings
        raise StateLostError(
            "a model's state", f"that of a {kind} with these settings", "another"
        ) from error


def fit(value: Any, place: NDArray[Any]) -> None:
    """Fill ``place`` with an array of exactly its shape and kind."""
    assert value.shape == place.shape, (value.shape, place.shape)
    assert value.dtype == place.dtype, (value.dtype, place.dtype)
    place[...] = value


def _array_out(value: Any) -> msgspec.msgpack.Ext:
    assert type(value) is np.ndarray and value.dtype.kind in "biuf", type(value)
    assert value.dtype.str[0] in "<|", value.dtype
    head = struct.pack(f"<3sB{value.ndim}q", value.dtype.str[:3].encode(), value.ndim, *value.shape)
    data = np.empty(len(head) + value.nbytes, np.uint8)  # copied once: a forest has 10 MB
    data[: len(head)] = np.frombuffer(head, np.uint8)
    data[len(head) :].view(value.dtype).reshape(value.shape)[...] = value
    return msgspec.msgpack.Ext(_ARRAY, data.data)


def _array_in(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension type {code}")
    kind, count = struct.unpack_from("<3sB", data)
    shape = struct.unpack_from(f"<{count}q", data, 4)
    return np.frombuffer(data[4 + 8 * count :], np.dtype(kind.decode())).reshape(shape).copy()
