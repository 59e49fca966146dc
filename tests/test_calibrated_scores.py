"""What the worker serves is calibrated by what came before, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from tests import worlds
from worker.arrow import read_examples
from worker.contracts.needs import satisfy
from worker.contracts.records import Records
from worker.contracts.settings import Settings
from worker.features.spec import compile_features
from worker.models.advance import advance
from worker.models.calibration import Calibrator, Probability, Tail
from worker.models.catalogue import build_models
from worker.shard import Result, Shard
from worker.stores.memory import MemoryStore

EVENTS = 1_600


def config() -> Settings:
    return worlds.settings(decision={"model": "odd", "threshold": 0.9})


def inline(
    cuts: list[int], stream: list[dict[str, Any]] | None = None, settings: Settings | None = None
) -> list[Result]:
    """Return what an embedded shard makes of a stream with labels 10 events late, in batches."""
    settings = settings or config()
    spec = compile_features(settings)
    shard = Shard(settings, spec, build_models(settings, spec.names), 0, learns_inline=True)
    stream, results = stream or worlds.events(EVENTS), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events = [msgspec.json.encode(e) for e in stream[start:end]]
        told = [(e, i) for i, e in enumerate(stream) if start <= i + 10 < end]
        labels = [{"event_id": e["id"], "label": int(e["amount"] > 700)} for e, _ in told]
        before = np.array([i + 10 - start for _, i in told], np.int64)
        batch = shard.prepare(
            records("transactions", start, events),
            records(
                "labels",
                shard.labels_next,
                [msgspec.json.encode(x) for x in labels],
                worlds.START_MS,
            ),
            before,
        )
        satisfy(shard.supply(batch), lambda keys: [None] * len(keys))
        results.append(shard.process(batch, 0))
    return results


def records(topic: str, first: int, values: list[bytes], time_ms: int = -1) -> Records:
    n = len(values)
    return Records(
        topic, 0, list(range(first, first + n)), [time_ms] * n, [None] * n, list(values),
        first + n,
    )  # fmt: skip


def said_today(result: Result) -> list[float]:
    """Return what River's own model says of each label just before it learns it; NaN of events."""
    e, names, said = result.join.examples, compile_features(config()).names, []
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01))
    for x, y in zip(e.X.tolist(), e.y.tolist(), strict=True):
        row = dict(zip(names, x, strict=True))
        said.append(math.nan if y < 0 else model.predict_proba_one(row)[True])
        if y >= 0:
            model.learn_one(row, bool(y))
    return said


def one_by_one(calibrator: Calibrator, result: Result, column: int) -> list[float]:
    """Return scores of a batch by a plain loop: serve one event, then learn what is due."""
    e, out, done = result.join.examples, [], 0
    today = said_today(result)
    none = np.empty(0)
    nothing = (none, none.astype(np.int8), none, none.astype(np.int64))
    for i, raw in enumerate(result.raw[:, column]):
        while done < len(e) and e.before[done] <= i:
            served = (
                result.raw[result.join.rows[done], column]
                if result.join.rows[done] >= 0
                else (e.raw[done, column])
            )
            told = served if math.isnan(today[done]) else today[done]
            calibrator.calibrate_learn(
                none, np.array([told]), e.y[done : done + 1].astype(np.int8),
                e.weight[done : done + 1], np.zeros(1, np.int64),
            )  # fmt: skip
            done += 1
        out.append(calibrator.calibrate_learn(np.array([raw]), *nothing)[0])
    return out


@pytest.mark.parametrize(("column", "calibrator"), [(0, Probability(10_000)), (1, Tail(10_000))])
def test_the_embedded_run_calibrates_as_a_plain_loop(column: int, calibrator: Calibrator) -> None:
    """Serve, then learn, event by event: the same scores, bit for bit. A calibrator that saw an
    event before it was served would differ.
    """
    [result] = inline([])
    assert one_by_one(calibrator, result, column) == result.calibrated[:, column].tolist()
    assert result.calibrated[:, column].max() > 0.0


def test_examples_carry_the_raw_scores_as_served() -> None:
    """Each observed event and each label has the raw scores of its own event, whichever batch."""
    results = inline([700, 701, 1_300])
    raw_of = {}
    for result in results:
        ids = result.batch.decoded.events.ids
        raw_of |= {ids[i]: result.raw[k].tolist() for k, i in enumerate(result.scored.tolist())}
    for result in results:
        e = result.join.examples
        assert e.raw.tolist() == [raw_of[i] for i in e.event_ids]


def test_batches_do_not_matter() -> None:
    """Calibrated scores of a stream are the same however it is cut."""
    whole = np.concatenate([r.calibrated for r in inline([])])
    parts = np.concatenate([r.calibrated for r in inline([1, 300, 301, 1_111])])
    assert np.array_equal(whole, parts)


def test_the_lowest_threshold_waits_for_labels() -> None:
    """Without labels nothing is known and nothing alerts; soon after the first ones something does.

    Two frauds in nine, a threshold of one in a thousand.
    """
    settings = worlds.settings(decision={"model": "fraud", "threshold": 0.001})
    [result] = inline([], settings=settings)
    alerts = np.flatnonzero(result.decided.alert)
    assert 10 + 100 < alerts[0] < 10 + 115
    assert len(alerts) > EVENTS // 2


def test_a_row_is_recomputed_from_its_version_alone() -> None:
    """The fold of the training log before v gives x its raw and calibrated scores again."""
    log = worlds.new_log()
    worlds.fill(log, worlds.events(EVENTS))
    worlds.drain(worlds.worker(log, MemoryStore(), config=config()))
    rows = [row for row in worlds.journal(log) if row["outcome"] == "scored"]
    models = build_models(config(), compile_features(config()).names)
    training = log.read("training", 0, 0, 10**9)
    version = 0
    for row in rows:
        while version < row["model_version"]:
            e = read_examples(training.values[version] or b"", "t")[1]
            advance(models, e.X[:0], e, np.full(len(e), -1))
            version += 1
        raw = models.score(np.array([row["x"]]))
        assert raw[0].tolist() == [row["raw_fraud"], row["raw_odd"]]
        assert models.calibrate(raw)[0].tolist() == [row["score_fraud"], row["score_odd"]]
        assert row["score"] == row["score_odd"]
    assert max(row["score"] for row in rows) > 0.9
