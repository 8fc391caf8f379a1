"""Which operators run where, by which rule: the page ``docs/supported-ops.md``, from the declarations that decide it.

``python -m flexc.frontend.supported`` renews the page below the working directory.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

from .contrib import CONTRIB
from .operators import OPERATORS, Tolerance
from .rewrite.table import EARLY, RULES
from .rules import Rule

PAGE = Path("docs/supported-ops.md")

#: Where each kind of lowering runs.
ENGINES = {
    "concat": "DMA",
    "conv": "array",
    "gather": "DMA",
    "linear": "array",
    "matmul": "vector or array",
    "pad": "DMA",
    "scatter": "DMA",
    "view": "no code, or DMA",
}
_SCALES = {
    "element": "of each element",
    "row": "of the row's greatest",
    "sum": "of the magnitudes added up",
    "unit": "of 1, or of a larger value",
}
_HEAD = """# Operators

Which operators of ONNX (opset 13 and later; older files are raised to 13) run on the machine, and by which rule. A node
that breaks its operator's rule, or whose operator is in no table, runs as a host segment in onnxruntime; the
compile report names it with the reason. `python -m flexc.frontend.supported` renews this page.

MatMul, Gemm and Conv with constant weights are linears: quantised to INT8, they become MatMulInteger and ConvInteger,
on the array. float16, bfloat16 and float64 are computed in float32. Operators on constants alone, and arithmetic on
shapes, are computed at compile time.

## On the machine

*Exact* results are equal bit for bit to onnxruntime's on the same inputs; others differ by at most c times 2^-23.

| operator | where | rule | agreement |
|---|---|---|---|
"""
_MIDDLE = """
## Written in other operators

While a model is read, these become operators of the first table, or parts of constants; where a rule does not apply the
node stays as it is.

| operator | becomes |
|---|---|
"""
_LAST = """
## Loops

Scan, and Loop with a constant number of turns that nothing ends early, are unrolled; turns that are alike then run as
one hardware loop. If with a constant condition becomes its branch.

## Of onnxruntime's own domain

Operators of com.microsoft that onnxruntime's quantisers and optimisers write. Others of that domain run on the host.

| operator | meaning |
|---|---|
"""


@dataclass(frozen=True)
class Entry:
    """One native operator as the page shows it."""

    op_type: str
    engine: str
    rule: str
    agreement: str


def entries() -> list[Entry]:
    """Return the native operators by name."""
    return [
        Entry(each.op_type, ENGINES.get(each.kind, "vector"), sentence(each.rule), _agreement(each.tolerance))
        for each in sorted(OPERATORS.values(), key=lambda each: each.op_type)
    ]


def rewritten() -> list[tuple[str, str]]:
    """Return (operator, what becomes of it) by name."""
    rules = {name: (*EARLY.get(name, ()), *RULES.get(name, ())) for name in {*EARLY, *RULES}}
    return [(name, " ".join(sentence(rule) for rule in rules[name])) for name in sorted(rules)]


def contributed() -> list[tuple[str, str]]:
    """Return (operator of com.microsoft, its meaning) by name."""
    return [(name, " ".join(sentence(rule) for rule in CONTRIB[name])) for name in sorted(CONTRIB)]


def sentence(rule: Rule | object) -> str:
    """Return the first line of a rule's docstring, as a sentence."""
    text = (inspect.getdoc(rule) or "").partition("\n")[0].strip()
    return text if text.endswith(".") or not text else f"{text}."


def _agreement(tolerance: Tolerance) -> str:
    return f"{tolerance.c:g}, {_SCALES[tolerance.scale]}" if tolerance.c else "exact"


def page() -> str:
    """Return the text of the page."""
    native = [f"| {each.op_type} | {each.engine} | {_cell(each.rule)} | {each.agreement} |" for each in entries()]
    others = [f"| {name} | {_cell(text)} |" for name, text in rewritten()]
    theirs = [f"| {name} | {_cell(text)} |" for name, text in contributed()]
    parts = (_HEAD, "\n".join(native), "\n", _MIDDLE, "\n".join(others), "\n", _LAST, "\n".join(theirs), "\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if not PAGE.parent.is_dir():
        sys.exit(f"no folder {PAGE.parent} here: run this at the root of the repository")
    PAGE.write_text(page(), encoding="utf-8")
