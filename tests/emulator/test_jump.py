"""Jumping over the iterations of a loop gives what going through all of them gives, on many random programs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest

from flexc.emulator.engines import Engines, Record
from flexc.emulator.timing import Timing, time_program
from flexc.isa.encoding import instr
from flexc.isa.errors import FlexcError
from flexc.isa.instruction import ENGINES, Instr
from flexc.isa.program import Op, Program
from tests.emulator import programs as p

ROUNDS = 80
TRIPS = ([1, 5, 12, 40], [1, 2, 4, 15], [1, 3, 7])  # by level


def setup(rng: random.Random) -> Iterator[Instr]:
    """Streams of random sizes: weights s0 to cells s1, vectors s2 to sums s3, DRAM s4, buffer s5."""
    shape, vectors = p.groups_of(2, 4, 64), rng.randint(1, 60)
    size = rng.randint(1, 20000)
    yield p.groups(2, 4, 64)
    yield p.stream(0, "buf", "u8", 0, 1, shape.tile_bytes(32))
    yield p.stream(1, "cells", "i8", 0, 1, 1)
    yield p.stream(2, "buf", "i8", 0, vectors, shape.depth)
    yield p.stream(3, "acc", "i32", 0, vectors, 32)
    yield p.stream(4, "dram", "u8", 0, 1, size)
    yield p.stream(5, "buf", "u8", 0, 1, size)
    yield p.stream(6, "buf", "f32", 0, 64, rng.randint(1, 40))


def queued(rng: random.Random, wait: tuple[int, ...], post: tuple[int, ...]) -> Iterator[Instr]:
    match rng.randrange(7):
        case 0:
            yield instr("ldw", cells=1, src=0, wait=wait, post=post)
        case 1:
            yield instr("lda", act=2, wait=wait)
            yield instr(
                "mac", acc=3, cells=1, **({"post": post} if len(post) != 1 or rng.random() < 0.5 else {"release": post})
            )
        case 2:
            yield instr("copy", dst=5, src=4, channel=rng.randrange(2), wait=wait, post=post)
        case 3:
            yield instr("sync", engine=rng.choice(ENGINES), wait=wait, post=post)
        case 4:
            yield p.stream(4, "dram", "u8", 0, 1, rng.randint(1, 20000))
            yield instr("copy", dst=4, src=4, channel=rng.randrange(2), wait=wait, post=post)
        case _:
            yield instr("vfill", dst=6, wait=wait, post=post)


def body(rng: random.Random, level: int) -> Iterator[Instr]:
    """Random work: most tokens that are taken are given back, some in another order or number."""
    for _ in range(rng.randint(1, 5)):
        if level < 3 and rng.random() < 0.3:
            yield instr("loop", level=level, count=rng.choice(TRIPS[level]))
            yield from body(rng, level + 1)
            yield instr("endloop", level=level)
        else:
            taken = tuple(rng.sample(range(1, 6), rng.randint(0, 2)))
            given = taken if rng.random() < 0.98 else tuple(rng.sample(range(1, 6), rng.randint(0, 2)))
            if rng.random() < 0.5:
                yield from queued(rng, taken, ())
                taken = ()
            yield from queued(rng, taken, given)
    if rng.random() < 0.05:
        yield instr("barrier")


def random_program(seed: int) -> Program:
    rng = random.Random(seed)
    code = list(setup(rng))
    for token in range(1, 6):
        code += [instr("sync", engine=rng.choice(ENGINES), post=(token,))] * rng.randint(1, 3)
    code += [*body(rng, 0), *body(rng, 0), *body(rng, 0)]
    places = sorted(rng.sample(range(len(code) + 1), min(6, len(code))))
    ops = [Op(f"op{i}", "X", (), "array", "", a, b) for i, (a, b) in enumerate(itertools.pairwise(places))]
    machine = p.with_control(p.EDGE, queue_depth=rng.choice([1, 2, 8]), issue_cycles=rng.choice([0, 1, 3]))
    return p.program(code, ops=ops, machine=machine)


def outcome(program: Program, jump: bool) -> Timing | str:
    try:
        return time_program(program, jump=jump)
    except FlexcError as error:
        return str(error)


def test_jumping_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = []
    really = Engines.jump

    def counted(self: Engines, record: Record, times: int, ops: Sequence[int]) -> None:
        jumps.append(times)
        really(self, record, times, ops)

    monkeypatch.setattr(Engines, "jump", counted)
    finished = 0
    for seed in range(ROUNDS):
        program = random_program(seed)
        result = outcome(program, jump=True)
        assert result == outcome(program, jump=False), f"seed {seed}"
        if isinstance(result, Timing):
            finished += 1
            assert sum(op.cycles for op in result.ops) == result.cycles or not result.ops
    assert finished > ROUNDS / 4, "too many of the programs deadlock to say much"
    assert len(jumps) > ROUNDS / 2, "too few jumps to say much"
