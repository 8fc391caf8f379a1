"""Cycles worked out by hand, from the rules of the table and of the queues."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flexc.emulator.timing import Timing, time_program
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.instruction import Instr
from flexc.isa.machine import Machine
from flexc.isa.program import Op
from tests.emulator import programs as p

FREE_ISSUE = p.with_control(p.EDGE, issue_cycles=0)


def cycles(code: list[Instr], machine: Machine = FREE_ISSUE) -> Timing:
    return time_program(p.program(code, machine=machine))


def streams(n: int, m: int, blocks: int, vectors: int, source: str = "buf") -> list[Instr]:
    shape = p.groups_of(n, m, blocks)
    return [
        p.groups(n, m, blocks),
        p.stream(0, source, "u8", 0, 1, shape.tile_bytes(32)),
        p.stream(1, "cells", "i8", 0, 1, 1),
        p.stream(2, "buf", "i8", 0x8000, vectors, shape.depth),
        p.stream(3, "acc", "i32", 0, vectors, 32),
    ]


TILE = [
    instr("ldw", cells=1, src=0, post=(1,)),
    instr("lda", act=2, wait=(1,)),
    instr("mac", acc=3, cells=1),
]


@pytest.mark.parametrize("vectors", [1, 2, 100])
@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize(("n", "m", "blocks", "each"), [(1, 1, 128, 1), (2, 4, 64, 1), (1, 8, 128, 1), (1, 16, 128, 2)])
def test_a_tile(n: int, m: int, blocks: int, each: int, interval: int, vectors: int) -> None:
    machine = p.with_array(FREE_ISSUE, initiation_interval=interval)
    timing = cycles([*streams(n, m, blocks, vectors), *TILE], machine)
    assert timing.cycles == 32 + 2 + (vectors - 1) * each * interval + 11 + each - 1
    assert timing.busy == {"weights": 32, "array": 2 + vectors * each * interval}


@pytest.mark.parametrize("tiles", [1, 2, 50])
@pytest.mark.parametrize(("n", "m", "blocks", "each"), [(4, 8, 32, 1), (1, 16, 128, 2)])
def test_tiles_back_to_back_on_one_macro(n: int, m: int, blocks: int, each: int, tiles: int) -> None:
    vectors = 20
    code = [
        *streams(n, m, blocks, vectors),
        instr("sync", engine="array", post=(2,)),  # the cells are free
        instr("loop", level=0, count=tiles),
        instr("ldw", cells=1, src=0, wait=(2,), post=(1,)),
        instr("lda", act=2, wait=(1,)),
        instr("mac", acc=3, cells=1, release=(2,)),
        instr("endloop", level=0),
    ]
    last = 34 + (vectors - 1) * each + 11 + each - 1
    assert cycles(code).cycles == (tiles - 1) * (34 + vectors * each) + last


def test_two_weight_sets_hide_loads() -> None:
    machine = p.with_array(FREE_ISSUE, weight_sets=2)
    code = [
        *streams(2, 4, 64, 50),
        instr("sync", engine="array", post=(2,)),
        instr("sync", engine="array", post=(2,)),  # both sets are free
        instr("loop", level=0, count=10),
        instr("ldw", cells=1, src=0, wait=(2,), post=(1,)),
        instr("lda", act=2, wait=(1,)),
        instr("mac", acc=3, cells=1, release=(2,)),
        instr("endloop", level=0),
    ]
    assert cycles(code, machine).cycles == 32 + 10 * (2 + 50) - 50 + 49 + 11


def test_resident_weights_load_in_no_time() -> None:
    machine = p.with_array(FREE_ISSUE, resident=True, weight_sets=0)
    timing = cycles([*streams(2, 4, 64, 10, "const"), *TILE], machine)
    assert timing.cycles == 2 + 9 + 11
    assert "cell_write" not in timing.counters


def test_tiles_made_at_run_time_take_their_time_on_a_resident_machine() -> None:
    machine = p.with_array(FREE_ISSUE, resident=True, weight_sets=0)
    timing = cycles([*streams(2, 4, 64, 10, "buf"), *TILE], machine)
    assert timing.cycles == 32 + 2 + 9 + 11
    assert timing.counters["cell_write"] == 32 * 128


def test_control_issues_one_a_cycle_and_stalls_at_a_full_queue() -> None:
    machine = p.with_control(p.EDGE, queue_depth=2, issue_cycles=1)
    fill = [p.stream(0, "buf", "f32", 0, 64, 10), *[instr("vfill", dst=0)] * 5, instr("sync", engine="host", post=(1,))]
    # Issues: stream 0, fills 1, 2, 3 (the third when the first starts, at 1), 11 (the second starts), 21, sync 22.
    later = [instr("sync", engine="weights", wait=(1,)), instr("barrier"), instr("vfill", dst=0)]
    timing = cycles([*fill, *later], machine)
    assert timing.cycles == 1 + 5 * 10 + 1 + 10  # the last one is issued in the cycle after the barrier
    assert timing.instructions == 10 + 1  # halt too
    assert timing.busy["vector"] == 60


def test_the_bus_is_shared_by_both_channels_and_the_host() -> None:
    code = [
        p.stream(0, "dram", "u8", 0, 1, 5120),  # 100 cycles of the bus at 51.2 bytes a cycle, after 50 of latency
        p.stream(1, "buf", "u8", 0, 1, 5120),
        instr("copy", dst=1, src=0, channel=0),
        instr("copy", dst=1, src=0, channel=1),
        instr("copy", dst=1, src=0, channel=0),
    ]
    assert cycles(code).cycles == 50 + 300
    assert cycles(code[:-1]).cycles == 50 + 200
    assert cycles(code[:-2]).cycles == 150


def test_a_transfer_uses_the_bus_before_an_earlier_one_that_is_held_up() -> None:
    code = [
        p.stream(0, "dram", "u8", 0, 1, 5120),
        p.stream(1, "buf", "u8", 0, 1, 5120),
        p.stream(2, "buf", "f32", 0, 64, 1000),
        instr("vfill", dst=2, post=(1,)),
        instr("copy", dst=1, src=0, channel=0, wait=(1,)),
        instr("copy", dst=1, src=0, channel=1, post=(2,)),
        instr("vfill", dst=2, wait=(2,)),
    ]
    assert cycles(code).cycles == 1000 + 1000  # the second copy has long been done


def test_sync_posts_when_earlier_results_are_there() -> None:
    code = [
        *streams(2, 4, 64, 5),
        p.stream(4, "buf", "f32", 0, 64, 7),
        *TILE,
        instr("sync", engine="array", post=(3,)),
        instr("vfill", dst=4, wait=(3,)),
    ]
    assert cycles(code).cycles == 34 + 4 + 11 + 7


def test_a_token_may_be_posted_later_in_the_text() -> None:
    code = [
        p.stream(0, "buf", "f32", 0, 64, 7),
        instr("sync", engine="weights", wait=(1,), post=(2,)),
        instr("vfill", dst=0, post=(1,)),
        instr("vfill", dst=0, wait=(2,)),
    ]
    assert cycles(code).cycles == 14


@pytest.mark.parametrize(
    "code",
    [
        [instr("sync", engine="host", wait=(1,))],
        [instr("sync", engine="host", wait=(1,)), instr("barrier"), instr("sync", engine="array", post=(1,))],
        [instr("sync", engine="host", wait=(1,), post=(2,)), instr("sync", engine="array", wait=(2,), post=(1,))],
        [*[instr("sync", engine="host", wait=(1,))] * 9, instr("sync", engine="array", post=(1,))],
    ],
)
def test_deadlock_is_refused(code: list[Instr]) -> None:
    program = p.program(code, ops=[Op("first", "MatMul", (), "array", "", 0, len(code))])
    with pytest.raises(FlexcError, match="waits for a token of t1 that never comes") as caught:
        time_program(program)
    assert caught.value.where == "pc 0 (sync) of first"


def test_ops_add_up_to_the_total() -> None:
    fill = instr("vfill", dst=0)
    code = [p.stream(0, "buf", "f32", 0, 64, 10), fill, fill, *streams(2, 4, 64, 30), *TILE, fill]
    ops = [
        Op(name, "X", (), "vector", "", first, last) for name, first, last in (("a", 1, 3), ("b", 4, 11), ("c", 11, 12))
    ]
    timing = time_program(p.program(code, ops=ops, machine=p.EDGE))
    assert sum(op.cycles for op in timing.ops) == timing.cycles
    assert (timing.ops[0].start, timing.ops[0].end) == (1, 21)
    assert timing.ops[0].busy == {"vector": 20}
    assert timing.ops[0].counters["control_instruction"] == 3  # with the one before it
    assert {name: sum(op.counters.get(name, 0) for op in timing.ops) for name in timing.counters} == timing.counters


def test_ops_of_iterations_share_what_their_code_costs() -> None:
    """A loop around two ops, three times: each iteration has ops of its own, the loops inside are jumped as ever."""
    inner = [instr("loop", level=1, count=400), instr("vfill", dst=0), instr("endloop", level=1)]
    body = [*inner, instr("vfill", dst=0), instr("barrier")]
    code = [p.stream(0, "buf", "f32", 0, 64, 10), instr("loop", level=0, count=3), *body, instr("endloop", level=0)]
    spans = {"a": (2, 5), "b": (5, 7)}
    once = [Op(name, "X", (), "vector", "", *span) for name, span in spans.items()]
    each = [replace(op, name=f"{op.name}{turn}", iteration=turn) for turn in range(3) for op in once]
    together = time_program(p.program(code, ops=once, machine=p.EDGE))
    apart = p.program(code, ops=each, machine=p.EDGE)
    timing = time_program(apart)
    assert timing == time_program(apart, jump=False)
    assert (timing.cycles, timing.busy, timing.counters) == (together.cycles, together.busy, together.counters)
    for place, op in enumerate(together.ops):
        shares = timing.ops[place::2]
        assert sum(share.cycles for share in shares) == op.cycles
        assert [share.busy["vector"] for share in shares] == [op.busy["vector"] // 3] * 3
        assert sum(share.counters["vector_op"] for share in shares) == op.counters["vector_op"]
    starts = [share.start for share in timing.ops]
    assert starts == sorted(set(starts))


def test_issuing_alone_takes_time() -> None:
    code = [p.stream(0, "buf", "f32", 0, 64, 10)] * 5
    assert cycles(code, p.EDGE).cycles == 5
    assert cycles(code, replace(p.EDGE, control=replace(p.EDGE.control, issue_cycles=3))).cycles == 15
