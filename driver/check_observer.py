"""Watching a run: every value that the program shows is put back into the graph's shape and compared at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from flexc.check_compare import Array, compare, kind_of, operator_of, scale_of, tolerance_of
from flexc.check_model import QuestionSession
from flexc.check_plan import Plan, Question, Step
from flexc.emulation import Arrays
from flexc.emulator.memory import NUMPY_TYPES, Memories
from flexc.isa.program import Tap, Tensor
from flexc.verdict import Mismatch, OperatorRow, Verdict


class Values:
    """Values seen so far, [windows, *shape]; taps fill them in piece by piece."""

    def __init__(self, windows: int) -> None:
        self.windows = windows
        self._arrays: Arrays = {}
        self._filled: dict[str, Array] = {}

    def put(self, name: str, array: Array) -> None:
        """Take a whole value."""
        self._arrays[name] = array

    def fill(self, tap: Tap, iterations: Sequence[int], operand: Array) -> None:
        """Put an operand where its tap says that it belongs; columns beyond the limit are padding."""
        name = tap.value_at(iterations)
        if not name:
            return
        if name not in self._arrays:
            self._arrays[name] = np.zeros((self.windows, *tap.shape), NUMPY_TYPES[tap.dtype])
            self._filled[name] = np.zeros(tap.shape, np.bool_)
        first = tap.col + sum(iterations[step.level] * step.stride for step in tap.col_steps)
        rows, cols = operand.shape[1], min(operand.shape[2], tap.col_limit - first)
        if cols <= 0:
            return
        base = tap.base + sum(iterations[step.level] * step.stride for step in tap.steps)
        strides = (tap.row_stride, tap.col_stride)
        _window(self._arrays[name].reshape(self.windows, -1), base, (rows, cols), strides)[:] = operand[:, :, :cols]
        _window(self._filled[name].reshape(1, -1), base, (rows, cols), strides)[:] = True

    def missing(self, name: str) -> int:
        """Return how many elements of a value no tap has filled."""
        filled = self._filled.get(name)
        return 0 if filled is None else int(filled.size - np.count_nonzero(filled))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def forget(self, names: Sequence[str]) -> None:
        """Drop values."""
        for name in names:
            self._arrays.pop(name, None)
            self._filled.pop(name, None)

    def feed(self, window: int) -> Arrays:
        """Return everything known of one window."""
        return {name: array[window] for name, array in self._arrays.items()}


def _window(flat: Array, base: int, shape: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Return the elements base + i * strides[0] + j * strides[1] of every row of `flat`, to be written to."""
    size = flat.itemsize
    return np.ndarray(
        (len(flat), *shape), flat.dtype, flat.data, base * size, (flat.strides[0], *(each * size for each in strides))
    )


class Watcher:
    """The observer of a checked run; findings go into the verdict."""

    def __init__(self, plan: Plan, model: ir.Model, feeds: Arrays, verdict: Verdict) -> None:
        self._plan, self._model, self._verdict = plan, model, verdict
        self._values = Values(len(next(iter(feeds.values()))) if feeds else 1)
        for name, array in feeds.items():
            self._values.put(name, array)
        self._by_operand: dict[tuple[int, str], list[Tap]] = {}
        for step in plan.steps:
            for tap in step.taps:
                self._by_operand.setdefault((tap.pc, tap.operand), []).append(tap)
        self._taps: dict[int, list[str]] = {}
        for pc, operand in self._by_operand:
            self._taps.setdefault(pc, []).append(operand)

    @property
    def taps(self) -> Mapping[int, Sequence[str]]:
        """What to show: see :class:`flexc.emulator.bind.Observer`."""
        return self._taps

    def on_tap(self, pc: int, operand: str, iterations: tuple[int, ...], values: Array) -> None:
        """Take an operand."""
        for tap in self._by_operand[pc, operand]:
            self._values.fill(tap, iterations, values)

    def on_op_end(self, op_index: int, memories: Memories) -> None:
        """Compare all that the op has made."""
        step = self._plan.steps[op_index]
        for tensor in step.tensors:
            self._take_stored(step, tensor, memories)
        self._ask(step.questions)
        self._values.forget(step.forget)

    def finish(self, outputs: Arrays) -> None:
        """Compare the outputs that are only other views of values seen before."""
        for question in self._plan.last:
            for value in question.targets:
                self._values.put(str(value.name), outputs[str(value.name)])
        self._ask(self._plan.last)

    def _take_stored(self, step: Step, tensor: Tensor, memories: Memories) -> None:
        """Look at a value in DRAM; if its making was seen, too, it must have arrived there unchanged."""
        stored = np.array(np.broadcast_to(memories.tensor(tensor), (self._values.windows, *tensor.shape)))
        if tensor.name not in self._values:
            self._values.put(tensor.name, stored)
            return
        made = self._values[tensor.name]
        if made.tobytes() != stored.tobytes():
            wrong = np.argwhere((made != stored) & ~((made != made) & (stored != stored)))
            if len(wrong):
                self._verdict.other_mismatches += len(wrong)
                self._note(step.op.name, step.op.op_type, tensor.name, tuple(map(int, wrong[0])), stored, made)

    def _note(self, node: str, op: str, value: str, place: tuple[int, ...], stored: Array, made: Array) -> None:
        if self._verdict.first is None:
            numbers = float(stored[place]), float(made[place])
            what = "is not in DRAM as it was computed"
            self._verdict.first = Mismatch(node, op, value, place[0], place[1:], *numbers, 0.0, what)

    def _ask(self, questions: Sequence[Question]) -> None:
        if not questions:
            return
        session = QuestionSession(self._model, questions)
        for window in range(self._values.windows):
            feed = self._values.feed(window)
            for question, answers in zip(questions, session.run(feed), strict=True):
                for value in question.targets:
                    self._compare(question, value, window, feed, answers)
        for question in questions:
            self._count(question)

    def _compare(self, question: Question, value: ir.Value, window: int, feed: Arrays, answers: Arrays) -> None:
        name = str(value.name)
        tolerance, expected = tolerance_of(question), answers[name]
        scale = scale_of(question, tolerance, expected, {**feed, **answers})
        found = compare(feed[name], expected, tolerance, scale)
        kind, op = kind_of(question), operator_of(question)
        row = self._verdict.operators.setdefault(op, OperatorRow(kind, tolerance.c, tolerance.scale))
        row.error, row.wrong = max(row.error, found.error), row.wrong + found.wrong
        self._tally(kind, found.wrong)
        missing = self._values.missing(name) if window == 0 else 0
        if missing:
            self._verdict.notes.append(f"value '{name}': {missing} elements were never seen")
        if found.first is not None and self._verdict.first is None:
            first = found.first
            self._verdict.first = Mismatch(
                question.name, op, name, window, first.index, first.emulated, first.expected, first.bound
            )

    def _tally(self, kind: str, wrong: int) -> None:
        if kind == "array":
            self._verdict.array_mismatches += wrong
        elif kind == "vector":
            self._verdict.vector_mismatches += wrong
        else:
            self._verdict.other_mismatches += wrong

    def _count(self, question: Question) -> None:
        self._verdict.operators[operator_of(question)].values += len(question.targets)
        kind = kind_of(question)
        if kind == "array":
            self._verdict.array_ops += 1
        elif kind == "vector":
            self._verdict.vector_ops += len(question.targets)
        else:
            self._verdict.other_ops += len(question.targets)
