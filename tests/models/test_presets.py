"""Parameters of presets: a wrong type or range is told by the check, not found by the stream."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.models.declared import NAMES, PARAMS
from worker.contracts.settings import ModelSettings
from worker.errors import ConfigError, Problem
from worker.models.catalogue import build_model_set
from worker.models.checking import param_words
from worker.models.presets import PRESETS, blend


def problems(preset: str, **params: Any) -> list[Problem]:
    words = {**PARAMS.get(preset, {}), **params}
    with pytest.raises(ConfigError) as caught:
        build_model_set({"m": ModelSettings(preset=preset, params=words)}, NAMES, 0)
    return caught.value.problems


WRONG: tuple[tuple[str, str, Any, str, str], ...] = (
    ("logistic", "lr", "abc", "a number above 0", "'abc'"),
    ("logistic", "lr", None, "a number above 0", "null"),
    ("logistic", "lr", 0, "a number above 0", "0"),
    ("logistic", "lr", True, "a number above 0", "True"),
    ("logistic", "lr", float("nan"), "a number above 0", "nan"),
    ("logistic", "lr", float("inf"), "a number above 0", "inf"),
    ("logistic", "lr", [0.1], "a number above 0", "a list of 1"),
    ("logistic", "l2", "a", "a number of 0 or more", "'a'"),
    ("logistic", "l2", -0.1, "a number of 0 or more", "-0.1"),
    ("logistic", "intercept_lr", "z", "a number of 0 or more", "'z'"),
    ("logistic", "weight_positive", None, "a number above 0", "null"),
    ("logistic", "weight_positive", "20", "a number above 0", "'20'"),
    ("logistic", "optimizer", "rmsprop", "one of sgd, adagrad, adam", "'rmsprop'"),
    ("binned_logistic", "bins", 8.5, "a whole number from 2 to 256", "8.5"),
    ("binned_logistic", "bins", 1, "a whole number from 2 to 256", "1"),
    ("binned_logistic", "warm_up", 50.5, "a whole number from 8 to 1,000,000", "50.5"),
    ("causes", "intercept_init", "low", "a number", "'low'"),
    ("adaptive_forest", "grace_period", 2.5, "a whole number of 1 or more", "2.5"),
    ("half_space_trees", "window_size", 250.5, "a whole number of 1 or more", "250.5"),
    ("half_space_trees", "window_size", 0, "a whole number of 1 or more", "0"),
    ("half_space_trees", "height", "8", "a whole number from 1 to 24", "'8'"),
    ("half_space_trees", "height", 2.5, "a whole number from 1 to 24", "2.5"),
    ("half_space_trees", "n_trees", 0, "a whole number of 1 or more", "0"),
    ("half_space_trees", "seed", "x", "a whole number", "'x'"),
    ("mahalanobis", "warm_up", 9, "a whole number from 10 to 1,000,000,000", "9"),
    ("blend", "share", 2, "a number from 0 to 1", "2"),
)


@pytest.mark.parametrize(("preset", "key", "value", "expected", "got"), WRONG)
def test_a_parameter_of_a_wrong_type_or_range_is_told_with_its_place(
    preset: str, key: str, value: Any, expected: str, got: str
) -> None:
    """Else the start would fail, or every example, or nothing would be learned and nobody told."""
    (problem,) = problems(preset, **{key: value})
    assert problem.path == ("models", "m", "params", key)
    assert (problem.expected, problem.got) == (expected, got)


def test_every_mistake_in_the_parameters_is_told() -> None:
    """Two wrong values and an unknown name are three problems."""
    paths = [one.path[-1] for one in problems("logistic", lr="a", l2=-1, rate=3)]
    assert sorted(map(str, paths)) == ["l2", "lr", "rate"]


def test_a_text_that_looks_like_a_number_says_why_it_is_none() -> None:
    """Quotes and ${NAME} give texts."""
    (problem,) = problems("logistic", lr="0.1")
    assert problem.hint == "write it without quotes; what ${NAME} gives is a text"
    assert problems("logistic", lr="fast")[0].hint == ""


@pytest.mark.parametrize(
    ("preset", "key", "value", "place", "got"),
    [
        ("binned_logistic", "crosses", [["a", "b"], ["a"]], (1,), "a list of 1"),
        ("binned_logistic", "crosses", ["ab"], (0,), "'ab'"),
        ("binned_logistic", "crosses", [["a", 3]], (0, 1), "3"),
        ("binned_logistic", "crosses", "ab", (), "'ab'"),
        ("causes", "heads", {"card": []}, ("card",), "an empty list"),
        ("causes", "heads", {"card": "a"}, ("card",), "'a'"),
        ("causes", "heads", {}, (), "an empty mapping"),
        ("adaptive_forest", "max_features", "sqr", (), "'sqr'"),
        ("adaptive_forest", "max_features", 0, (), "0"),
        ("blend", "models", ["logistic"], (), "a list of 1"),
        ("blend", "models", ["logistic", {"logistic": None, "causes": None}], (1,),
         "a mapping of 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_inside_a_list_or_a_mapping_is_told_there(
    preset: str, key: str, value: Any, place: tuple[str | int, ...], got: str
) -> None:
    """The path goes as far down as the mistake lies."""
    (problem,) = problems(preset, **{key: value})
    assert (problem.path, problem.got) == (("models", "m", "params", key, *place), got)
    assert problem.expected


@pytest.mark.parametrize("value", ["sqrt", "log2", 2, 0.5, None])
def test_a_split_of_the_forest_may_choose_from_some_a_share_or_all(value: Any) -> None:
    """As River has it."""
    words = {**PARAMS["adaptive_forest"], "max_features": value}
    build_model_set({"m": ModelSettings(preset="adaptive_forest", params=words)}, NAMES, 0)


def test_a_forest_that_no_memory_holds_is_refused() -> None:
    """River would build all its nodes one by one."""
    (problem,) = problems("half_space_trees", height=24)
    assert problem.path == ("models", "m", "preset")
    assert "at most 67,108,864" in problem.got


def test_a_whole_number_is_a_number() -> None:
    """`lr: 1` needs no decimal point."""
    build_model_set({"m": ModelSettings(preset="logistic", params={"lr": 1, "l2": 0})}, NAMES, 0)


def test_a_wrong_parameter_of_a_member_of_a_blend_is_told_where_it_stands() -> None:
    """Of a preset as of a path; all of them at once."""
    members = [
        {"logistic": {"lr": "x"}},
        {"logistic": {"rate": 1}},
        {"naive_bayes.GausianNB": None},
        {"naive_bayes.BernoulliNB": {"alhpa": 1}},
    ]
    found = problems("blend", models=members)
    here = ("models", "m", "params", "models")
    assert [one.path for one in found] == [
        (*here, 0, "logistic", "lr"),
        (*here, 1, "logistic", "rate"),
        (*here, 2, "naive_bayes.GausianNB"),
        (*here, 3, "naive_bayes.BernoulliNB", "alhpa"),
    ]
    assert found[0].expected == "a number above 0"


def test_a_blend_that_is_called_keeps_every_name_of_a_mapping_or_refuses() -> None:
    """A factory of somebody's own may call it: no member is dropped in silence."""
    with pytest.raises(ConfigError, match="2 keys"):
        blend(models=["logistic", {"naive_bayes.GaussianNB": None, "logistic": None}])


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_of_every_preset_says_in_words_what_it_takes(name: str) -> None:
    """A new preset is held to it without a line here; its default is one of what it takes."""
    words = param_words(PRESETS[name])
    known = inspect.signature(PRESETS[name]).parameters
    assert list(words) == list(known)
    assert all(words.values()), words
    defaults = {k: p.default for k, p in known.items() if p.default is not p.empty}
    params = {**defaults, **PARAMS.get(name, {})}
    build_model_set({"m": ModelSettings(preset=name, params=params)}, NAMES, 0)
