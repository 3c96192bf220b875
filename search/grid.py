"""Grid search over a define-by-run space: every combination once, in a seeded random order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

GRID_POINTS = 3


class GridExhausted(Exception):
    """Every combination has been proposed."""


class _Node:
    """A choice that the space makes after the choices above it; children are made as needed."""

    def __init__(self) -> None:
        self.width: int | None = None
        self.children: dict[int, _Node] = {}
        self.done = False

    def close(self) -> None:
        self.done = self.width is None or (
            len(self.children) == self.width and all(c.done for c in self.children.values())
        )


class GridSampler(optuna.samplers.RandomSampler):
    """Descends the tree of choices to a leaf that was not visited yet.

    Floats and integers take `GRID_POINTS` values, evenly spaced (on the logarithmic scale where
    the space says so), ends included. Optuna's own grid needs every value listed beforehand, and
    its brute-force sampler refuses continuous ranges.
    """

    def __init__(self) -> None:
        """Begins with nothing visited."""
        super().__init__()
        self._random = np.random.default_rng()
        self._root = _Node()
        self._path: list[_Node] = []

    def begin(self, seed: int) -> None:
        """Starts a descent; to be called before each `study.ask`.

        Args:
            seed: decides where to go at each choice; the next descent takes another one.

        Raises:
            GridExhausted: nothing is left.
        """
        if self._root.done:
            raise GridExhausted
        self._random = np.random.default_rng(seed)
        self._path = [self._root]

    def visit(
        self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
    ) -> None:
        """Marks what was proposed before, by parameters in the order of the space's choices."""
        self._path = [self._root]
        for name, distribution in distributions.items():
            if distribution.single():
                continue  # Optuna never asks a sampler about it: it is no step of a descent.
            values = grid_values(distribution)
            node = self._path[-1]
            node.width = len(values)
            index = values.index(params[name])
            self._path.append(node.children.setdefault(index, _Node()))
        self.end()

    def end(self) -> None:
        """Marks the leaf that the space reached, and whatever is complete above it."""
        for node in reversed(self._path):
            node.close()

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The next step of the descent."""
        values = grid_values(param_distribution)
        node = self._path[-1]
        node.width = len(values)
        open_ = [i for i in range(len(values)) if not _is_done(node, i)]
        index = int(self._random.choice(open_))
        self._path.append(node.children.setdefault(index, _Node()))
        return values[index]


def _is_done(node: _Node, index: int) -> bool:
    child = node.children.get(index)
    return child is not None and child.done


def grid_values(distribution: BaseDistribution, points: int = GRID_POINTS) -> list[Any]:
    """The values of a parameter on the grid: all choices, or `points` of a range, ascending."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"no grid over a {type(distribution).__name__}")
    low, high = distribution.low, distribution.high
    space = np.geomspace if distribution.log else np.linspace
    values = [min(max(float(v), low), high) for v in space(low, high, points)]
    if distribution.step:
        step = distribution.step
        values = [min(low + round((value - low) / step) * step, high) for value in values]
    if isinstance(distribution, IntDistribution):
        values = [round(value) for value in values]
    return sorted(set(values))
