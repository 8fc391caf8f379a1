"""Einsum of activations with experts' weights that an index chooses: a MatMul with them, which keeps them constant."""

from __future__ import annotations

import math

import onnx_ir as ir

from .edit import Editor, shape_of
from .expert_rows import chosen_of
from .experts import Site


def chosen_einsum(node: ir.Node, editor: Editor) -> bool:
    """Einsum ``tk,tjkn->tjn`` and the like, where ``tj`` are dimensions of the index and ``kn`` those of a weight."""
    terms, arrow, output = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    names = terms.split(",")
    if len(names) != 2 or not arrow or "." in terms or any(value is None for value in node.inputs):
        return False
    for place in (1, 0):
        weight, x = node.inputs[place], node.inputs[1 - place]
        assert weight is not None
        assert x is not None
        if chosen_of(weight) is not None and _is_linear(names[1 - place], names[place], output):
            editor.substitute(
                node, [_product(Site(node, editor), (x, names[1 - place]), (weight, names[place]), output)]
            )
            return True
    return False


def _is_linear(x: str, w: str, output: str) -> bool:
    """Return whether one of the weight's last letters is summed and the other new, and all else is kept."""
    every = set(x) | set(w)
    summed = [letter for letter in w[-2:] if letter in x and letter not in output]
    new = [letter for letter in w[-2:] if letter not in x and letter in output]
    single = all(len(set(each)) == len(each) for each in (x, w, output))
    return len(w) >= 2 and single and len(summed) == len(new) == 1 and set(output) == every - set(summed)


def _product(site: Site, left: tuple[ir.Value, str], right: tuple[ir.Value, str], output: str) -> ir.Value:
    x, letters = left
    weight, names = right
    sizes = dict(zip(letters, shape_of(x), strict=True)) | dict(zip(names, shape_of(weight), strict=True))
    index, first, second = names[:-2], names[-2], names[-1]
    summed, new = (first, second) if first in letters else (second, first)
    alone = [letter for letter in letters if letter != summed and letter not in index]
    order = [*(letter for letter in index if letter in letters), *alone, summed]
    rows = site.transpose(x, *(letters.index(letter) for letter in order))
    lead = [sizes[letter] if letter in letters else 1 for letter in index]
    rows = site.reshape(rows, *lead, math.prod(sizes[letter] for letter in alone), sizes[summed])
    chosen = weight if summed == first else site.swap(weight, len(names))
    made = [*index, *alone, new]
    result = site.reshape(site.put("MatMul", rows, chosen), *(sizes[letter] for letter in made))
    return site.transpose(result, *(made.index(letter) for letter in output))
