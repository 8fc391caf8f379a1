"""Renew docs/node-tests.md: run every ONNX node test and write down where each ran.

python tests/node_tests/table.py
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterable
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as pytest sees it

from tests.node_tests.suite import OUTCOMES, Outcome, cases, run_case

TABLE = Path(__file__).resolve().parents[2] / "docs" / "node-tests.md"
#: Cases whose expected numbers we do not meet, and why that is not our error.
KNOWN = {
    "dft_inverse": "the exact value is 0: the case expects 1.9e-7 there, within 1e-7; we make 3e-15",
    "dft_inverse_opset19": "as dft_inverse",
    "attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal": (
        "on the host; onnxruntime masks with the least finite number, the case with -inf"
    ),
    "attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal": "as the 3d_mask case",
}
_HEAD = """# ONNX node tests

Every case of `onnx.backend.test.case.node` (onnx {version}), run through the backend adapter
(`flexc.backend_adapter`) on `edge`: compiled, carried out by the emulator, and compared at the case's own tolerances.
Inputs that only steer (a shape, axes, bounds; `frontend/steering.py`) are constants at compile time.
`python tests/node_tests/table.py` renews this page.

- **native**: the machine runs all of it. **host**: some of it runs as a host segment, with the right result.
- **refused**: `flexc` says that it does not compile this, and why.
- **wrong**: numbers beyond the tolerance; for the few cases there are, the reason stands beside them.
- **bug** would be any other exception.

Weights are inputs of most cases, so nothing is quantised; a case with * ran on the array, partly at least, in INT8.

{totals}

## By operator

`several` are the cases whose node is written out as other nodes (the `_expanded` ones, mostly).

{operators}

## By case

{cases}
"""


def page(outcomes: Iterable[Outcome]) -> str:
    """Return the text of the page."""
    every = list(outcomes)
    totals = collections.Counter(each.status for each in every)
    rows = [f"| {' | '.join(['', *OUTCOMES, 'all'])} |", "|" + "---|" * (len(OUTCOMES) + 2)]
    rows.append(f"| cases | {' | '.join(str(totals[status]) for status in OUTCOMES)} | {len(every)} |")
    return _HEAD.format(
        version=onnx.__version__,
        totals="\n".join(rows),
        operators="\n".join(_by_operator(every)),
        cases="\n".join(_by_case(every)),
    )


def _by_operator(outcomes: list[Outcome]) -> Iterable[str]:
    yield f"| operator | {' | '.join(OUTCOMES)} |"
    yield "|" + "---|" * (len(OUTCOMES) + 1)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for each in outcomes:
        counts[each.op_type][each.status] += 1
    for op_type, found in sorted(counts.items()):
        yield f"| {op_type} | {' | '.join(str(found[status] or '') for status in OUTCOMES)} |"


def _by_case(outcomes: list[Outcome]) -> Iterable[str]:
    yield "| case | where | why |"
    yield "|---|---|---|"
    for each in outcomes:
        reason = (KNOWN.get(each.name, each.reason) if each.status == "wrong" else each.reason).replace("|", "\\|")
        yield f"| {each.name} | {each.status}{'*' if each.quantised else ''} | {reason} |"


def read(text: str) -> dict[str, str]:
    """Return the status of every case on a page."""
    rows = [line.split(" | ") for line in text.partition("## By case")[2].splitlines()[4:] if line.startswith("| ")]
    return {name.removeprefix("| "): status.rstrip("*") for name, status, *_ in rows}


if __name__ == "__main__":
    TABLE.write_text(page(run_case(case) for case in cases()), encoding="utf-8")
