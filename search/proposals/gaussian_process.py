"""Gaussian-process regression with a length scale per column, learnt noise, and priors.

Our own, against the rule that a library beats our code: scikit-learn's `GaussianProcessRegressor` builds the gradient
of the kernel as an array of [rows, rows, columns]. A fit of 300 rows of 30 columns took it 4.5 s, this one 0.35 s
(benchmarks/search.md), and a question may take 0.15 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROOT5 = sqrt(5.0)
SCALE_SPREAD = sqrt(3.0)  # of the logarithm of a length scale; its centre grows with the columns: see `_centre`
NOISE = (log(0.1), 1.0)  # mean and spread of the logarithm of the noise's variance, of targets of variance 1
AMPLITUDE = (0.0, 0.7)  # likewise of the function's
LEAST_NOISE, MOST_STEPS = 1e-4, 40
JITTER = 1e-8


@dataclass(frozen=True)
class Hyperparameters:
    """What a fit learns; logarithms, all of standardised targets."""

    scales: Array  # [columns]: log length scales
    amplitude: float  # log variance of the function
    noise: float  # log variance of the noise

    @classmethod
    def prior(cls, n_columns: int) -> Hyperparameters:
        """What is expected before anything was seen."""
        return cls(np.full(n_columns, _centre(n_columns)), AMPLITUDE[0], NOISE[0])

    @property
    def vector(self) -> Array:
        """All in one: [columns + 2]."""
        return np.concatenate([self.scales, [self.amplitude, self.noise]])

    @classmethod
    def of(cls, vector: Array) -> Hyperparameters:
        """The inverse of `vector`."""
        return cls(vector[:-2], float(vector[-2]), float(vector[-1]))


@dataclass(frozen=True)
class Process:
    """A Gaussian process (Matern 5/2) that has seen rows of a unit cube. Rasmussen and Williams 2006, algorithm 2.1."""

    x: Array  # [rows, columns]
    y: Array  # [rows]: targets
    variance: Array  # [rows]: of each target beyond the noise, in units of the targets squared
    learnt: Hyperparameters
    standard: tuple[float, float]  # mean and standard deviation that targets are freed of; see `standard`

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        """(Cholesky factor of the rows' covariance, covariance^-1 @ targets)."""
        from scipy.linalg import cho_solve, cholesky

        mean, spread = self.standard
        factor = cholesky(_covariance(self.x, self.learnt, self.variance / spread**2)[0], lower=True)
        return factor, cho_solve((factor, True), (self.y - mean) / spread)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(mean, variance) of the function, noise apart, at rows of `x` [n, columns]: [n] each."""
        from scipy.linalg import solve_triangular

        (mean, spread), (factor, weights) = self.standard, self._solved
        across = np.exp(self.learnt.amplitude) * _matern(_distances(x, self.x, self.learnt.scales))
        explained = solve_triangular(factor, across.T, lower=True, check_finite=False)
        left = np.exp(self.learnt.amplitude) - np.square(explained).sum(0)
        return mean + spread * (across @ weights), spread**2 * np.maximum(left, 1e-10)

    def combined(self, x: Array, weights: Array) -> tuple[float, float]:
        """(mean, standard deviation) of a weighted sum of the function at rows of `x`."""
        from scipy.linalg import solve_triangular

        (_, spread), amplitude = self.standard, np.exp(self.learnt.amplitude)
        across = amplitude * _matern(_distances(x, self.x, self.learnt.scales))
        explained = solve_triangular(self._solved[0], across.T @ weights, lower=True, check_finite=False)
        prior = float(weights @ (amplitude * _matern(_distances(x, x, self.learnt.scales))) @ weights)
        mean = float(weights @ self.predict(x)[0])
        return mean, spread * max(prior - float(explained @ explained), 1e-12) ** 0.5

    def believing(self, x: Array) -> Process:
        """This process, as if it had seen what it predicts at further rows (kriging believer, Ginsbourger 2010)."""
        means, _ = self.predict(x)
        known = np.concatenate([self.variance, np.zeros(len(x))])
        return Process(np.concatenate([self.x, x]), np.concatenate([self.y, means]), known, self.learnt, self.standard)

    @property
    def error(self) -> float:
        """Root of the mean square by which targets are missed by what the others tell. Ibid., equation 5.12."""
        from scipy.linalg import cho_solve

        factor, weights = self._solved
        inverse = cho_solve((factor, True), np.eye(len(factor)), check_finite=False)
        return self.standard[1] * float(np.sqrt(np.square(weights / np.diag(inverse)).mean()))

    @property
    def noise(self) -> float:
        """Standard deviation of the noise, in units of the targets."""
        return self.standard[1] * float(np.exp(0.5 * self.learnt.noise))


def fitted(x: Array, y: Array, variance: Array, start: Hyperparameters) -> Process:
    """The process with the most probable hyperparameters, sought from `start`."""
    from scipy.optimize import minimize

    n_columns, (mean, spread) = x.shape[1], standard(y)
    targets, known = (y - mean) / spread, variance / spread**2
    bounds = [(log(0.03), log(300.0))] * n_columns + [(log(0.02), log(50.0)), (log(LEAST_NOISE), log(2.0))]
    found = minimize(
        _loss,
        np.clip(start.vector, [low for low, _ in bounds], [high for _, high in bounds]),
        args=(x, targets, known),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MOST_STEPS},
    )
    return Process(x, y, variance, Hyperparameters.of(found.x), (mean, spread))


def standard(y: Array) -> tuple[float, float]:
    """(mean, standard deviation) of targets; the latter above 0."""
    return float(y.mean()), max(float(y.std()), 1e-6)


def _centre(n_columns: int) -> float:
    """The logarithm of a length scale expected of one of so many columns (Hvarfner et al. 2024, section 4)."""
    return sqrt(2.0) + 0.5 * log(max(n_columns, 1))


def _loss(vector: Array, x: Array, y: Array, known: Array) -> tuple[float, Array]:
    """The negative logarithm of the posterior of hyperparameters, and its gradient. Equation 5.9, and our priors."""
    from scipy.linalg import cho_factor, cho_solve

    learnt = Hyperparameters.of(vector)
    covariance, distances = _covariance(x, learnt, known)
    try:
        factor = cho_factor(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e25, np.zeros_like(vector)
    weights = cho_solve(factor, y, check_finite=False)
    inverse = cho_solve(factor, np.eye(len(y)), check_finite=False)
    value = 0.5 * float(y @ weights) + float(np.log(np.diag(factor[0])).sum())
    outer = 0.5 * (inverse - np.outer(weights, weights))  # d loss / d covariance
    amplitude = np.exp(learnt.amplitude)
    slope = outer * (amplitude * 5 / 3 * (1 + ROOT5 * distances) * np.exp(-ROOT5 * distances))
    scaled = x / np.exp(learnt.scales)
    # sum over i, j of slope[i, j] (x[i, d] - x[j, d])^2 / scale[d]^2, without the array of [rows, rows, columns]
    by_scale = 2 * (slope.sum(1) @ scaled**2 - np.einsum("id,id->d", scaled, slope @ scaled))
    gradient = np.concatenate(
        [
            by_scale,
            [float((outer * amplitude * _matern(distances)).sum()), float(np.trace(outer)) * np.exp(learnt.noise)],
        ]
    )
    centres = np.array([*[_centre(x.shape[1])] * x.shape[1], AMPLITUDE[0], NOISE[0]])
    spreads = np.array([*[SCALE_SPREAD] * x.shape[1], AMPLITUDE[1], NOISE[1]])
    away = (vector - centres) / spreads
    return value + 0.5 * float(away @ away), gradient + away / spreads


def _covariance(x: Array, learnt: Hyperparameters, known: Array) -> tuple[Array, Array]:
    """(covariance of noisy targets at the rows, scaled distances of the rows)."""
    distances = _distances(x, x, learnt.scales)
    covariance = np.exp(learnt.amplitude) * _matern(distances)
    covariance[np.diag_indices_from(covariance)] += np.exp(learnt.noise) + known + JITTER
    return covariance, distances


def _distances(a: Array, b: Array, scales: Array) -> Array:
    """Euclidean distances of rows, columns divided by their length scales: [rows of a, rows of b]."""
    a, b = a / np.exp(scales), b / np.exp(scales)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :] - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _matern(distances: Array) -> Array:
    return np.asarray((1 + ROOT5 * distances + 5 / 3 * distances**2) * np.exp(-ROOT5 * distances))
