"""How events were served travels with their examples: what a label judges is what was said then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.test_calibrated_scores import inline
from tests.test_label_recovery import MODES, config, log_of_labels
from tests.worlds import drain, journal, worker
from worker.arrow import read_examples
from worker.contracts.settings import Settings
from worker.features.index import Index
from worker.stores.memory import MemoryStore

DECISION = {
    "model": "fraud",
    "threshold": 1e-7,  # of a young model every score
    "suppress": {"entity": "card", "within": "2h"},
}


def declared(labels: dict[str, Any]) -> Settings:
    made = config(labels)
    return made.model_copy(
        update={"decision": type(made.decision).model_validate(DECISION)},
    )


@pytest.mark.parametrize("labels", MODES, ids=str)
@pytest.mark.parametrize("has_store", [True, False])
def test_an_example_says_how_its_event_was_served(labels: dict[str, Any], has_store: bool) -> None:
    """Whenever its label comes, in the same batch or after a crash, from the store or the log."""
    log, store = log_of_labels(), MemoryStore()
    first = worker(log, store, config=declared(labels))
    for _ in range(4):
        first.step()
    drain(worker(log, store if has_store else MemoryStore(), config=declared(labels)))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in journal(log):
        if row["outcome"] == "scored":
            rows.setdefault(row["event_id"], []).append(row)
    alerts = compared = 0
    for value in log.read("training", 0, 0, 10**9).values:
        _, e = read_examples(value or b"", "training")
        for i, event_id in enumerate(e.event_ids):
            served = e.served[i]
            (row,) = [r for r in rows[event_id] if r["time_ms"] == e.time_ms[i]]
            assert served["score"] == row["score"]
            assert served["threshold"] == row["threshold"]
            assert served["alert"] == (row["decision"] == "alert")
            assert served["scores"].tolist() == [row["score_fraud"], row["score_odd"]]
            assert served["entity"] == Index(bytes(16)).hashes([row["entity"]])[0, 0]
            alerts, compared = alerts + int(served["alert"]), compared + 1
    assert compared > 60
    assert 0 < alerts < compared


@pytest.mark.parametrize("cuts", [[1], [100, 333], [500, 501, 502, 1_200]])
def test_inline_examples_are_served_alike_however_batches_fall(cuts: list[int]) -> None:
    """Those too whose event is in the same batch, which are learned before it ends."""
    whole, parts = inline([]), inline(cuts)
    ways = [
        np.concatenate([r.join.examples.served[r.join.examples.y >= 0] for r in results])
        for results in (whole, parts)
    ]
    assert ways[0].tobytes() == ways[1].tobytes()
    decided = whole[0].decided
    assert np.isfinite(ways[0]["score"]).all()
    assert 0 < ways[0]["alert"].sum() <= decided.alert.sum()
