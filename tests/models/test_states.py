"""A model's state goes out as plain values and comes back; nothing in it can name what runs."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest
from river import anomaly, linear_model

from tests.models.declared import NAMES, every_preset
from worker.contracts.settings import ModelSettings
from worker.errors import StateLostError
from worker.models.attribution import forked
from worker.models.batch import Batch
from worker.models.catalogue import build_model_set
from worker.models.plain import pack, unpack
from worker.models.structure import allowed, from_plain, to_plain
from worker.models.versioned import ModelSet

DECLARED: dict[str, ModelSettings] = {
    **every_preset(),
    "forest of trees": ModelSettings(river="forest.ARFClassifier", params={"n_models": 3}),
    "bagging": ModelSettings(
        river={"ensemble.ADWINBaggingClassifier": {"model": {"tree.HoeffdingTreeClassifier": {}}}}
    ),
    "naive bayes": ModelSettings(river="naive_bayes.GaussianNB"),
    "adam": ModelSettings(
        river={"linear_model.LogisticRegression": {"optimizer": {"optim.Adam": {}}}}
    ),
    "one-class svm": ModelSettings(river="anomaly.OneClassSVM"),
    "nearest neighbours": ModelSettings(
        river={"neighbors.KNNClassifier": {"engine": {"neighbors.SWINN": {}}}}
    ),
}


def build(name: str) -> ModelSet:
    return build_model_set({"m": DECLARED[name]}, NAMES, seed=3)


def teach(models: ModelSet, seed: int, n: int = 300) -> np.ndarray:
    b = batch_of(models, seed, n)
    return models.score_learn(b.X, b.learn_x, b.learn_y, b.learn_weight, b.learn_before)


def batch_of(models: ModelSet, seed: int, n: int = 300) -> Batch:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1.0, 100.0, 0.01]
    y = (X[:, 0] > 0.5).astype(np.int8) if models.learns_from_labels else np.full(n, -1, np.int8)
    return Batch(NAMES, X, X, y, np.ones(n), np.arange(1, n + 1))


@pytest.mark.parametrize("name", DECLARED)
def test_a_restored_model_goes_on_identically(name: str) -> None:
    """State to bytes and back in a fresh model: equal hash, equal scores, equal bytes later."""
    first, second = build(name), build(name)
    teach(first, 1)
    data = pack(first.to_state())
    second.restore(unpack(data))
    assert second.state_hash() == first.state_hash() != build(name).state_hash()
    assert pack(second.to_state()) == data
    assert teach(second, 2).tobytes() == teach(first, 2).tobytes()
    assert second.state_hash() == first.state_hash()


@pytest.mark.parametrize("name", DECLARED)
def test_a_model_that_learned_nothing_can_be_restored_too(name: str) -> None:
    """Over one that has learned: it is as new then."""
    fresh, used = build(name), build(name)
    teach(used, 1)
    used.restore(unpack(pack(fresh.to_state())))
    assert used.state_hash() == build(name).state_hash()
    assert teach(used, 2).tobytes() == teach(build(name), 2).tobytes()


@pytest.mark.parametrize("n", [0, 20, 300])
@pytest.mark.parametrize("name", every_preset())
def test_a_fork_learns_on_its_own(name: str, n: int) -> None:
    """Before, in and after the warm-up: what a copy learns leaves the model as it was, and both
    go on alike.
    """
    models = build(name)
    if n:
        teach(models, 1, n)
    before, other = models.state_hash(), build(name)
    other.restore(unpack(pack(models.to_state())))
    copied = forked(models["m"])
    batch = batch_of(models, 2)
    scores = copied.score_learn(batch)
    assert models.state_hash() == before
    assert models["m"].score_learn(batch).tobytes() == scores.tobytes()
    assert models["m"].state_hash() == copied.state_hash()
    assert teach(other, 2).tobytes() == scores.reshape(300, -1).tobytes()


@pytest.mark.parametrize("name", DECLARED)
def test_a_state_of_other_settings_is_refused(name: str) -> None:
    """Another kind of model, another name, features in another order, or bytes cut short."""
    state = build(name).to_state()
    other = "naive bayes" if name != "naive bayes" else "adam"
    with pytest.raises(StateLostError):
        build(other).restore(state)
    renamed = build_model_set({"n": DECLARED[name]}, NAMES, seed=3)
    turned = build_model_set({"m": DECLARED[name]}, NAMES[::-1], seed=3)
    for models in (renamed, turned):
        with pytest.raises(StateLostError):
            models.restore(state)
    data = pack(state)
    for stop in (0, 1, len(data) // 2, len(data) - 1):
        with pytest.raises(StateLostError):
            unpack(data[:stop])


REFUSED = [
    "os.system", "builtins.eval", "builtins.getattr", "subprocess.Popen",
    "river.anomaly.hst.random", "river.stats.no_such", "worker.errors.StateLostError",
    "river.datasets.phishing.Phishing",
    "river.anomaly.hst.make_padded_tree.__globals__", "river.compose.pipeline.os", "", "river",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_outside_of_the_list_is_refused(name: str) -> None:
    """Modules, what River only imported, data sets, and anything that is not River's."""
    with pytest.raises(StateLostError):
        allowed(name)


def canaries() -> dict[str, Any]:
    """Every way in which an object could name the function that is to run."""
    touch = "posix.mkdir"
    call = [["call", touch, ["canary"], None, [], []]]
    return {
        "a call": {"root": ["object", 0], "objects": call},
        "a constructor": {
            "root": ["object", 0],
            "objects": [["new", "subprocess.Popen", [["tuple", ["true"]]], None, [], []]],
        },
        "a partial": {
            "root": ["object", 0],
            "objects": [["partial", ["name", touch], ["tuple", ["canary"]], ["object", 1]],
                        ["dict", []]],
        },
        "a method": {
            "root": ["object", 0],
            "objects": [["method", "text", "upper"]],
        },
        "a name": {"root": ["name", touch], "objects": []},
    }  # fmt: skip


@pytest.mark.parametrize("case", canaries())
def test_a_canary_does_not_run(case: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is refused before anything it names is called."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StateLostError):
        from_plain(unpack(pack(canaries()[case])))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [lambda: 0, random, functools.partial(print, 1), iter([1])])
def test_what_has_no_plain_form_is_said_when_it_goes_out(value: Any) -> None:
    """A lambda or a foreign function is refused when the snapshot is made, not when it is read."""
    model = linear_model.LogisticRegression()
    model.extra = value
    with pytest.raises(TypeError):
        to_plain(model)


def test_shared_parts_and_cycles_stay_what_they_are() -> None:
    """An object met twice is one object afterwards."""
    inner = anomaly.HalfSpaceTrees(n_trees=1, height=1)
    holder: list[Any] = [inner, inner, (1 << 100, -0.0)]
    holder.append(holder)
    again = from_plain(unpack(pack(to_plain(holder))))
    assert again[0] is again[1]
    assert again[3] is again
    assert repr(again[2]) == repr((1 << 100, -0.0))
