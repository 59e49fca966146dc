"""Where the event is, against where the entity was."""

from __future__ import annotations

import math

from worker.features import codes
from worker.features.aggregations.base import Aggregation, Past

EARTH_KM = 6371.0088
HOUR_MS = 3_600_000
TIME_MS_MIN = 1_000


class _Geo(Aggregation):
    """Base of what is read from two places in degrees, latitude and longitude."""

    reads = "ring"
    each = "nothing"
    types = ("float",)
    field_count = 2
    options = ("where",)
    include_current = False
    compares = True
    tolerance = 1e-6


class GeoDistance(_Geo):
    """Kilometres from the entity's newest place before this event, along the great circle.

    The newest event of the ring that has both coordinates. 0.0 where this event lacks one, or none
    has both. Coordinates are kept to a millionth of a degree (11 cm), those beyond ±180 are
    missing, latitudes beyond a pole are taken for it. Error below 1e-6 of the distance and 1 mm, on
    a sphere of 6371.0088 km. Cost: O(1), 10 B an event.

    >>> round(GeoDistance.of(Past([(52.52, 13.405)], own=(48.8566, 2.3522))), 1)
    877.5
    """

    name = "geo_distance"
    code = codes.DISTANCE
    words = "km from the last place of this {entity}"

    @staticmethod
    def of(past: Past) -> float:
        """Return the distance by vectors, another way than the kernel's."""
        if past.own is None or not past.known:
            return 0.0
        return _distance_km(past.known[-1], past.own)


class GeoSpeed(_Geo):
    """Kilometres an hour that it takes from the entity's newest place to this event.

    `geo_distance` over the time between the two events, whichever is first, at least one second.
    0.0 where there is no distance. Relative error that of the distance. Cost: O(1), 10 B an event.

    >>> past = Past([(52.52, 13.405)], [0], 0, (48.8566, 2.3522), 3_600_000)
    >>> round(GeoSpeed.of(past), 1)
    877.5
    """

    name = "geo_speed"
    code = codes.SPEED
    words = "km/h from the last place of this {entity}"

    @staticmethod
    def of(past: Past) -> float:
        """Return distance / time."""
        if past.own is None or not past.known:
            return 0.0
        elapsed_ms = max(abs(past.time_ms - past.known_times_ms[-1]), TIME_MS_MIN)
        return _distance_km(past.known[-1], past.own) * HOUR_MS / elapsed_ms


def _distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    first, second = _vector(*a), _vector(*b)
    return EARTH_KM * 2.0 * math.asin(min(1.0, math.dist(first, second) / 2.0))


def _vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    up, along = math.radians(max(-90.0, min(90.0, latitude))), math.radians(longitude)
    return math.cos(up) * math.cos(along), math.cos(up) * math.sin(along), math.sin(up)
