"""Whether logits foretell the tokens of an input: whether each row knows the tokens before it, and none behind it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flexc.emulation import Arrays
from flexc.passes.feeds import InputSpec


def knows_later_tokens(run: Callable[[Arrays], Arrays], feed: Arrays, spec: InputSpec, output: str) -> float:
    """Return how much the first half of an output's rows changes with the second half of the tokens, beside the second.

    About 0 for a model of the next token (of one quantised by scales over all rows, about their rounding), 1 and less
    for one that sees all tokens (a masked language model, the encoder of another model); infinite where nothing
    changes.

    Args:
        run: runs a window.
        feed: a window.
        spec: of the token input [..., T], T at least 2.
        output: name of the logits [..., T, vocabulary].
    """
    tokens = feed[spec.name].copy()
    half, vocabulary = tokens.shape[-1] // 2, spec.vocabulary or 2
    tokens[..., half:] = (tokens[..., half:] + vocabulary // 2) % vocabulary
    before, after = run(feed)[output], run({**feed, spec.name: tokens})[output]
    change = np.square(after.astype(np.float64) - before)
    early, late = float(change[..., :half, :].mean()), float(change[..., half:, :].mean())
    return math.sqrt(early / late) if late > 0 else math.inf
