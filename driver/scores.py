"""How good outputs are: perplexity of tokens, top-1 of labels, closeness to the first model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flexc.emulation import Arrays
from flexc.isa.errors import FlexcError, UsageError
from flexc.passes.feeds import InputSpec

Floats = npt.NDArray[np.floating[Any]]

KINDS = ("auto", "perplexity", "top1", "output")


@dataclass(frozen=True)
class Task:
    """What is measured of a model.

    Attributes:
        kind: ``perplexity``, ``top1`` or ``output``.
        tokens: the input whose next tokens the logits tell; of perplexity only.
        output: the output that is looked at; closeness looks at all that are floating point.
        labels: integers, one a row of the output; of top1 only.
    """

    kind: str
    output: str
    tokens: str = ""
    labels: npt.NDArray[np.int64] | None = None


Leak = Callable[[InputSpec, str], float]
"""How much an output's logits know of later tokens of an input, see `next_token.py`."""

_LEAK = 0.1
"""From this on logits know of later tokens: those of causal models come to 0, quantised ones to a few hundredths."""


def task_of(
    kind: str,
    inputs: Sequence[InputSpec],
    outputs: Mapping[str, tuple[int, ...]],
    labels: npt.NDArray[Any] | None,
    leak: Leak | None = None,
) -> Task:
    """Choose what to measure: top-1 where there are labels, perplexity where logits foretell tokens, else closeness.

    Args:
        kind: one of :data:`KINDS`.
        inputs: the model's inputs.
        outputs: shapes of its floating-point outputs.
        labels: labels, flat, if any.
        leak: tells logits that know the tokens behind them from those that foretell; without, the first ones do.

    Raises:
        UsageError: an unknown kind, labels that nothing uses, or a kind that does not suit the model.
    """
    if kind not in KINDS:
        raise UsageError(f"--metric {kind}: no such choice", remedy=f"one of {', '.join(KINDS)}")
    if not outputs:
        raise FlexcError("the model has no floating-point output, so nothing tells how good it is")
    first = next(iter(outputs))
    if labels is not None or kind == "top1":
        if labels is None:
            raise UsageError("--metric top1 needs labels", remedy="give them, --labels FILE.npy")
        if kind not in ("auto", "top1"):
            raise UsageError(f"--labels with --metric {kind}: nothing would use them", remedy="choose --metric top1")
        return Task("top1", first, labels=labels.reshape(-1).astype(np.int64))
    found = [] if kind == "output" else _logits(inputs, outputs)
    if kind == "perplexity" and not found:
        remedy = "perplexity needs one token input [..., T] and logits [..., T, vocabulary]; choose --metric output"
        raise UsageError("no output of the model holds logits of its tokens", remedy=remedy)
    leaks = [0.0 if leak is None else leak(*pair) for pair in found]
    if found and (kind == "perplexity" or min(leaks) < _LEAK):
        spec, output = found[leaks.index(min(leaks))]
        return Task("perplexity", output, tokens=spec.name)
    return Task("output", first)


def _logits(inputs: Sequence[InputSpec], outputs: Mapping[str, tuple[int, ...]]) -> list[tuple[InputSpec, str]]:
    """Return token inputs, each with an output that has a row of logits for each of its tokens.

    Of several kinds of indices (tokens, positions, types of tokens) those with the most values are the tokens.
    """
    found = [
        (spec, name)
        for spec in inputs
        for name, shape in outputs.items()
        if spec.dtype.kind in "iu" and spec.vocabulary is not None and spec.shape[-1:] > (1,)
        if shape[:-1] == spec.shape and shape[-1] >= spec.vocabulary
    ]
    most = max((spec.vocabulary or 0 for spec, _ in found), default=0)
    return [(spec, name) for spec, name in found if spec.vocabulary == most]


@dataclass
class Score:
    """What one model's outputs come to, window by window."""

    task: Task
    windows: int = 0
    _loss: list[float] = field(default_factory=list)
    _counted: int = 0
    _right: int = 0
    _errors: list[float] = field(default_factory=list)
    _cosines: list[float] = field(default_factory=list)
    _agreeing: int = 0
    _rows: int = 0

    def add(self, place: int, feed: Arrays, outputs: Arrays, reference: Arrays | None) -> None:
        """Take one window: which it is of the data, its inputs, the outputs, and those they are to be close to.

        Raises:
            FlexcError: labels end before the windows do.
        """
        result = outputs[self.task.output].astype(np.float64)
        if self.task.kind == "perplexity":
            self._tokens(np.asarray(feed[self.task.tokens]), result)
        elif self.task.kind == "top1":
            self._labels(place, result.reshape(-1, result.shape[-1]))
        if reference is not None:
            self._close(outputs, reference)
        self.windows += 1

    def _tokens(self, tokens: npt.NDArray[Any], logits: Floats) -> None:
        """Add the negative log-likelihood of tokens 1.. of every row given those before."""
        rows = logits[..., :-1, :].reshape(-1, logits.shape[-1])
        following = tokens[..., 1:].reshape(-1).astype(np.int64) % logits.shape[-1]
        top = rows.max(axis=-1)
        chosen = rows[np.arange(len(rows)), following]
        losses = top + np.log(np.exp(rows - top[:, np.newaxis]).sum(axis=-1)) - chosen
        self._loss.append(float(losses.sum()))
        self._counted += len(losses)
        self._right += int((rows.argmax(axis=-1) == following).sum())

    def _labels(self, place: int, rows: Floats) -> None:
        assert self.task.labels is not None
        wanted = self.task.labels[place * len(rows) : (place + 1) * len(rows)]
        if len(wanted) < len(rows):
            raise FlexcError(
                f"{len(self.task.labels)} labels, window {place} needs {(place + 1) * len(rows)}",
                remedy="give a label for every row of the output in every window",
            )
        self._right += int((rows.argmax(axis=-1) == wanted).sum())
        self._counted += len(rows)

    def _close(self, outputs: Arrays, reference: Arrays) -> None:
        pairs = [(outputs[name].astype(np.float64), array.astype(np.float64)) for name, array in reference.items()]
        error = sum(float(np.square(ours - theirs).sum()) for ours, theirs in pairs)
        scale = sum(float(np.square(theirs).sum()) for _, theirs in pairs)
        own = sum(float(np.square(ours).sum()) for ours, _ in pairs)
        dot = sum(float((ours * theirs).sum()) for ours, theirs in pairs)
        self._errors.append(math.sqrt(error / scale) if scale > 0 else float(error > 0))
        self._cosines.append(dot / math.sqrt(scale * own) if scale * own > 0 else float(scale == own))
        ours, theirs = outputs[self.task.output], reference[self.task.output]
        if ours.ndim:
            self._agreeing += int((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum())
            self._rows += ours.size // max(1, ours.shape[-1])

    def numbers(self) -> dict[str, float | None]:
        """Return the numbers: of the task, and of closeness where there was something to be close to."""
        perplexity, windows = self.task.kind == "perplexity", max(1, self.windows)
        compared = bool(self._errors)
        return {
            "perplexity": _exp(math.fsum(self._loss) / max(1, self._counted)) if perplexity else None,
            "top1": self._right / self._counted if self._counted else None,
            "relative_error": math.fsum(self._errors) / windows if compared else None,
            "cosine": math.fsum(self._cosines) / windows if compared else None,
            "top1_agreement": self._agreeing / self._rows if self._rows else None,
        }


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
