"""Presets for streams without labels. They are found in `worker.models.presets.PRESETS`."""

from __future__ import annotations

from typing import (
    Annotated,
    Any,  # River's estimators have no common typed interface
    Literal,
)

from pydantic import Field
from river import anomaly, compose, preprocessing

from worker.models.checking import Count
from worker.models.distance import RobustDistance
from worker.models.forest_twin import NODES_MAX
from worker.models.sampled_scaler import SampledScaler
from worker.models.series import Series

Events = Annotated[int, Field(ge=10, le=1_000_000_000)]


def half_space_trees(
    *,
    n_trees: Count = 10,
    height: Annotated[int, Field(ge=1, le=24)] = 8,
    window_size: Count = 250,
    scaling: Literal["sampled", "range"] = "sampled",
    seed: int = 0,
) -> Any:
    """Return `SampledScaler | MinMaxScaler | HalfSpaceTrees`: how sparse the space around an event
    was lately.

    Good where no labels come: it learns from every event and finds values that are rare in the
    last ``window_size`` events. Weak on anomalies in dense runs and on many irrelevant features.
    Scores lie in 0..1, higher is stranger; they are 0.0 until the first window is full. It has a
    compiled twin: 3 to 5 µs to score and learn an event of 90 features with 10 trees of height 8,
    about 7 µs with 25 of height 15, of which scaling is 3; memory is 16 bytes a node,
    n_trees * 2 ** (height + 1) nodes.

    Parameters
    ----------
    n_trees, height
        Size of the forest: at most 2 ** 26 nodes.
    window_size
        Events of which the masses are counted before they serve.
    scaling
        ``sampled``: by median and quartiles of a sample first (`SampledScaler`), which survives
        streams that come sorted, drift or have extreme values. ``range``: of the values seen so far
        alone, as River does it; faster. ROC AUC of 10 trees of height 8, ``range`` and ``sampled``,
        rows in their published order: annthyroid 0.57 and 0.88,
        mammography 0.81 and 0.79, satimage2 0.84 and 0.93, shuttle 0.96 and 0.95; shuffled: 0.53
        and 0.87, 0.81 and 0.83, 0.93 and 0.94, 0.89 and 0.95.
    seed
        Of the random splits; the configuration's ``seed`` if not given.

    Examples
    --------
    >>> model = half_space_trees(n_trees=5, height=4, window_size=20, seed=1)
    >>> for amount in [0.0, 100.0, *[10.0 + i % 5 for i in range(58)]]:
    ...     model.learn_one({"amount": amount})
    >>> model.score_one({"amount": 80.0}) > model.score_one({"amount": 12.0})
    True
    """
    if n_trees << (height + 1) > NODES_MAX:
        raise ValueError(f"n_trees * 2 ** (height + 1) is at most {NODES_MAX:,}")
    first = [SampledScaler(seed=seed)] if scaling == "sampled" else []
    return compose.Pipeline(
        *first,
        preprocessing.MinMaxScaler(),
        anomaly.HalfSpaceTrees(n_trees=n_trees, height=height, window_size=window_size, seed=seed),
    )


def mahalanobis(*, window: Events = 10_000, warm_up: Events = 100) -> Any:
    """Return `RobustDistance`: how far from the usual an event is, all features together.

    Good where no labels come and features move together: it learns from every event and finds a
    combination that does not fit, such as a high load at a low temperature, though each value
    alone is usual. Outliers barely move it, levels that shift are followed. Weak where events form
    several clusters. The score is a distance, about 1.0 for a usual event, without upper bound;
    0.0 during the warm-up. It has a compiled twin:
    about 1 µs to score and learn an event of 15 features, 14 µs of 90 (it grows with the square);
    16 bytes a pair of features.

    Parameters
    ----------
    window
        Events that count; older ones fade.
    warm_up
        Events from which the scale of each feature is taken.

    Examples
    --------
    >>> model = mahalanobis(warm_up=20)
    >>> for i in range(200):
    ...     model.learn_one({"load": float(i % 7), "heat": float(i % 7 + i % 2)})
    >>> usual, odd = {"load": 6.0, "heat": 6.0}, {"load": 6.0, "heat": 1.0}
    >>> model.score_one(odd) > 2.0 > model.score_one(usual)
    True
    """
    return RobustDistance(window=window, warm_up=warm_up)


def series(
    *,
    window: Annotated[int, Field(ge=11, le=1_000_000_000)] = 4_000,
    warm_up: Annotated[int, Field(ge=11, le=1_000_000_000)] = 100,
) -> Any:
    """Return `Series`: level, residual and range of numbers against their own past.

    Good where every sensor, or every card, has a past of its own: with ``scope: entity`` each has
    its own series, part of its state, learned from its own events in order. It finds jumps, steps
    and values beyond the range; weak on seasons and on a shape that changes inside the range. The
    score lies in [0, 2): 0.5 is as unusual as ever in what it remembers. Each entity costs 72 bytes
    a feature; an event about 0.1 µs a feature with ``scope: entity``, 10 µs without.

    Parameters
    ----------
    window
        Values that count; older ones fade.
    warm_up
        Values before anything is scored.

    Examples
    --------
    >>> model = series(warm_up=20)
    >>> for i in range(200):
    ...     model.learn_one({"load": 10.0 + i % 7})
    >>> model.score_one({"load": 40.0}) > 1.5 > 0.7 > model.score_one({"load": 12.0})
    True
    """
    return Series(window=window, warm_up=warm_up)
