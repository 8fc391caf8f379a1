"""Einsum as diagonals, sums, transpositions and one MatMul for every two operands."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..edit import shape_of
from .site import Site, SiteRule


@dataclass(frozen=True)
class Term:
    """A value and the letter of each of its dimensions."""

    value: ir.Value
    letters: str


def einsum(site: Site) -> bool:
    """Operands are joined from the left; a letter that no later operand and not the result has is summed."""
    if not site.is_float or any(value is None for value in site.node.inputs):
        return False
    inputs, output = _letters(site)
    sizes: dict[str, int] = {}
    terms = []
    for place, letters in enumerate(inputs):
        value = site.given(place)
        for letter, size in zip(letters, shape_of(value), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
        terms.append(_diagonal(site, Term(value, letters)))
    terms = [_expanded(site, term, sizes) for term in terms]
    result = terms[0]
    for place, term in enumerate(terms[1:], start=1):
        later = set(output).union(*(each.letters for each in terms[place + 1 :]))
        result = _joined(site, _summed(site, result, later | set(term.letters)), term, later, sizes)
    result = _summed(site, result, set(output))
    final = site.transpose(result.value, [result.letters.index(letter) for letter in output])
    return site.done(site.op("Identity", final) if final is site.x else final)


def _letters(site: Site) -> tuple[list[str], str]:
    """Return the letters of every operand and of the result; an ellipsis becomes letters of its own."""
    left, arrow, output = site.text("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    free = [letter for letter in string.ascii_uppercase + string.ascii_lowercase if letter not in left + output]
    ranks = [len(shape_of(site.given(place))) for place in range(len(terms))]
    hidden = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)
    ]
    dots = "".join(free[: max(hidden)])
    full = [
        term.replace("...", dots[len(dots) - count :] if count else "")
        for term, count in zip(terms, hidden, strict=True)
    ]
    if arrow:
        return full, output.replace("...", dots)
    plain = left.replace("...", "").replace(",", "")
    return full, dots + "".join(sorted(letter for letter in set(plain) if plain.count(letter) == 1))


def _diagonal(site: Site, term: Term) -> Term:
    """Keep the diagonal of a letter that comes twice: times the unit matrix, then the sum over one of them."""
    value, letters = term.value, term.letters
    sizes = dict(zip(letters, shape_of(value), strict=True))
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first, second = letters.index(letter), letters.rindex(letter)
            shape = [sizes[letter] if place in (first, second) else 1 for place in range(len(letters))]
            unit = site.constant(np.eye(sizes[letter], dtype=np.float32).reshape(shape))
            value = site.reduce("ReduceSum", site.op("Mul", value, unit), [second], keepdims=False)
            letters = letters[:second] + letters[second + 1 :]
    return Term(value, letters)


def _expanded(site: Site, term: Term, sizes: dict[str, int]) -> Term:
    """Repeat dimensions of 1 that another operand has at full size."""
    known = [sizes[letter] for letter in term.letters]
    shape = term.value.shape
    if shape is None or not shape.is_static() or list(shape.numpy()) == known:
        return term
    return Term(site.op("Expand", term.value, site.ints(known)), term.letters)


def _summed(site: Site, term: Term, kept: set[str]) -> Term:
    axes = [place for place, letter in enumerate(term.letters) if letter not in kept]
    if not axes:
        return term
    value = site.reduce("ReduceSum", term.value, axes, keepdims=False)
    return Term(value, "".join(letter for letter in term.letters if letter in kept))


def _joined(site: Site, left: Term, right: Term, kept: set[str], sizes: dict[str, int]) -> Term:
    """Return the product of two terms, summed over what they share and nobody else needs."""
    right = _summed(site, right, kept | set(left.letters))
    shared = [letter for letter in left.letters if letter in right.letters]
    batch = [letter for letter in shared if letter in kept]
    inner = [letter for letter in shared if letter not in kept]
    rows = [letter for letter in left.letters if letter not in shared]
    cols = [letter for letter in right.letters if letter not in shared]
    if not inner:
        return _multiplied(site, left, right, batch, rows, cols)
    a = _matrix(site, left, sizes, batch, rows, inner)
    b = _matrix(site, right, sizes, batch, inner, cols)
    letters = [*batch, *rows, *cols]
    product = site.reshape(site.op("MatMul", a, b), [sizes[letter] for letter in letters])
    return Term(product, "".join(letters))


def _matrix(
    site: Site, term: Term, sizes: dict[str, int], batch: list[str], rows: list[str], cols: list[str]
) -> ir.Value:
    """Return a term as [*batch, rows, columns]."""
    moved = site.transpose(term.value, [term.letters.index(letter) for letter in [*batch, *rows, *cols]])
    flat = [math.prod(sizes[letter] for letter in part) for part in (rows, cols)]
    return site.reshape(moved, [*(sizes[letter] for letter in batch), *flat])


def _multiplied(site: Site, left: Term, right: Term, batch: list[str], rows: list[str], cols: list[str]) -> Term:
    """Return the elementwise product of terms that share no summed letter."""
    letters = [*batch, *rows, *cols]
    operands = []
    for term in (left, right):
        own = [letter for letter in letters if letter in term.letters]
        moved = site.transpose(term.value, [term.letters.index(letter) for letter in own])
        missing = [place for place, letter in enumerate(letters) if letter not in term.letters]
        operands.append(site.op("Unsqueeze", moved, site.ints(missing)) if missing else moved)
    return Term(site.op("Mul", *operands), "".join(letters))


RULES: dict[str, SiteRule] = {"Einsum": einsum}
