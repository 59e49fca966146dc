"""The compiled twin of River's `MinMaxScaler | HalfSpaceTrees`."""

from __future__ import annotations

import copy
import math
from typing import Any  # River's classes have no types

import numpy as np
from numpy.typing import NDArray
from river import anomaly, compose, preprocessing
from river.tree import padded

from worker.contracts.records import Float64
from worker.models import forest_kernels as kernels
from worker.models.batch import Batch
from worker.models.contributions import of_half_spaces
from worker.models.plain import State, fit
from worker.models.reasons import Measure
from worker.models.twin import CompiledTwin

_BRANCH: Any = padded.PaddedBranch  # Any: their constructors have no types
_LEAF: Any = padded.PaddedLeaf

NODES_MAX = 1 << 26
"""Largest forest that gets a twin: 16 bytes a node."""


class ForestTwin(CompiledTwin):
    """`MinMaxScaler | HalfSpaceTrees` over flat arrays, bit-identical to River 0.26.

    Made by `twins.twin_of`. The trees are drawn at the first example, from the same generator in
    the same order as River draws them. Cost of 10 trees of height 8: 1 to 2 µs to score and learn.

    Parameters
    ----------
    pipeline
        The River pipeline; it is copied with what it has learned.
    names
        The features of every row, in order.
    """

    kind = "forest_twin"
    learned = ("_ranges", "_counters", "_whole")
    learns_from_labels = False
    measure: Measure = "score"

    def __init__(self, pipeline: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._template = copy.deepcopy(pipeline)
        self._names = names
        scaler, forest = self._template.steps.values()
        self._ranges = _ranges(scaler, names)
        self._height, self._window_size = forest.height, forest.window_size
        self._size = (1 << (forest.height + 1)) - 1  # nodes of a tree
        self._n_trees = forest.n_trees
        self._allocate()
        self._counters = np.array(
            [forest.counter, forest._first_window, bool(scaler.min), 0], dtype=np.int64
        )
        for tree, root in enumerate(forest.trees):
            self._read_tree(tree, root)
        if forest.trees:
            self._keep_splits()
        forest.trees, forest._tree_nodes = [], []

    def score_learn(self, batch: Batch) -> Float64:
        """Return the anomaly score of each event, learning in between, in one kernel."""
        chosen = self.examples(batch)
        if len(chosen) and not self._is_grown:
            self._grow()
        scores = np.empty(len(batch.X))
        kernels.score_learn(
            np.ascontiguousarray(batch.X), batch.scorable,
            np.ascontiguousarray(batch.learn_x[chosen]), batch.learn_before[chosen],
            self._ranges, self._nodes, self._whole, self._counters, self._n_trees, self._height,
            self._window_size, np.empty((kernels.ROWS, len(self._names))),
            np.empty((5, kernels.ROWS), np.int64), scores,
        )  # fmt: skip
        return self.served(scores)

    def contributions(self, x: Float64, usual: Float64) -> Float64:
        """Return the Shapley values of the features in the score, beside a usual event."""
        if self._counters[kernels.IS_FIRST_WINDOW]:
            return np.zeros(len(x))
        window, (z, z_usual) = int(self._counters[kernels.WINDOW]), np.empty((2, len(x)))
        kernels.scale(x, self._ranges[0], self._ranges[1], z)
        kernels.scale(usual, self._ranges[0], self._ranges[1], z_usual)

        event, other = z.tolist(), z_usual.tolist()

        def split(p: int, depth: int) -> tuple[int, int, int, int]:
            feature, stamp, recent, reference = self._whole[p, kernels.FEATURE :].tolist()
            mass = reference if stamp == window else recent if stamp == window - 1 else 0
            threshold = self._nodes.item(p, kernels.THRESHOLD)
            left = 2 * p + 1 - p // self._size * self._size
            goes_right = event[feature] >= threshold, other[feature] >= threshold
            return mass, feature, left + goes_right[0], left + goes_right[1]

        roots = range(0, len(self._whole), self._size)
        return of_half_spaces(roots, split, self._height, self._window_size, len(x))

    def fork(self) -> ForestTwin:
        """Return a copy that learns on its own, with counts of its own."""
        if not self._is_grown:
            return copy.deepcopy(self)
        other = super().fork()  # the template's generator has drawn all it ever will
        other._nodes = other._whole.view(np.float64)
        return other

    def to_state(self) -> State:
        """Return what was learned: splits of inner nodes, and the masses that are not zero.

        The splits are not copied: they never change.
        """
        window = int(self._counters[kernels.WINDOW])
        paths = 2 * self._window_size * self._n_trees * (self._height + 1)
        most = min(len(self._whole), paths)
        places, masses = np.empty(most, np.int64), np.empty((most, 2), np.uint16)
        count = kernels.masses(self._whole, self._n_trees, window, places, masses)
        version, words, _ = self._forest.rng.getstate()
        return {
            "kind": self.kind,
            "ranges": self._ranges.copy(),
            "feature": self._splits[0],
            "threshold": self._splits[1],
            "places": places[:count],
            "masses": masses[:count],
            "counter": int(self._counters[kernels.COUNTER]),
            "is_first_window": bool(self._counters[kernels.IS_FIRST_WINDOW]),
            "random": [version, np.array(words, np.uint32)],
        }

    def take(self, state: State) -> None:
        """Take a state of this kind."""
        fit(state["ranges"], self._ranges)
        places, feature, threshold = state["places"], state["feature"], state["threshold"]
        assert not len(places) or (places.min() >= 0 and places.max() < len(self._whole))
        self._allocate()
        if feature.size:
            assert feature.max() < len(self._names)
            fit(feature, self._inner(self._whole, kernels.FEATURE))
            fit(threshold, self._inner(self._nodes, kernels.THRESHOLD))
            self._splits = feature, threshold
        self._whole[places[:, None], [kernels.RECENT, kernels.REFERENCE]] = state["masses"]
        version, words = state["random"]
        self._forest.rng.setstate((version, tuple(words.tolist()), None))
        counter, is_first = state["counter"], state["is_first_window"]
        self._counters[:] = [counter, is_first, counter > 0 or not is_first, 0]

    def to_river(self) -> Any:
        """Return a River pipeline that goes on exactly where this twin is; the twin stays."""
        pipeline = copy.deepcopy(self._template)
        scaler, forest = pipeline.steps.values()
        if self._counters[kernels.SCALER_SEEN]:
            for i, name in enumerate(self._names):
                scaler.min[name].min = float(self._ranges[0, i])
                scaler.max[name].max = float(self._ranges[1, i])
        if self._is_grown:
            for name in sorted(self._names):
                forest.limits[name]
            self._settle()
            forest.trees = [self._tree(tree, 0) for tree in range(self._n_trees)]
            forest._tree_nodes = [list(tree.iter_dfs()) for tree in forest.trees]
        forest.counter = int(self._counters[kernels.COUNTER])
        forest._first_window = bool(self._counters[kernels.IS_FIRST_WINDOW])
        return pipeline

    @property
    def _is_grown(self) -> bool:
        return bool(self._splits[0].size)

    @property
    def _forest(self) -> Any:
        return self._template[1]

    def _settle(self) -> None:
        """Bring all masses up to the running window, which becomes number 0."""
        kernels.settle(self._whole, int(self._counters[kernels.WINDOW]))
        self._counters[kernels.WINDOW] = 0

    def _allocate(self) -> None:
        """Make a forest that has not grown; its splits as they are in a state are empty."""
        self._whole = np.zeros((self._n_trees * self._size, kernels.NODE_BYTES // 2), np.uint16)
        self._nodes = self._whole.view(np.float64)
        self._splits = np.zeros((0, 0), np.uint16), np.zeros((0, 0))

    def _inner(self, nodes: NDArray[Any], column: int) -> NDArray[Any]:
        """Return a view of one column of the inner nodes, (trees, inner nodes)."""
        return nodes.reshape(self._n_trees, self._size, -1)[:, : self._size // 2, column]

    def _keep_splits(self) -> None:
        self._splits = (
            self._inner(self._whole, kernels.FEATURE).copy(),
            self._inner(self._nodes, kernels.THRESHOLD).copy(),
        )

    def _grow(self) -> None:
        order = np.array(sorted(range(len(self._names)), key=self._names.__getitem__), np.int64)
        limits = _limits(self._forest, self._names)
        for tree in range(self._n_trees):
            part = slice(tree * self._size, (tree + 1) * self._size)
            draws = self._draws(self._size // 2)
            kernels.grow(draws, order, limits, self._nodes[part], self._whole[part])
        self._keep_splits()

    def _draws(self, inner_nodes: int) -> Float64:
        """Return the next draws of River's generator: numpy's twister gives the same, faster."""
        version, words, gauss = self._forest.rng.getstate()
        twister = np.random.RandomState(0)
        twister.set_state(("MT19937", np.array(words[:-1], np.uint32), words[-1], 0, 0.0))
        draws = twister.random_sample(2 * inner_nodes)
        _, key, place, *_ = twister.get_state()
        self._forest.rng.setstate((version, (*np.asarray(key).tolist(), int(place)), gauss))
        return draws

    def _read_tree(self, tree: int, root: Any) -> None:
        columns = {name: i for i, name in enumerate(self._names)}
        nodes = [(0, root)]
        while nodes:
            i, node = nodes.pop()
            p = tree * self._size + i
            self._whole[p, kernels.RECENT] = node.l_mass
            self._whole[p, kernels.REFERENCE] = node.r_mass
            if isinstance(node, _BRANCH):
                self._whole[p, kernels.FEATURE] = columns[node.feature]
                self._nodes[p, kernels.THRESHOLD] = node.threshold
                nodes += [(2 * i + 1, node.children[0]), (2 * i + 2, node.children[1])]

    def _tree(self, tree: int, i: int) -> Any:
        node = self._whole[tree * self._size + i]
        masses = {
            "r_mass": int(node[kernels.REFERENCE]),
            "l_mass": int(node[kernels.RECENT]),
        }
        if 2 * i + 1 >= self._size:
            return _LEAF(**masses)
        return _BRANCH(
            left=self._tree(tree, 2 * i + 1),
            right=self._tree(tree, 2 * i + 2),
            feature=self._names[node[kernels.FEATURE]],
            threshold=float(self._nodes[tree * self._size + i, kernels.THRESHOLD]),
            **masses,
        )


def forest_twin_of(pipeline: Any, names: tuple[str, ...]) -> ForestTwin | None:
    """Return the twin of a pipeline, or None where it does something that the twin does not."""
    if type(pipeline) is not compose.Pipeline or len(pipeline) != 2:
        return None
    scaler, forest = pipeline.steps.values()
    if type(scaler) is not preprocessing.MinMaxScaler or scaler.window_size is not None:
        return None
    if type(forest) is not anomaly.HalfSpaceTrees or not _is_plain(forest, names):
        return None
    return ForestTwin(pipeline, names) if _has_state_of(scaler, forest, names) else None


def _is_plain(forest: Any, names: tuple[str, ...]) -> bool:
    """Return whether the forest's parameters are ones for which the kernels are exact."""
    sizes = (forest.n_trees, forest.height, forest.window_size)
    if any(type(size) is not int or size < 1 for size in sizes) or forest.height > 24:
        return False
    limits = _limits(forest, names)
    return (
        forest.n_trees << (forest.height + 1) <= NODES_MAX
        and forest._max_score < 1 << 53
        and max(forest.window_size, len(names)) <= kernels.UINT16_MAX
        and bool(np.isfinite(limits).all())
        and bool((limits[0] < limits[1]).all())
        and math.isfinite(float((limits[1] - limits[0]).sum()))
    )


def _has_state_of(scaler: Any, forest: Any, names: tuple[str, ...]) -> bool:
    """Return whether what was learned is about exactly these features, or nothing was."""
    ranges = set(scaler.min)
    split_on = {n.feature for nodes in forest._tree_nodes for n in nodes if hasattr(n, "feature")}
    is_untouched = not forest.trees and forest.counter == 0 and forest._first_window
    return (
        ranges == set(scaler.max)
        and ranges in (set(), set(names))
        and split_on <= set(names)
        and (bool(forest.trees) or is_untouched)
    )


def _limits(forest: Any, names: tuple[str, ...]) -> Float64:
    """Return the declared range of each feature, (2, f); River's default is 0 to 1."""
    return np.array([forest.limits.get(name, (0.0, 1.0)) for name in names], np.float64).T.copy()


def _ranges(scaler: Any, names: tuple[str, ...]) -> Float64:
    low = [scaler.min[n].min if n in scaler.min else math.inf for n in names]
    high = [scaler.max[n].max if n in scaler.max else -math.inf for n in names]
    return np.array([low, high], dtype=np.float64)
