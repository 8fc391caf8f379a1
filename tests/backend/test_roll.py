"""Layers that are alike become one loop, and nothing else changes: values, names, and what every layer costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest

from flexc.backend import lower
from flexc.backend.assign import assign
from flexc.backend.roll import Written, roll
from flexc.backend.units import Line, Unit
from flexc.emulator.run import Executor
from flexc.emulator.timing import OpTiming, time_program
from flexc.emulator.walk import Block, Leaf, build
from flexc.isa.encoding import instr
from flexc.isa.instruction import LEVELS
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import EVERY, Op, Program, Tap, Tile
from flexc.isa.streams import Step, Stream
from tests.backend.compare import assert_same, compiled, small_machine
from tests.backend.layers import recurrent, stacked
from tests.backend.models import random_feeds
from tests.emulator import programs

EDGE = load_machine("edge")


def unrolled(model: onnx.ModelProto, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return the program of a model without loops around whole ops."""

    def as_it_is(code: Written, _machine: Machine) -> Written:
        return code

    with monkeypatch.context() as patch:
        patch.setattr(lower, "roll", as_it_is)
        return compiled(model, machine)[1]


def turns(program: Program) -> list[int]:
    """Return the iterations of loops around whole ops, in the order of the code."""
    inside = {op.first for op in program.debug.ops if op.iteration != EVERY}
    loops = [tile for tile in program.debug.tiles if tile.what == "turn"]
    return [tile.count for tile in loops if any(tile.pc < first for first in inside)]


def cost(timing: OpTiming) -> tuple[Counter[str], Counter[str]]:
    """Return what the code of an op does: without what control does, which sets other registers."""
    counters = Counter({name: count for name, count in timing.counters.items() if name != "control_instruction"})
    return Counter(timing.busy), counters


@pytest.mark.parametrize("machine", [EDGE, load_machine("resident"), small_machine(16, 2, 2)], ids=lambda m: m.name)
def test_layers_become_a_loop_and_nothing_else_changes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stacked(9, 48, 64)
    feeds = random_feeds(model, 2)
    program = assert_same(model, machine, feeds, {"h8": False})
    flat = unrolled(model, machine, monkeypatch)
    assert max(turns(program)) >= 4
    assert len(program.code) < 0.75 * len(flat.code)
    assert [(op.name, op.nodes, op.nm) for op in program.debug.ops] == [
        (op.name, op.nodes, op.nm) for op in flat.debug.ops
    ]
    one, other = time_program(program), time_program(flat)
    assert [cost(op) for op in one.ops] == [cost(op) for op in other.ops]
    assert sum(op.cycles for op in one.ops) == one.cycles < 1.003 * other.cycles
    assert all(op.cycles for op in one.ops)
    assert one.instructions < 1.03 * other.instructions
    results = [Executor(each).run(feeds)["h8"] for each in (program, flat)]
    assert results[0].tobytes() == results[1].tobytes()


def test_a_network_of_one_layer_has_no_loop() -> None:
    model = stacked(1, 48, 64)
    assert turns(assert_same(model, EDGE, random_feeds(model), {"h0": False})) == []


