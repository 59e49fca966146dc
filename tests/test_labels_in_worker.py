"""Label features in a whole worker: what is lost and built again reads the same."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.test_runner import FragileStore, FragileStream, Killed
from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.spec import compile_features
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

COUNT = 400


def config() -> Settings:
    windows = {"windows": ["6h", "1d"]}
    of_labels: dict[str, Any] = {
        "fraud_rate": windows, "genuine_count": windows, "time_since_last_fraud": {},
        "fraud_run": {}, "clean_run": [{}, {"where": "$amount < 800"}],
        "frauds": [
            windows | {"weight": "1 - raw:fraud"}, windows, windows | {"where": "$amount < 800"},
            windows | {"where": "$amount >= 800"},
        ],
    }  # fmt: skip
    return settings(
        features={
            "amount": "$amount",
            "card": of_labels,
            "terminal": of_labels,
            "risk": "target_mean($terminal)",
        },
        models={"fraud": {"preset": "logistic"}},
    )


def full_log() -> MemoryLog:
    log = new_log()
    fill(log, events(COUNT))
    return log


def certain(log: MemoryLog) -> list[dict[str, float]]:
    """Return the features that no model has a say in, of every event."""
    names = compile_features(config()).names
    kept = [i for i, name in enumerate(names) if "_by_" not in name]
    rows = [row["x"] for row in journal(log) if row["outcome"] == "scored"]
    return [{names[i]: x[i] for i in kept} for x in rows]


@functools.cache
def quiet() -> list[dict[str, float]]:
    log = full_log()
    drain(worker(log, MemoryStore(), config=config()))
    return certain(log)


def test_labels_reach_the_features_of_later_events() -> None:
    """Cards and terminals have known frauds, and runs of either kind."""
    for name in quiet()[0]:
        if name != "amount":
            assert len({row[name] for row in quiet()}) > 2, name


def test_a_condition_parts_the_frauds_of_a_card() -> None:
    """Those for which it held and those for which it did not are all; there are some of both."""
    names = [f"card_frauds_1d{of}" for of in ("", "_where_amount_below_800",
                                              "_where_amount_from_800")]  # fmt: skip
    found = [[row[name] for name in names] for row in quiet()]
    assert all(every == pytest.approx(some + rest, rel=1e-12) for every, some, rest in found)
    assert max(some for _, some, _ in found) > 1
    assert max(rest for *_, rest in found) > 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", [2, 5, 8])
def test_a_worker_killed_at_a_commit_reads_the_same_labels(fail_at: int, after: bool) -> None:
    """Acquiring compares x with the journal's, bit for bit; what follows equals a quiet run."""
    log, store = full_log(), MemoryStore()
    with pytest.raises(Killed):
        drain(
            worker(
                log, store, config=config(),
                stream=FragileStream(log, fail_at, after=after, error=Killed),
            )
        )  # fmt: skip
    drain(worker(log, store, config=config()))
    assert certain(log) == quiet()


@pytest.mark.parametrize("fail_at", [3, 6])
def test_a_worker_killed_at_a_flush_reads_the_same_labels(fail_at: int) -> None:
    """The store lags behind the log by one flush."""
    log, store = full_log(), FragileStore(fail_at, after=False, error=Killed)
    with pytest.raises(Killed):
        drain(worker(log, store, config=config()))
    drain(worker(log, store, config=config()))
    assert certain(log) == quiet()


def test_an_emptied_store_is_rebuilt_from_the_log_with_its_labels() -> None:
    """Recorded scores come from the journal: the weighted features are equal too, or it stops."""
    log = full_log()
    with pytest.raises(Killed):
        drain(
            worker(
                log, MemoryStore(), config=config(),
                stream=FragileStream(log, 6, after=True, error=Killed),
            )
        )  # fmt: skip
    drain(worker(log, MemoryStore(), config=config()))
    assert certain(log) == quiet()


def blaming(weight: str = "raw:why.terminal") -> Settings:
    """Return a configuration where a card's frauds count what a head of `causes` says of them."""
    heads = {"card": ["amount"], "terminal": ["amount", "terminal_fraud_rate_1d"]}
    return settings(
        features={
            "amount": "$amount",
            "card": {"frauds": {"windows": ["1d"], "weight": weight}},
            "terminal": {"fraud_rate": {"windows": ["1d"]}},
        },
        models={"why": {"preset": "causes", "params": {"heads": heads, "warm_up": 8}}},
        decision={"model": "why", "threshold": 0.6},
    )


def test_a_fraud_counts_what_a_head_says_of_it() -> None:
    """Live, and by a worker that has the recorded probabilities from the journal alone."""
    log = full_log()
    with pytest.raises(Killed):
        stream = FragileStream(log, 6, after=True, error=Killed)
        drain(worker(log, MemoryStore(), config=blaming(), stream=stream))
    drain(worker(log, MemoryStore(), config=blaming()))
    column = compile_features(blaming()).names.index("card_frauds_by_raw_why.terminal_1d")
    known = [row["x"][column] for row in journal(log) if row["outcome"] == "scored"]
    said = [row["raw_why.terminal"] for row in journal(log) if row["outcome"] == "scored"]
    assert any(value % 1 for value in known)
    first = next(value for value in known if value)
    assert min(abs(first - one) for one in said) < 1e-6  # one fraud, by what its head said


def test_a_head_that_is_not_declared_is_a_problem() -> None:
    """The message names the heads that there are."""
    with pytest.raises(ConfigError) as caught:
        compile_features(blaming("raw:why.shop"))
    (problem,) = caught.value.problems
    assert problem.expected == "a declared model: why, why.card, why.terminal"
