"""From settings to models: everything wrong is told at once, with its place and a near name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from river import linear_model, naive_bayes

from tests.models.declared import NAMES as ABC
from tests.models.declared import PARAMS, declared
from tests.worlds import settings as world
from worker.contracts.settings import ModelSettings
from worker.errors import ConfigError, Problem
from worker.features.spec import compile_features
from worker.models.catalogue import PRESETS, build_model_set, check_models
from worker.models.river_model import RiverModel

NAMES = ("amount", "amount_mean_7d", "n_1h")


def build(seed: int = 0, **words: Any) -> Any:
    return build_model_set({"m": ModelSettings(**words)}, NAMES, seed)["m"]


def problems(**words: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        build(**words)
    return caught.value.problems


def only(**words: Any) -> Problem:
    [problem] = problems(**words)
    return problem


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module with factories that can be imported by name."""
    (tmp_path / "riverwatch_test_factories.py").write_text(
        "from river import naive_bayes, preprocessing\n"
        "def bayes(): return naive_bayes.GaussianNB()\n"
        "def seeded(seed): return naive_bayes.BernoulliNB(alpha=seed)\n"
        "def scaler(): return preprocessing.StandardScaler()\n"
        "def broken(): raise OSError('no such file')\n"
        "number = 7\n"
        "class Own(naive_bayes.GaussianNB): pass\n"
        "def unwritable(): return Own()\n"
        "def weighted(weight_positive): return naive_bayes.GaussianNB()\n"
        "class Slow(naive_bayes.GaussianNB):\n"
        "    count = 0\n"
        "    def learn_one(self, x, y):\n"
        "        self.count += 1\n"
        "        if self.count < 4: raise ValueError\n"
        "        super().learn_one(x, y)\n"
        "def slow(): return Slow()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "riverwatch_test_factories"
    sys.modules.pop("riverwatch_test_factories", None)


FACTORY = "riverwatch_test_factories:unwritable"
CHECKED = (
    ({"models": {"m": {"preset": "logistic", "features": ["card_cuont_1h"]}}},
     ("models", "m", "features", 0), "the name of a feature", "card_count_1h"),
    ({"models": {"m": {"preset": "binned_logistic", "params": {"crosses": [["amount", "x"]]}}}},
     ("models", "m", "params"), "the name of a feature of this model", ""),
    ({"drift": [{"on": "score", "window": 100}]},
     ("drift", 0, "window"), "window only with on: features", ""),
    ({"drift": [{"on": "features", "detector": "kswin"}]},
     ("drift", 0, "detector"), "detector only with on: score or error", ""),
    ({"drift": [{"on": "features", "factor": 3}]},
     ("drift", 0, "factor"), "factor only with do: raise_learning_rate", ""),
    ({"drift": [{"on": "score", "model": "odd", "do": "raise_learning_rate"}]},
     ("drift", 0, "do"), "another action", "odd takes no weights"),
    ({"drift": [{"on": "error", "do": "raise_learning_rate"}],
      "models": {"m": {"preset": "adaptive_forest"}}, "decision": {"model": "m", "threshold": 0.6}},
     ("drift", 0, "do"), "another action", "m takes no weights"),
    ({"drift": [{"on": "features", "do": "reset"}], "models": {"m": {"factory": FACTORY}}},
     ("models", "m"), "a model whose state can be written down, for drift with do: reset", ""),
    ({"snapshots": {"directory": "x", "key": "long enough to be one"},
      "models": {"m": {"factory": FACTORY}}},
     ("models", "m"), "a model whose state can be written down, for snapshots", ""),
)  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "expected", "hint"), CHECKED)
def test_what_would_fail_or_do_nothing_later_is_told_by_the_check(
    changes: dict[str, Any], path: tuple[str | int, ...], expected: str, hint: str, factories: str
) -> None:
    """With the names of the features, before anything runs."""
    config = world(**changes)
    with pytest.raises(ConfigError) as caught:
        check_models(config, compile_features(config).names)
    (problem,) = caught.value.problems
    assert (problem.path, problem.expected) == (path, expected)
    assert hint in problem.hint
    assert f"expected {expected}, got {problem.got}" in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_truly_whether_it_has_a_twin_that_can_be_turned_off(name: str) -> None:
    """Compiled or not is one flag; the preset says what it is for, with an example."""
    words = " ".join(str(PRESETS[name].__doc__).split())
    assert ">>>" in words
    has_twin = "It has a compiled twin" in words
    model, plain = (
        build_model_set({"m": declared(name, compiled=c)}, ABC, 0)["m"] for c in (True, False)
    )
    assert isinstance(plain, RiverModel)
    assert isinstance(model, RiverModel) is not has_twin