@pytest.mark.parametrize(("shape", "groups"), [((70, 32, 300), 3), ((130, 64, 700), 6)], ids=str)
def test_weights_that_come_a_group_ahead_lie_where_they_are_read_in_a_loop_of_layers(
    shape: tuple[int, int, int], groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other kernels of a layer go round loops of the same levels, here an odd number of times: rings begin anywhere."""
    rows, width, hidden = shape
    model = stacked(4, width, hidden, rows)
    rolled, flat = compiled(model, EDGE)[1], unrolled(model, EDGE, monkeypatch)
    assert turns(rolled)
    last = [tile.start for tile in flat.debug.tiles if tile.what == "column group" and tile.count == 1]
    assert (groups - 1) * 128 in last, "the last group stands alone where weights come ahead"
    feeds = random_feeds(model)
    results = [Executor(each).run(feeds)["h3"] for each in (rolled, flat)]
    assert results[0].tobytes() == results[1].tobytes()


LINES = 20


def written(bases: Sequence[Sequence[int]], ring: int = 0) -> Written:
    """Return an op for each row of addresses: a unit in which a stream at each, and one in the buffer, are used.

    The one in the buffer moves with a loop of 3 iterations, round a ring of so many places or not.
    """
    units, ops = [], []
    for number, own in enumerate(bases):
        streams = [Stream.dense("dram", "f32", base, 2, 4) for base in own]
        inside = Stream("buf", "f32", 0, 2, 4, 16, 4, (Step(0, 32, ring),))
        body = [Line("copy", {"dst": inside, "src": each}, {"channel": 0}) for each in streams]
        loop = [Line("loop", {}, {"level": 0, "count": 3}), *body, Line("endloop", {}, {"level": 0})]
        units.append(Unit([*loop, *[Line("barrier", {}, {})] * (LINES - len(loop))]))
        ops.append(Op(f"op{number}", "X", (), "dma", "", LINES * number, LINES * (number + 1)))
    taps = [Tap(op.first + 1, "dst", op.name, "f32", (6, 4), 0, 4, 1, (Step(0, 8),)) for op in ops]
    tiles = [Tile(op.first, "row", 3) for op in ops]
    return Written(units, ops, taps, tiles)


def followed(block: Block, iterations: list[int], running: list[int], outermost: bool = True) -> Iterator[Leaf]:
    """Yield every instruction as often as it is carried out; counts of rings begin anew with an outermost loop."""
    for node in block.nodes:
        if isinstance(node, Leaf):
            yield node
            continue
        start = running[node.level]
        for iteration in range(node.count):
            iterations[node.level], running[node.level] = iteration, start + iteration
            yield from followed(node.rest if iteration else node.first, iterations, running, False)
        iterations[node.level], running[node.level] = 0, start + node.count
        if outermost:
            running[:] = [0] * LEVELS


def carried_out(code: Written) -> list[tuple[str, int, int]]:
    """Return all copies in order: for which op, from where, to where."""
    assigned = assign(code.units, EDGE)
    program = programs.program([*assigned.code, instr("halt")])
    debug = assigned.debug(code.ops, code.taps, code.tiles, ())
    found, iterations, running = [], [0] * LEVELS, [0] * LEVELS
    for leaf in followed(build(program).root, iterations, running):
        if leaf.streams:
            around = [
                op for op in debug.ops if op.first <= leaf.pc < op.last and op.iteration in (EVERY, iterations[0])
            ]
            src, dst = (leaf.streams[name].address(iterations, running) for name in ("src", "dst"))
            found.append((around[0].name, src, dst))
            assert len(around) == 1
    return found


@pytest.mark.parametrize(
    ("bases", "counts"),
    [
        ([[0], [64], [128], [192]], [4]),
        ([[0, 4096], [64, 0], [128, 4096], [192, 0]], [4]),
        ([[0, 0], [64, 128], [0, 0], [64, 128], [0, 0]], [5]),
        ([[0], [640], [704], [768], [832]], [4]),
        ([[0], [64], [128], [5000], [5064], [5128], [5192]], [3, 4]),
        ([[512], [256], [0]], [3]),
        ([[0], [64], [64], [0]], [2, 2]),
        ([[0, 8], [0, 8], [0]], [2]),
        ([[0]], []),
    ],
)
@pytest.mark.parametrize("ring", [0, 2])
def test_addresses_that_move_evenly_are_a_loop(bases: list[list[int]], counts: list[int], ring: int) -> None:
    before = written(bases, ring)
    after = roll(before, EDGE)
    assert [line.values["count"] for unit in after.units if unit.opens for line in unit.lines] == counts
    assert carried_out(after) == carried_out(before)
    assert [tap.value for tap in after.taps] == [op.name for op in before.ops]


def test_every_copy_stays_what_it_was_however_addresses_lie() -> None:
    rng = np.random.default_rng(1)
    rolled = 0
    for _ in range(60):
        period, count = rng.integers(1, 4), rng.integers(1, 7)
        first, by = rng.integers(0, 99, (2, period, 3)) * 64
        bases = [(first[p] + by[p] * (t % 2 if p % 2 else t)).tolist() for t in range(count) for p in range(period)]
        for _ in range(rng.integers(0, 3)):
            bases[rng.integers(len(bases))][rng.integers(3)] = int(rng.integers(99))
        extra = [row[: 1 + place % 3] for place, row in enumerate(bases[: rng.integers(0, 3)])]
        before = written([*extra, *bases, *extra], int(rng.integers(5)))
        after = roll(before, EDGE)
        assert carried_out(after) == carried_out(before)
        rolled += any(unit.opens for unit in after.units)
    assert rolled > 30


def ringed(rng: np.random.Generator, turns: int) -> Written:
    """Return like ops that copy between rings, in loops and in loops inside these, of any counts."""

    def copying(level: int) -> Line:
        steps = tuple(Step(each, 32 << each, int(rng.integers(5))) for each in range(level + 1))
        inside = Stream("buf", "f32", 0, 2, 4, 16, 4, steps)
        return Line("copy", {"dst": inside, "src": Stream.dense("dram", "f32", 0, 2, 4)}, {"channel": 0})

    def loop(level: int, *body: Line) -> list[Line]:
        count = int(rng.integers(1, 8))
        return [Line("loop", {}, {"level": level, "count": count}), *body, Line("endloop", {}, {"level": level})]

    def at(place: int, line: Line) -> Line:
        own = {"src": replace(line.streams["src"], base=place)} if line.streams else {}
        return replace(line, streams={**line.streams, **own})

    nests = [loop(0, copying(0), *loop(1, copying(1), copying(1))) for _ in range(rng.integers(1, 4))]
    body = [*(line for nest in nests for line in nest), *[Line("barrier", {}, {})] * LINES]
    units = [Unit([at(64 * turn, line) for line in body]) for turn in range(turns)]
    size = len(body)
    ops = [Op(f"op{turn}", "X", (), "dma", "", turn * size, (turn + 1) * size) for turn in range(turns)]
    return Written(units, ops, [], [])


def test_every_turn_goes_round_rings_as_code_without_the_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        before = ringed(rng, 4)
        after = roll(before, EDGE)
        assert after is not before
        assert carried_out(after) == carried_out(before)


def test_rings_that_are_back_late_are_no_loop() -> None:
    assert roll(long := written([[0], [64], [128]], 2000), EDGE) is long


@pytest.mark.parametrize("length", [7, 8])
def test_recurrent_layers_hand_on_what_they_should(length: int) -> None:
    """A state goes to and fro between two places, from the first on, however often the layer before has gone round."""
    model = recurrent(5, length, 16)
    assert max(turns(assert_same(model, EDGE, random_feeds(model), {"h4": False}))) >= 3


def test_loops_are_as_deep_as_the_machine_allows() -> None:
    shallow = replace(EDGE, control=replace(EDGE.control, loop_levels=1))
    before = written([[0], [64], [128], [192]])
    assert roll(before, shallow) is before


def test_taps_hold_in_their_own_iteration() -> None:
    program = compiled(stacked(6, 48, 64), EDGE)[1]
    taps = program.debug.taps
    assert {tap.iteration for tap in taps} >= {EVERY, *range(max(turns(program)))}
    sums = [tap.value for tap in taps if tap.operand == "acc"]
    assert len(sums) == len(set(sums)) == 3 * 6 + 1
    tap = next(tap for tap in taps if tap.iteration == 2)
    assert [tap.value_at([n, 0]) for n in (1, 2)] == ["", tap.value]


def test_code_is_below_a_percent_of_the_weights_of_many_layers() -> None:
    program = compiled(stacked(16, 128, 256), EDGE)[1]
    assert 16 * len(program.code) < 0.01 * program.weight_bytes
    assert np.count_nonzero(program.const[: program.weight_bytes]) > program.weight_bytes // 2
