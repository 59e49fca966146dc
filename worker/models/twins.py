"""Compiled twins: bit-identical forms of the River pipelines that do most of the work."""

from __future__ import annotations

from typing import Any, Protocol  # Any: River's classes have no types

from worker.models.binned_twin import binned_twin_of
from worker.models.causes_twin import causes_twin_of
from worker.models.distance import distance_twin_of
from worker.models.forest_twin import forest_twin_of
from worker.models.linear_twin import linear_twin_of
from worker.models.sampled_twin import sampled_twin_of
from worker.models.versioned import Model


class Twin(Model, Protocol):
    """A model that is a River pipeline in another form."""

    def to_river(self) -> Any:
        """Return a River pipeline that goes on exactly where this twin is."""


def twin_of(estimator: Any, feature_names: tuple[str, ...]) -> Twin | None:
    """Return the compiled twin of a River estimator, or None where there is none.

    There is one for ``StandardScaler | LogisticRegression`` (SGD, AdaGrad or Adam, constant rates,
    log loss, no L1 penalty), for ``MinMaxScaler | HalfSpaceTrees``, behind a `SampledScaler` too,
    for ``LearnedBins | LogisticRegression`` (AdaGrad, no penalty), and for the estimators of our
    own: `Causes` and `RobustDistance`. What the estimator has learned goes along; the estimator
    itself stays as it is.

    Examples
    --------
    >>> from river import linear_model, preprocessing
    >>> pipeline = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    >>> twin = twin_of(pipeline, ("a", "b"))
    >>> type(twin).__name__, type(twin.to_river()).__name__
    ('LinearTwin', 'Pipeline')
    >>> twin_of(linear_model.LogisticRegression(l1=0.1), ("a", "b")) is None
    True
    """
    makers = (
        linear_twin_of, forest_twin_of, sampled_twin_of, binned_twin_of, causes_twin_of,
        distance_twin_of,
    )  # fmt: skip
    made = (maker(estimator, feature_names) for maker in makers)
    return next((twin for twin in made if twin is not None), None)
