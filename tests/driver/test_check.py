"""``--check``: it passes when all is well, and notices a broken multiplier, a broken function and a wrong model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import flexc
from flexc.checker import CheckOptions, check_program
from flexc.emulator.array import ArrayModel, FaultyArray
from flexc.emulator.cells import WeightCache
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from tests.backend.models import parsed
from tests.backend.turn_makers import indices, unrolled

from .conftest import Call, mlp_proto

CHECK_FIELDS = {
    "passed",
    "array_ops",
    "array_mismatches",
    "vector_ops",
    "vector_max_error",
    "cosine",
    "top1_agreement",
    "first_mismatch",
}


def test_a_sound_program_passes(flexc: Call, compiled: Path, data: Path) -> None:
    done = flexc("run", compiled, "--input", data, "--check", compiled.with_name("mlp.onnx"), "--json")
    assert (done.code, done.err) == (0, "")
    check = json.loads(done.out)["check"]
    assert set(check) >= CHECK_FIELDS
    assert check["passed"]
    assert check["first_mismatch"] is None
    assert (check["array_ops"], check["array_mismatches"]) == (2, 0)
    assert check["vector_ops"] > 10
    assert check["windows"] == 2
    assert check["reference_windows"] == 5
    assert check["cosine"] > 0.99
    assert check["model"]["cosine"] < check["cosine"]  # pruning costs more than quantising
    assert check["notes"] == []


def test_the_verdict_stands_last(flexc: Call, compiled: Path, data: Path) -> None:
    done = flexc("run", compiled, "--input", data, "--check", "--reference-windows", "3")
    assert done.out.splitlines()[-1] == "PASS"
    assert "3 of 5 windows were compared end to end" in done.out


def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal((1, 3, 37)).astype(np.float32)} for _ in range(3)]


def test_one_broken_multiplier_fails_and_names_the_node(compiled: Path) -> None:
    program = flexc.load(compiled).image
    second = next(op for op in program.debug.ops if op.name == "second" and op.engine == "array")
    pc = next(pc for pc in range(second.first, second.last) if program.code[pc].mnemonic == "mac")

    def broken(cache: WeightCache) -> ArrayModel:
        return FaultyArray(cache, pc, 0, 3, program.machine.array.columns)

    verdict = check_program(program, feeds(), CheckOptions(array=broken))
    assert not verdict.passed
    assert verdict.array_mismatches == 2 * 3  # the column of every token, in both windows
    first = verdict.first
    assert first is not None
    assert "second" in first.node
    assert first.op == "MatMulInteger"
    assert first.index[-1] == 3
    assert first.emulated == first.expected + 1
    assert verdict.line().startswith("FAIL: node ")
    assert verdict.vector_mismatches == 0  # each operation is judged on what it was given


def test_a_wrong_instruction_fails_and_names_the_node(compiled: Path) -> None:
    program = flexc.load(compiled).image
    place = next(pc for pc, each in enumerate(program.code) if each.mnemonic == "vexp")
    code = list(program.code)
    code[place] = instr("vabs", **{name: code[place].values[name] for name in code[place].values})
    verdict = check_program(replace(program, code=tuple(code)), feeds())
    assert verdict.first is not None
    assert verdict.first.op == "Softmax"
    assert verdict.array_mismatches == 0


def test_a_misplaced_result_is_noticed(compiled: Path) -> None:
    program = flexc.load(compiled).image
    *others, last = program.debug.tensors
    debug = replace(program.debug, tensors=(*others, replace(last, address=others[0].address)))
    verdict = check_program(replace(program, debug=debug), feeds())
    assert verdict.first is not None
    assert verdict.first.what == "is not in DRAM as it was computed"


def test_a_program_without_its_float_graph_is_checked_by_operation(flexc: Call, mlp: Path, tmp_path: Path) -> None:
    assert flexc("compile", mlp, "-o", tmp_path / "a.fxc", "--no-reference").code == 0
    done = flexc("run", tmp_path / "a.fxc", "--random-inputs", "1", "--check", "--json")
    check = json.loads(done.out)["check"]
    assert done.code == 0
    assert check["cosine"] is None
    assert "not judged end to end" in check["notes"][0]


def test_another_model_is_refused(flexc: Call, compiled: Path, data: Path, tmp_path: Path) -> None:
    proto = mlp_proto()
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "probabilities"
    onnx.save(proto, tmp_path / "other.onnx")
    done = flexc("run", compiled, "--input", data, "--check", tmp_path / "other.onnx")
    assert done.code == 1
    assert "is not the model of this program: its outputs are probabilities" in done.err


def test_a_program_without_debug_data_cannot_be_checked(compiled: Path) -> None:
    program = flexc.load(compiled).image
    with pytest.raises(FlexcError, match="no debug data"):
        check_program(replace(program, debug=replace(program.debug, taps=())), feeds())


@pytest.mark.parametrize("shape", [(1, 4, 9), (1, 4, 3, 5)])
def test_averages_over_signals_and_images(shape: tuple[int, ...]) -> None:
    dims = ", ".join(str(size) for size in shape)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[{dims}] x) => (float[] y) {{ y = GlobalAveragePool(x) }}'
    )
    feed = {"x": np.random.default_rng(3).standard_normal(shape).astype(np.float32)}
    verdict = flexc.compile(model).check(feed)
    assert verdict.passed
    assert verdict.vector_ops == 1


def test_a_loop_is_checked_turn_by_turn() -> None:
    """An unrolled recurrence runs as one loop; what is wrong with it is said of the first turn, and of every value."""
    turns, shape = 6, (5, 4)
    body = "x{t} = Gather<axis = 0>(x, i{t})  m{t} = Mul({h}, a)  e{t} = Exp(m{t})  h{t} = Sub(x{t}, e{t})"
    text = f"(float[6,5,4] x, float[5,4] a) => (float[] y) {{ {unrolled(turns, body, {'h': 'a'})} y = Neg(h5) }}"
    compiled = flexc.compile(parsed(text, **indices(turns)))
    rng = np.random.default_rng(1)
    feed = {"x": rng.standard_normal((turns, *shape)), "a": rng.standard_normal(shape)}
    feed = {name: (array / 8).astype(np.float32) for name, array in feed.items()}
    verdict = compiled.check(feed)
    assert verdict.passed
    assert verdict.vector_ops == 3 * turns + 1
    program = compiled.image
    place = next(pc for pc, each in enumerate(program.code) if each.mnemonic == "vexp")
    code = list(program.code)
    code[place] = instr("vabs", **{name: code[place].values[name] for name in code[place].values})
    wrong = check_program(replace(program, code=tuple(code)), [feed])
    assert wrong.first is not None
    assert wrong.first.value == "e0"
    assert wrong.vector_mismatches > turns


def test_a_model_that_is_misread_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rewriting agrees with itself everywhere; only the untouched file can tell."""
    from flexc.frontend.rewrite import table
    from flexc.frontend.rewrite.site import Site, at_site

    text = '<ir_version: 8, opset_import: ["": 18]> g (float[4,6] x) => (float[4,6] y) { y = Softsign(x) }'
    model, feed = onnx.parser.parse_model(text), {"x": np.linspace(-3, 2, 24, dtype=np.float32).reshape(4, 6)}
    assert flexc.compile(model).check(feed, model).file is not None
    assert flexc.compile(model).check(feed, model).passed

    def wrong(site: Site) -> bool:
        return site.done(site.op("Neg", site.x))

    monkeypatch.setitem(table.RULES, "Softsign", (at_site(wrong),))
    verdict = flexc.compile(model).check(feed, model)
    assert (verdict.array_mismatches, verdict.vector_mismatches, verdict.close) == (0, 0, True)
    assert not verdict.passed
    assert verdict.line().startswith("FAIL: cosine of the graph made of the file to the file is -0.9")
