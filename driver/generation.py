"""What a generation loop feeds: which input takes tokens, which masks, which positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flexc.emulation import Arrays
from flexc.isa.errors import UsageError
from flexc.signature import NodeArg, Signature


def greedy(logits: npt.NDArray[Any]) -> int:
    """Return the token with the greatest logit."""
    return int(np.argmax(logits))


def tokens_of(tokens: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return a prompt as int64 [tokens].

    Raises:
        UsageError: it is empty, holds several sequences, or no whole numbers.
    """
    array = np.asarray(tokens)
    if array.dtype.kind not in "iu" or not array.size or array.size != max(array.shape, default=1):
        raise UsageError(f"a prompt is one sequence of tokens, not {array.dtype}{list(array.shape)}")
    return array.reshape(-1).astype(np.int64)


class Roles:
    """The parts that inputs play, told from names and types.

    Raises:
        UsageError: the model keeps nothing from run to run, or an input plays no part that is known.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        rest = [each for each in signature.inputs if each.name not in signature.caches]
        self.states = [each for each in rest if each.dtype.kind == "f" and len(each.shape) > 1]
        whole = [each for each in rest if each.dtype.kind in "iub"]
        self.masks = [each for each in whole if "mask" in each.name.lower()]
        self.positions = [each for each in whole if "position" in each.name.lower()]
        tokens = [each for each in whole if each not in self.masks and each not in self.positions]
        odd = [each.name for each in rest if each not in whole and each not in self.states]
        if not signature.caches and not self.states:
            why = f"no cache among the inputs: {', '.join(each.name for each in signature.inputs)}"
            raise UsageError(why, remedy="export the model with its cache as inputs and outputs (docs/generation.md)")
        if len(tokens) != 1 or odd:
            why = (
                f"inputs {', '.join(each.name for each in signature.inputs)} are not tokens, mask, positions and caches"
            )
            raise UsageError(why, remedy="write the loop with run(): it takes any inputs")
        self.tokens = tokens[0]
        kept = set(signature.caches.values())
        names = [each.name for each in signature.outputs if each.name not in kept]
        self.logits = "logits" if "logits" in names else names[0]

    def pieces(self, prompt: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """Yield a prompt in the pieces that the model takes: at once, or of the size that it fixes."""
        size = self.tokens.shape[-1]
        if not isinstance(size, int):
            yield prompt
            return
        if len(prompt) % size:
            raise UsageError(f"the model takes {size} tokens at a time; the prompt has {len(prompt)}")
        yield from prompt.reshape(-1, size)

    def feeds(self, tokens: npt.NDArray[np.int64], past: int) -> Arrays:
        """Return the inputs besides caches for some tokens, on so many before them."""
        positions = np.arange(past, past + len(tokens))
        arrays = {self.tokens.name: _shaped(tokens, self.tokens)}
        arrays |= {each.name: _shaped(positions, each) for each in self.positions}
        return arrays | {each.name: self._mask(each, past + len(tokens)) for each in self.masks}

    def _mask(self, argument: NodeArg, total: int) -> npt.NDArray[Any]:
        size = argument.shape[-1]
        mask = np.zeros(size if isinstance(size, int) else total, argument.dtype)
        mask[:total] = 1
        return _shaped(mask, argument)

    def empty(self) -> Arrays:
        """Return caches and states without anything before the first token."""
        held = [(each, self.signature.axes.get(each.name)) for each in self.signature.inputs]
        shapes = {
            each.name: [
                0 if place == axis else dim if isinstance(dim, int) else 1 for place, dim in enumerate(each.shape)
            ]
            for each, axis in held
            if axis is not None or each in self.states
        }
        return {each.name: np.zeros(shapes[each.name], each.dtype) for each, _ in held if each.name in shapes}

    def last(self, logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the logits of the last position."""
        row: npt.NDArray[Any] = logits.reshape(-1, logits.shape[-1])[-1]
        return row


def _shaped(values: npt.NDArray[Any], argument: NodeArg) -> npt.NDArray[Any]:
    return values.astype(argument.dtype).reshape([1] * (len(argument.shape) - 1) + [-1])