def test_every_preset_can_be_declared() -> None:
    """A preset with an argument that has no default is told it here."""
    for name, factory in PRESETS.items():
        known = inspect.signature(factory).parameters.values()
        needed = {p.name for p in known if p.default is p.empty}
        assert needed <= set(PARAMS.get(name, {})), name


def test_the_seed_reaches_every_estimator_that_takes_one() -> None:
    """A preset and a path get the configured seed, deep inside too; a given one is kept."""
    assert build(5, preset="half_space_trees").to_river()[2].seed == 5
    assert build(5, preset="half_space_trees", params={"seed": 8}).to_river()[2].seed == 8
    nested = {
        "ensemble.BaggingClassifier": {"model": {"forest.ARFClassifier": {"n_models": 2}}},
    }
    bagging = build(5, river=nested).to_river()
    assert (bagging.seed, bagging.model.seed) == (5, 5)


def test_a_mapping_names_a_nested_object() -> None:
    """An optimizer and its schedule are given as paths with parameters; other mappings are data."""
    river = {
        "linear_model.LogisticRegression": {
            "optimizer": {"optim.SGD": {"lr": {"optim.schedulers.InverseScaling": {
                "learning_rate": 0.5}}}},
        }
    }  # fmt: skip
    optimizer = build(river=river).to_river().optimizer
    assert optimizer.lr.get(3) == 0.5 / 2.0
    limits = {"anomaly.HalfSpaceTrees": {"limits": {"amount": [0, 9]}}}
    assert build(river=limits).to_river().limits["amount"] == [0, 9]


def test_a_plain_path_takes_the_params_of_the_model() -> None:
    """`river: path` with `params` is the short form of a mapping."""
    model = build(river="linear_model.PAClassifier", params={"C": 0.3}).to_river()
    assert isinstance(model, linear_model.PAClassifier)
    assert model.C == 0.3


def test_a_factory_is_called_with_params_and_seed(factories: str) -> None:
    """The function's estimator is taken; it gets the seed where it asks for one."""
    assert isinstance(build(factory=f"{factories}:bayes").to_river(), naive_bayes.GaussianNB)
    assert build(4, factory=f"{factories}:seeded").to_river().alpha == 4


def test_an_unknown_preset_names_the_nearest() -> None:
    """The problem points at the preset and offers the right name."""
    expected = "the name of a preset"
    hint = "did you mean half_space_trees?"
    assert only(preset="half_space_tree") == Problem(
        ("models", "m", "preset"), expected, "'half_space_tree'", hint
    )


def test_an_unknown_parameter_names_the_nearest() -> None:
    """The problem points at the parameter, of a preset as of a path."""
    problem = only(preset="half_space_trees", params={"n_tree": 3})
    assert problem.path == ("models", "m", "params", "n_tree")
    assert problem.hint == "did you mean n_trees?"
    assert only(river="tree.HoeffdingTreeClassifier", params={"grace": 3}).got == "'grace'"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("linear_model.LogisticRegresion", "linear_model.LogisticRegression"),
        ("anomaly.halfspacetrees", "anomaly.HalfSpaceTrees"),
        ("os.system", ""),
        ("linear_model.base.np.Save", ""),
        ("river.linear_model.LogisticRegression", "linear_model.LogisticRegression"),
        ("utils.VectorDict", ""),
        ("__import__", ""),
    ],
)
def test_only_estimators_below_river_can_be_named(path: str, hint: str) -> None:
    """Anything else is refused before it is imported or called."""
    problem = only(river=path)
    assert problem.path == ("models", "m", "river")
    assert hint in problem.hint


def test_every_mistake_of_every_model_is_told() -> None:
    """Two models with four mistakes give four problems, in order."""
    declared = {
        "one": ModelSettings(preset="nope", features=("amuont", "n_1h", "n_1h")),
        "two": ModelSettings(river=("preprocessing.StandardScaler", "linear_model.Nope")),
    }
    with pytest.raises(ConfigError) as caught:
        build_model_set(declared, NAMES, 0)
    assert [p.path for p in caught.value.problems] == [
        ("models", "one", "features", 0),
        ("models", "one", "features", 2),
        ("models", "one", "preset"),
        ("models", "two", "river", 1),
    ]
    assert caught.value.problems[0].hint.startswith("did you mean amount")


