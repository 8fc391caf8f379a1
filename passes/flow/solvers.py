"""Weights on a pattern that keep a linear's outputs: SparseGPT, conjugate gradients on a support, ADMM.

All look for V on the pattern that minimises ||Y - V X||^2, X [k, positions] the inputs and Y [n, positions] what the
linear should put out, given H = X X^T and G = Y X^T. Matrices are float32 [n, k], H is [k, k].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..masks import top_mask
from ..pattern import NM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

DAMPING = 0.01
"""Share of H's mean diagonal that is added to it, as SparseGPT does: inputs that are nearly absent stay harmless."""

_BLOCK = 128
"""Columns that SparseGPT updates at once."""


@dataclass(frozen=True)
class Task:
    """What a linear, or a group of one, should do: `weight` [n, k] as trained, `gram` H [k, k], `goal` G [n, k]."""

    weight: Matrix
    gram: Matrix
    goal: Matrix

    def damped(self) -> tuple[Matrix, Matrix]:
        """Return H and G with a pull towards the trained weight that makes H positive definite."""
        pull = np.float32(DAMPING * max(float(self.gram.diagonal().mean()), 1e-20))
        return self.gram + pull * np.eye(len(self.gram), dtype=np.float32), self.goal + pull * self.weight


def least_squares(task: Task) -> Matrix:
    """Return the dense V that minimises the error."""
    from scipy.linalg import cho_factor, cho_solve

    gram, goal = task.damped()
    factor = cho_factor(gram.astype(np.float64), lower=True)
    solved: Matrix = cho_solve(factor, goal.T.astype(np.float64)).T.astype(np.float32)
    return solved


def sparsegpt(task: Task, nm: NM) -> Matrix:
    """Prune column by column, each column's error made up for by those to its right (Frantar & Alistarh, 2301.00774).

    The weights start at the dense least squares solution, which is the trained weight where Y is its own output.
    """
    gram, _ = task.damped()
    weight = least_squares(task)
    k = weight.shape[1]
    inverse = np.linalg.inv(gram.astype(np.float64))
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32)
    for start in range(0, k, _BLOCK):
        end = min(start + _BLOCK, k)
        errors = _prune_columns(weight[:, start:end], upper[start:end, start:end], nm)
        weight[:, end:] -= errors @ upper[start:end, end:]
    return weight


def _prune_columns(weight: Matrix, upper: Matrix, nm: NM) -> Matrix:
    """Prune a block of columns in place; return the error of each, scaled for the columns behind the block."""
    errors = np.zeros_like(weight)
    scale = upper.diagonal()
    kept = np.ones(weight.shape, np.bool_)
    for column in range(weight.shape[1]):
        if column % nm.m == 0:
            ahead = slice(column, min(column + nm.m, weight.shape[1]))
            kept[:, ahead] = top_mask(np.square(weight[:, ahead] / scale[ahead]), nm)
        error = np.where(kept[:, column], np.float32(0), weight[:, column]) / scale[column]
        weight[:, column] *= kept[:, column]
        weight[:, column + 1 :] -= np.outer(error, upper[column, column + 1 :])
        errors[:, column] = error
    return errors


def conjugate_gradient(task: Task, start: Matrix, steps: int = 20, tolerance: float = 1e-3) -> Matrix:
    """Solve V H = G on the support of `start`, all rows at once, preconditioned by H's diagonal.

    Args:
        task: what to do.
        start: a matrix whose nonzeros are the support.
        steps: most steps.
        tolerance: stop when the residual has fallen to this share of what it was.
    """
    gram, goal = task.damped()
    support = start != 0
    scale = 1 / gram.diagonal()
    found = start.copy()
    residual = (goal - found @ gram) * support
    direction = residual * scale
    size = np.einsum("nk,nk->n", residual, direction)
    enough = tolerance**2 * float(size.sum())
    for _ in range(steps):
        if float(size.sum()) <= enough:
            break
        image = (direction @ gram) * support
        length = size / np.maximum(np.einsum("nk,nk->n", direction, image), np.float32(1e-30))
        found += length[:, np.newaxis] * direction
        residual -= length[:, np.newaxis] * image
        scaled = residual * scale
        new = np.einsum("nk,nk->n", residual, scaled)
        direction = scaled + (new / np.maximum(size, np.float32(1e-30)))[:, np.newaxis] * direction
        size = new
    return found


def admm(task: Task, nm: NM, steps: int = 20, damping: float = 0.1) -> Matrix:
    """Find mask and weights together by alternating directions (Boza, "Fast and Effective Weight Update", 2401.02938).

    Inputs are scaled to norm 1, as in Wanda; in that scale the quadratic gets a pull of `damping` towards the trained
    weight, the penalty is 1, and the pattern is kept by projecting on the largest weights of every block.
    """
    from scipy.linalg import cho_factor, cho_solve

    norms = np.sqrt(np.maximum(task.gram.diagonal(), 0))
    norms = np.maximum(norms, np.float32(1e-6) * max(float(norms.max()), 1e-20)).astype(np.float32)
    trained = task.weight * norms
    gram = task.gram / norms / norms[:, np.newaxis]
    size = len(gram)
    system = gram.astype(np.float64) + (damping + 1) * np.eye(size)
    inverse = cho_solve(cho_factor(system, lower=True), np.eye(size)).astype(np.float32)
    pulled = task.goal / norms + np.float32(damping) * trained
    kept = trained * top_mask(np.abs(trained), nm)
    dual = np.zeros_like(kept)
    for _ in range(steps):
        free = (pulled + kept - dual) @ inverse + dual
        kept = free * top_mask(np.abs(free), nm)
        dual = free - kept
    return (kept / norms).astype(np.float32)
