"""Running mean and spread of every feature over the scored events of a shard."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.errors import StateLostError
from worker.features.compiling import digest_of, kernel
from worker.models import compiled as compiling
from worker.models.compiled import ABSOLUTE_MAX

_HEADER = struct.Struct("<4sIq")  # magic, features, events
_CRC = struct.Struct("<I")  # of all before it
_MAGIC = b"RWS1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was usual before each of k flagged events: arrays (k, f), and events counted (k,)."""

    mean: Float64
    std: Float64  # of the population of events before: divided by their number
    count: Int64


class FeatureStatistics:
    """Mean and variance of each feature, event by event in order (Welford), however batches fall.

    A row with a number that is not finite, or absurd, is left out.

    *Source*: Welford, Technometrics 4 (1962), 419.

    Examples
    --------
    >>> statistics = FeatureStatistics(1)
    >>> before = statistics.update(np.array([[1.0], [3.0], [90.0]]), np.array([2]))
    >>> before.mean.tolist(), before.std.tolist(), before.count.tolist()
    ([[2.0]], [[1.0]], [2])
    """

    def __init__(self, n_features: int) -> None:
        self._moments = np.zeros((2, n_features))  # means, sums of squared deviations
        self._count = np.zeros(1, dtype=np.int64)

    @property
    def feature_count(self) -> int:
        """Return the number of features."""
        return self._moments.shape[1]

    def update(self, X: Float64, flagged: Int64) -> Snapshot:
        """Add events ``X`` (n, f) and return what was known before each flagged one.

        Parameters
        ----------
        flagged
            (k,) int64, rows of ``X``, increasing.
        """
        assert X.ndim == 2, X.shape
        assert X.shape[1] == self.feature_count, X.shape
        flagged = np.ascontiguousarray(flagged, dtype=np.int64)
        mean, std = np.zeros((2, len(flagged), self.feature_count))
        count = np.zeros(len(flagged), dtype=np.int64)
        _update(np.ascontiguousarray(X), flagged, self._moments, self._count, mean, std, count)
        return Snapshot(mean, std, count)

    def to_bytes(self) -> bytes:
        """Return the state, with a checksum: 20 bytes and 16 a feature."""
        header = _HEADER.pack(_MAGIC, self.feature_count, self._count[0])
        data = header + self._moments.astype("<f8").tobytes()
        return data + _CRC.pack(zlib.crc32(data))

    @classmethod
    def from_bytes(cls, data: bytes) -> FeatureStatistics:
        """Return the state that `to_bytes` gave.

        Raises
        ------
        StateLostError
            The bytes are damaged or of another format: acquire the shard again from the log.
        """
        end = len(data) - _CRC.size
        if end < _HEADER.size or _CRC.pack(zlib.crc32(data[:end])) != data[end:]:
            raise StateLostError("feature statistics", "intact bytes", "damaged or foreign ones")
        magic, n_features, count = _HEADER.unpack_from(data)
        body = data[_HEADER.size : end]
        if magic != _MAGIC or len(body) != 16 * n_features:
            raise StateLostError("feature statistics", f"format {_MAGIC!r}", "another format")
        statistics = cls(n_features)
        statistics._moments[:] = np.frombuffer(body, "<f8").reshape(2, n_features)
        statistics._count[0] = count
        return statistics


def _make_update(sources: str) -> Callable[..., None]:
    @kernel
    def update(
        X: Float64, flagged: Int64, moments: Float64, events: Int64, mean: Float64, std: Float64,
        count: Int64,
    ) -> None:  # fmt: skip
        sources  # noqa: B018  # see worker.features.compiling
        k = 0
        for i in range(X.shape[0]):
            if k < flagged.shape[0] and flagged[k] == i:
                count[k] = events[0]
                for j in range(X.shape[1]):
                    mean[k, j] = moments[0, j]
                    std[k, j] = np.sqrt(moments[1, j] / events[0]) if events[0] > 0 else 0.0
                k += 1
            usable = True
            for j in range(X.shape[1]):
                if not (-ABSOLUTE_MAX <= X[i, j] <= ABSOLUTE_MAX):
                    usable = False
            if not usable:
                continue
            events[0] += 1
            for j in range(X.shape[1]):
                distance = X[i, j] - moments[0, j]
                moments[0, j] += distance / events[0]
                moments[1, j] += distance * (X[i, j] - moments[0, j])

    return update


_update = _make_update(digest_of(compiling))