@pytest.mark.parametrize("given", [{}, {"preset": "logistic", "river": "tree.SGTClassifier"}])
def test_a_model_has_exactly_one_source(given: dict[str, Any]) -> None:
    """None and two are both refused."""
    assert only(**given).expected == "exactly one of preset, river, factory"


REFUSED = {
    "a regressor": {"river": "linear_model.LinearRegression"},
    "a scaler alone": {"river": "preprocessing.StandardScaler"},
    "a classifier in the middle": {"river": ("naive_bayes.GaussianNB", "tree.SGTClassifier")},
    "no steps": {"river": ()},
    "two keys in a step": {"river": {"tree.SGTClassifier": None, "tree.iSOUPTreeRegressor": None}},
    "params beside a list": {"river": ("tree.SGTClassifier",), "params": {"delta": 1}},
    "a value that is refused": {"preset": "logistic", "params": {"optimizer": "rmsprop"}},
    "a missing parameter": {"river": "ensemble.BaggingClassifier"},
    "parameters that are no mapping": {
        "river": ({"linear_model.LogisticRegression": {"optimizer": {"optim.SGD": 3}}},)
    },
    "no features": {"preset": "logistic", "features": ()},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_serve_is_refused(case: str) -> None:
    """Each gives exactly one problem below the model, with what was expected."""
    problem = only(**REFUSED[case])
    assert problem.path[:2] == ("models", "m")
    assert problem.expected
    assert problem.got


@pytest.mark.parametrize("name", ["missing", "number", "scaler", "broken"])
def test_a_factory_that_gives_no_estimator_is_refused(factories: str, name: str) -> None:
    """Not there, not a function, not an estimator that scores, or raising: one problem each."""
    assert only(factory=f"{factories}:{name}").path == ("models", "m", "factory")


@pytest.mark.parametrize("name", ["os", "os:", ":make"])
def test_a_factory_that_names_no_function_says_how_to(name: str) -> None:
    """Not that a module has no attribute of an empty name."""
    assert only(factory=name) == Problem(
        ("models", "m", "factory"), "module:function", repr(name),
        "for example detectors.cards:make",
    )  # fmt: skip


def test_a_module_that_is_not_there_is_refused() -> None:
    """The error of the import is in the hint."""
    assert "no_such_module" in only(factory="no_such_module:make").hint


WRONG_PARTS = {
    "every positive": {"river": {"linear_model.LogisticRegression": {
        "loss": {"optim.losses.Log": {"weight_pos": "20"}}}}},
    "every example": {"river": {"linear_model.LogisticRegression": {"l2": "a"}}},
    "the twin": {"river": ("preprocessing.StandardScaler",
                           {"linear_model.LogisticRegression": {"l2": "a"}})},
    "every score": {"river": "neighbors.KNNClassifier", "params": {"n_neighbors": "x"}},
    "a height": {"river": "anomaly.HalfSpaceTrees", "params": {"height": "8"}},
    "a member": {"preset": "blend", "params": {"models": [
        "logistic", {"naive_bayes.BernoulliNB": {"alpha": "x"}}]}},
    "a factory": {"factory": "riverwatch_test_factories:seeded", "params": {"seed": "x"}},
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_PARTS)
def test_a_model_that_fails_at_every_example_is_told_by_the_check(
    case: str, factories: str
) -> None:
    """It is tried with a few examples: nothing says which parameters a River estimator can use."""
    config = world(models={"m": WRONG_PARTS[case]})
    with pytest.raises(ConfigError) as caught:
        check_models(config, compile_features(config).names)
    (problem,) = caught.value.problems
    assert problem.path[:2] == ("models", "m")
    assert problem.expected == "an estimator that learns and scores"
    assert "Error: " in problem.got, problem.got
    assert problem.hint == "a parameter of a wrong type or range does this"


def test_a_factory_may_call_its_parameters_as_it_likes(factories: str) -> None:
    """`weight_positive` is a number for presets only."""
    build(factory=f"{factories}:weighted", params={"weight_positive": "high"})


def test_an_estimator_that_begins_with_failures_is_not_refused(factories: str) -> None:
    """What it does at last counts: some must see an example of each class first."""
    config = world(models={"m": {"factory": f"{factories}:slow"}})
    check_models(config, compile_features(config).names)
