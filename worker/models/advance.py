"""The one way in which models score and learn: a batch of events with the examples between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from worker.contracts.records import Bool, Float64, Int64, Served
from worker.models.compiled import usable_rows
from worker.models.sampling import draws_of
from worker.models.versioned import Int8, ModelSet


class Examples(Protocol):
    """Examples in the order of learning; `worker.arrow.Examples` is it."""

    event_ids: list[str]
    X: Float64
    y: Int64
    weight: Float64
    raw: Float64
    before: Int64
    time_ms: Int64
    served: Served


Serve = Callable[[slice, Float64, Float64], Served]


def advance(
    models: ModelSet, X: Float64, examples: Examples, rows: Int64, serve: Serve | None = None
) -> tuple[Float64, Float64]:
    """Return raw and calibrated scores, each (n, models), learning the examples in between.

    The steward of the models reviews them between two examples, wherever it is time. The result is
    the same bit for bit however a stream is cut into batches.

    Parameters
    ----------
    X
        (n, features), events in log order; may be empty.
    examples
        Example j is learned before event ``before[j]`` is scored. How those were served whose event
        is in this batch is filled in.
    rows
        Which event of this batch each example is of, -1 for an earlier one.
    serve
        Is told of each slice of the events when it was scored, with the raw and calibrated scores
        so far; returns how all events so far were served, for the labels that judge them.
    """
    raw = np.empty((len(X), len(models.names)))
    calibrated = np.empty_like(raw)
    count, scored, start = len(rows), 0, 0
    draws = draws_of(examples.event_ids) if models.samples_negatives else None
    while True:
        stop = min(count, start + models.steward.until_review())
        # Behind the last example come the events that are left.
        until = int(examples.before[stop - 1]) if stop < count else len(X)
        part, learn = slice(scored, until), slice(start, stop)
        y, weight = examples.y[learn].astype(np.int8), examples.weight[learn]
        before = examples.before[learn] - scored
        usable = usable_rows(examples.X[learn])
        told = examples.X[learn], y, weight, before, None if draws is None else draws[learn]
        raw[part], today = _score_learn(models, X[part], usable, *told)
        here = start + np.flatnonzero(rows[learn] >= 0)
        if len(here):  # examples that were read from the log are read-only
            examples.raw[here] = raw[rows[here]]
        learn_raw = np.where(np.isnan(today), examples.raw[learn], today)
        calibrated[part] = models.calibrate_learn(raw[part], learn_raw, y, weight, before)
        if serve is not None:
            served = serve(part, raw, calibrated)
            examples.served[here] = served[rows[here]]
        # Of what no model may see there is no score: nobody is judged by the 0.0 that was served.
        judged = np.where(usable[:, None], learn_raw, np.nan)
        models.steward.learn(
            examples.X[learn], judged, examples.y[learn], examples.time_ms[learn],
            examples.served[learn],
        )  # fmt: skip
        scored, start = until, stop
        if start == count:
            break
    return raw, calibrated


def _score_learn(
    models: ModelSet, X: Float64, usable: Bool, learn_X: Float64, y: Int8, weight: Float64,
    before: Int64, draws: Float64 | None,
) -> tuple[Float64, Float64]:  # fmt: skip
    """Return the scores of the events, and of each labelled example just before it is learned: NaN
    for others, for those that are not ``usable``, and where no calibrator asks.
    """
    today = np.full((len(y), len(models.names)), np.nan)
    asking = models.calibrated_by_labels
    others = tuple(set(range(len(models.model_names))) - set(asking))
    is_asked = (y >= 0) & usable & bool(asking)
    asked = np.flatnonzero(is_asked)
    if not len(asked):
        return models.score_learn(X, learn_X, y, weight, before, draws), today
    # An example that is asked for is one more event, scored when those before it are learned.
    earlier = np.cumsum(is_asked)  # of these, up to this example
    places = before[asked] + np.arange(len(asked))
    is_event = np.ones(len(X) + len(asked), np.bool_)
    is_event[places] = False
    both = np.empty((len(is_event), learn_X.shape[1]))
    both[is_event], both[places] = X, learn_X[asked]
    told = learn_X, y, weight
    scores = models.score_learn(both, *told, before + earlier, draws, left_out=others)
    today[asked] = scores[places]
    if not others:
        return scores[is_event], today
    rest = models.score_learn(X, *told, before, draws, left_out=asking)
    names = {models.model_names[i] for i in asking}
    is_asking = [name.partition(".")[0] in names for name in models.names]  # with their heads
    return np.where(is_asking, scores[is_event], rest), today
