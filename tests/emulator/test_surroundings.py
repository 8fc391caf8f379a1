"""What surrounds the instructions: host segments, observers, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx.helper as oh
import pytest
from onnx import TensorProto

from flexc.emulator.energy import LEAKAGE, energy_of
from flexc.emulator.memory import Array, Memories
from flexc.emulator.run import run
from flexc.emulator.timing import time_program
from flexc.isa.counters import COUNTERS
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.program import Op, Program, Segment
from tests.emulator import programs as p


def host_program(op: str, declared: tuple[int, ...]) -> Program:
    """A program that has the host compute y = op(x) for x of [3, 4]; y is declared with a shape."""
    node = oh.make_node(op, ["x"], ["y"])
    graph = oh.make_graph(
        [node],
        "segment",
        [oh.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])],
        [oh.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=9)
    x, y = p.tensor("x", "f32", (3, 4), 0), p.tensor("y", "f32", declared, 256)
    segment = Segment("cut", (replace(x, strides=(4, 12)),), (y,), model.SerializeToString())
    return p.program([instr("host", segment=0)], inputs=[x], outputs=[y], segments=[segment])


def test_the_host_reads_and_writes_tensors_by_their_strides() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
    read = x.reshape(2, 4, 3).transpose(0, 2, 1)  # as the strides of the segment's input say
    assert np.array_equal(run(host_program("Neg", (3, 4)), {"x": x})["y"], -read)


@pytest.mark.parametrize(("op", "shape", "message"), [("Neg", (4, 3), "gives float32"), ("Nonsense", (3, 4), "failed")])
def test_a_failing_segment_is_named(op: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(FlexcError, match=f"host segment 'cut' {message}"):
        run(host_program(op, shape), {"x": np.zeros((1, 3, 4), np.float32)})


class Notes:
    """An observer that writes down what it is shown."""

    def __init__(self, taps: Mapping[int, Sequence[str]]) -> None:
        self.taps = taps
        self.seen: list[object] = []

    def on_tap(self, pc: int, operand: str, iterations: tuple[int, ...], values: Array) -> None:
        self.seen.append((pc, operand, iterations[0], values.tolist()))

    def on_op_end(self, op_index: int, memories: Memories) -> None:
        self.seen.append((op_index, memories.windows))


def test_an_observer_sees_operands_and_the_ends_of_ops() -> None:
    x = p.tensor("x", "f32", (1, 1), 0)
    code = [
        p.stream(0, "dram", "f32", 0, 1, 1),
        instr("loop", level=0, count=2),
        instr("vadd", dst=0, a=0, imm=1.0),
        instr("endloop", level=0),
        instr("vneg", dst=0, a=0),
    ]
    ops = [Op("a", "Add", (), "vector", "", 0, 4), Op("b", "Neg", (), "vector", "", 4, 5)]
    program, notes = p.program(code, inputs=[x], outputs=[x], ops=ops), Notes({2: ("dst",), 4: ("dst",)})
    run(program, {"x": np.array([[[5.0]], [[7.0]]], np.float32)}, notes)
    assert notes.seen == [
        (2, "dst", 0, [[[6.0]], [[8.0]]]),
        (2, "dst", 1, [[[7.0]], [[9.0]]]),
        (0, 2),
        (4, "dst", 0, [[[-7.0]], [[-9.0]]]),
        (1, 2),
    ]


def test_energy_is_counts_times_prices() -> None:
    code = [p.stream(0, "buf", "f32", 0, 64, 10), p.stream(1, "dram", "f32", 0, 64, 10)]
    code += [instr("copy", dst=0, src=1, channel=0, post=(1,)), instr("vexp", dst=0, a=0, wait=(1,))]
    ops = [Op("a", "Load", (), "dma", "", 0, 3), Op("b", "Exp", (), "vector", "", 3, 4)]
    program = p.program(code, ops=ops)
    timing, machine = time_program(program), program.machine
    energy = energy_of(timing, machine)
    assert energy.by_event["dram_byte"] == pytest.approx(2560 * 48)
    assert energy.by_event["vector_op"] == pytest.approx(640 * 4 * 2.7)
    assert energy.by_event["control_instruction"] == pytest.approx(5 * 14.5)
    leaks = (4 * 2.5 + 256 * 0.1) * 1e-3 * timing.cycles / 0.5e9 * 1e12
    assert energy.by_event[LEAKAGE] == pytest.approx(leaks)
    assert energy.total_pj == pytest.approx(energy.op_pj(0) + energy.op_pj(1))


def test_every_counter_has_a_price() -> None:
    assert all(hasattr(p.EDGE.energy, field) for field, _ in COUNTERS.values())
