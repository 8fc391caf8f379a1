"""The verdict of a check: what was compared, how closely it agrees, and the first mismatch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from flexc.tables import Facts, Part, Table, count, counted

LEAST_COSINE = 0.98
"""End to end, against the fp32 graph after pruning: INT8 with a scale a token keeps 0.99 and more on trained models; a
wrong scale, a lost bias or a shuffled channel falls far below."""

DEGENERATE = 1e-12
"""Root mean square of outputs below which a direction, and so a cosine, means nothing."""


@dataclass(frozen=True)
class Mismatch:
    """The first value that is not what it should be."""

    node: str
    op: str
    value: str
    window: int
    index: tuple[int, ...]
    emulated: float
    expected: float
    bound: float
    what: str = "differs from onnxruntime on the same inputs"

    def __str__(self) -> str:
        place = f"window {self.window}, index {list(self.index)}"
        numbers = f"{self.emulated:.9g}, expected {self.expected:.9g}, allowed difference {self.bound:.3g}"
        return f"node '{self.node}' ({self.op}), value '{self.value}' {self.what}: {place}: {numbers}"


@dataclass
class OperatorRow:
    """All comparisons of one operator, or of one combination: greatest error in units of 2^-23 times the scale."""

    kind: str
    c: float
    scale: str
    values: int = 0
    wrong: int = 0
    error: float = 0.0


@dataclass(frozen=True)
class Closeness:
    """How close the program's outputs are to a float model's, over all windows compared."""

    windows: int
    cosine: float
    relative_error: float
    top1_agreement: float | None
    degenerate: bool


@dataclass
class Verdict:
    """What a check found.

    Attributes:
        windows: windows compared operation by operation.
        operators: comparisons by operator.
        array_ops: integer products compared; ``array_mismatches`` of their int32 sums differ.
        vector_ops: values made by the vector unit; ``vector_mismatches`` of their elements differ too much.
        other_ops: values that were moved, or made by the host; ``other_mismatches`` of their elements differ.
        first: the first mismatch.
        reference: closeness to the fp32 graph after pruning, if the program holds it.
        model: closeness to the model given with ``--check``.
        file: closeness of the graph made of that model to the model as it was given, both in onnxruntime.
        notes: what the numbers do not show.
    """

    windows: int = 0
    operators: dict[str, OperatorRow] = field(default_factory=dict)
    array_ops: int = 0
    array_mismatches: int = 0
    vector_ops: int = 0
    vector_mismatches: int = 0
    other_ops: int = 0
    other_mismatches: int = 0
    first: Mismatch | None = None
    reference: Closeness | None = None
    model: Closeness | None = None
    file: Closeness | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def close(self) -> bool:
        """Whether the outputs are close enough to the reference; yes where there is none, or it is all zero."""
        return _near(self.reference)

    @property
    def read_well(self) -> bool:
        """Whether the graph made of a model agrees with the model as it was given; yes where none was."""
        return _near(self.file)

    @property
    def passed(self) -> bool:
        """Whether everything that is judged is as it should be."""
        return self.first is None and self.close and self.read_well

    @property
    def vector_max_error(self) -> float:
        """Greatest error of the vector unit, in units of 2^-23 times the scale of its operator."""
        return max((row.error for row in self.operators.values() if row.kind == "vector"), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "passed": self.passed,
            "windows": self.windows,
            "array_ops": self.array_ops,
            "array_mismatches": self.array_mismatches,
            "vector_ops": self.vector_ops,
            "vector_mismatches": self.vector_mismatches,
            "vector_max_error": self.vector_max_error,
            "other_ops": self.other_ops,
            "other_mismatches": self.other_mismatches,
            "operators": {name: asdict(row) for name, row in sorted(self.operators.items())},
            "cosine": self.reference.cosine if self.reference else None,
            "least_cosine": LEAST_COSINE,
            "relative_error": self.reference.relative_error if self.reference else None,
            "top1_agreement": self.reference.top1_agreement if self.reference else None,
            "reference_windows": self.reference.windows if self.reference else 0,
            "model": asdict(self.model) if self.model else None,
            "file": asdict(self.file) if self.file else None,
            "first_mismatch": asdict(self.first) if self.first else None,
            "notes": self.notes,
        }

    def parts(self) -> list[Part]:
        """Return the verdict as facts, a table and one last line."""
        rows = [
            (
                "windows",
                f"{self.windows} compared operation by operation with onnxruntime on the emulator's own values",
            ),
            ("array", f"{counted(self.array_ops, 'product')}, {count(self.array_mismatches)} int32 sums differ"),
            (
                "vector",
                f"{counted(self.vector_ops, 'value')}, {count(self.vector_mismatches)} elements beyond their bound",
            ),
            (
                "other",
                f"{counted(self.other_ops, 'value')} moved or from the host, {count(self.other_mismatches)} differ",
            ),
        ]
        if self.reference:
            rows.append(("fp32 graph", f"{_closeness(self.reference)}; cosine must be {LEAST_COSINE} or more"))
        if self.model:
            rows.append(("the model", f"{_closeness(self.model)} (not judged)"))
        if self.file:
            rows.append(("the file", f"{_closeness(self.file)}: the graph made of it, beside the file as it is"))
        rows += [("note", note) for note in self.notes]
        return ["", "Check against onnxruntime:", Facts(rows), self._table(), "", self.line()]

    def _table(self) -> Table:
        rows = [
            (name if len(name) <= 44 else name[:41] + "...", row.kind, str(row.values), *_errors(row), count(row.wrong))
            for name, row in sorted(self.operators.items(), key=lambda each: (each[1].kind, each[0]))
        ]
        columns = ("operator", "kind", ">values", ">greatest error", ">allowed", "relative to", ">wrong")
        return Table("Greatest difference, in units of 2^-23", columns, rows)

    def line(self) -> str:
        """Return PASS, or FAIL with the reason."""
        if self.first is not None:
            return f"FAIL: {self.first}"
        if not self.close and self.reference:
            return f"FAIL: cosine to the fp32 graph is {self.reference.cosine:.5f}, below {LEAST_COSINE}"
        if not self.read_well and self.file:
            return f"FAIL: cosine of the graph made of the file to the file is {self.file.cosine:.5f}: it was misread"
        return "PASS"


def _errors(row: OperatorRow) -> tuple[str, str, str]:
    return (
        f"{row.error:.3g}",
        f"{row.c:g}" if row.c else "exact",
        {"sum": "sum of magnitudes"}.get(row.scale, row.scale),
    )


def _near(closeness: Closeness | None) -> bool:
    return closeness is None or closeness.degenerate or closeness.cosine >= LEAST_COSINE


def _closeness(closeness: Closeness) -> str:
    many = counted(closeness.windows, "window")
    if closeness.degenerate:
        return f"{many}: no float output of more than {DEGENERATE:g}, so no direction to compare"
    top = "" if closeness.top1_agreement is None else f", top-1 agreement {100 * closeness.top1_agreement:.2f} %"
    near = f"cosine {closeness.cosine:.6f}, relative error {closeness.relative_error:.4f}"
    return f"{many}: {near}{top}"
