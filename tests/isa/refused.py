"""Programs that the verifier refuses, with what it says: at least one for everything that it can say.

The tables have a row a program: what is replaced in a good program => by what :: the message. In them ``/`` ends a
line and ``-`` is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flexc.isa.assembly.assembler import assemble
from flexc.isa.machine import Machine, load_machine
from flexc.isa.program import Program, Segment, State, Tensor

#: A product 2:4 of 4 macros: weights from const in two steps of K, ring of two buffers, sums dequantised and stored.
GOOD = """
.target edge
.equ vectors 8
.equ tile 2560          ; 32 columns x (64 weights and 16 bytes of indices)
.input  x  dtype=i8 shape=[8, 256] address=0
.output y  dtype=f32 shape=[8, 128] address=2048
.weights
.zero 2 * 4 * tile
.constants
scales: .zero 4 * 136
.code
    groups n=2 m=4 blocks=32 slots=64 index=2 packing=packed select=incell merge=4
    stream s0, const, u8 base=0 rows=4 cols=tile
    step s0, L0 by=4 * tile
    stream s1, buf, u8 base=0x4000 rows=4 cols=tile
    step s1, L0 by=0x4000 mod=2
    stream s2, cells, u8 base=0 rows=4 cols=1
    stream s3, dram, i8 base=x rows=vectors cols=256
    stream s4, buf, i8 base=0 rows=vectors cols=256
    stream s5, buf, i8 base=0 rows=vectors cols=128
    pitch s5 row=256 col=1
    step s5, L0 by=128
    stream s6, acc, i32 base=0 rows=vectors cols=128
    stream s7, const, f32 base=scales rows=1 cols=136
    stream s8, buf, f32 base=0x1000 rows=1 cols=136
    stream s9, buf, f32 base=0x1000 rows=vectors cols=1
    pitch s9 row=4 col=4
    stream s10, buf, f32 base=0x1020 rows=1 cols=128
    stream s11, buf, f32 base=0x2000 rows=vectors cols=128
    stream s12, dram, f32 base=y rows=vectors cols=128
    sync array post=t3
    sync weights post=t5
    copy s4, s3, ch0 post=t4
    copy s8, s7, ch0 post=t6
    sync array wait=t4
    loop L0 count=2
        copy s1, s0, ch0 wait=t5 post=t1
        ldw s2, s1 wait=t1+t3 post=t2+t5
        lda s5
        mac s6, s2 mode=first level=L0 release=t3 wait=t2
    endloop L0
    sync array post=t7
    sync vector wait=t6
    dequant s11, s6, s9, s10 wait=t7 post=t8
    copy s12, s11, ch1 wait=t8
    halt
"""

CHANGES = """
# structure
endloop L0 => - :: loop L0 has no endloop
endloop L0 => endloop L1 :: endloop L1 ends no loop: the innermost open loop is L0
halt => endloop L1 / halt :: endloop L1 ends no loop: no loop is open
lda s5 => loop L0 count=2 / endloop L0 / lda s5 :: loop level L0 is already open
halt => - :: the program does not end with halt
loop L0 => halt / loop L0 :: halt stands before the end; only the last instruction may be halt
lda s5 => loop L1 count=4000000000 / loop L2 count=2 / endloop L2 / endloop L1 / lda s5 :: in all; allowed: 10000000000
halt => host segment=0 / halt :: host segment 0 does not exist; the program has 0
# tokens
sync array post=t3 => sync array :: waits for semaphore t3, to which nothing before has posted: 1 tokens are missing
release=t3 => - :: waits for semaphore t3, to which nothing before has posted: 1 tokens are missing
count=2 => count=9 / sync array wait=t9 :: t9, to which nothing before has posted: 9 tokens are missing
# registers
stream s6, acc, i32 base=0 rows=vectors cols=128 => - :: acc=s6 is used before a `stream` has set it
pitch s9 row => pitch s20 row :: s20 is changed before a `stream` has set it
lda s5 => - :: no `lda` has latched activations
groups n=2 m=4 blocks=32 slots=64 index=2 packing=packed select=incell merge=4 => - :: ldw before any `groups`
# addresses
by=0x4000 mod=2 => by=0x40000 mod=2 :: dst reaches bytes 0x4000..0x46800 of buf, which has 0x40000
by=4 * tile => by=-4 * tile :: src reaches bytes -0x2800..0x2800 of const, which has 0x5220
base=y rows => base=y+4 rows :: dst reaches bytes 0x804..0x1804 of dram, which has 0x1800
acc, i32 base=0 => acc, i32 base=0xfe00 :: of acc, which has 0x10000
cells, u8 base=0 => cells, u8 base=1 :: cells reaches units 0x1..0x5 of cells, which has 0x4
base=0x2000 rows => base=0x2002 rows :: is not aligned to its elements of 4 bytes
pitch s9 row=4 col=4 => pitch s9 row=6 col=4 :: sx is not aligned to its elements of 4 bytes
scales rows=1 cols=136 => scales rows=1 << 20 cols=1 << 20 / pitch s7 row=0 col=0 :: more than any memory holds
# memories, types, shapes
copy s12, s11, ch1 => copy s7, s11, ch1 :: dst is in const, which is read only
lda s5 => lda s3 :: act is in dram; allowed: buf
dequant s11, s6, s9, s10 => dequant s11, s6, s9, s7 :: sw is in const; allowed: buf, acc
ldw s2, s1 => ldw s1, s1 :: cells is in buf; allowed: cells
pitch s5 row=256 col=1 => pitch s4 row=0 col=1 :: elements of dst lie on one another: pitches 0 and 1 bytes
buf, u8 base=0x4000 => buf, f32 base=0x4000 :: src is u8 and dst f32: element sizes differ
0x4000 rows=4 cols=tile => 0x4000 rows=4 cols=tile-1 :: src is 4 x 2560 and cannot be repeated
stream s5, buf, i8 => stream s5, buf, u8 :: act is u8; allowed: i8
stream s6, acc, i32 => stream s6, acc, f32 :: acc is f32; allowed: i32
cells, u8 base=0 rows=4 cols=1 => cells, u8 base=0 rows=2 cols=2 :: cells must be u8 or i8 with one column
cells, u8 base=0 rows=4 => cells, u8 base=0 rows=5 :: cells has 5 rows; this machine has 4 macros
cells, u8 base=0 rows=4 => cells, u8 base=0 rows=2 :: src is 4 x 2560, not 2 x 2560, one row of tile bytes
level=L0 release => level=L0 slices=3 release :: 4 macros do not form 3 equal slices
level=L0 release => level=L0 slices=2 release :: act has 128 columns, not 256: slices x blocks x m (2:4, 32 blocks)
acc, i32 base=0 rows=vectors cols=128 => acc, i32 base=0 rows=vectors cols=96 :: acc is 8 x 96, not 8 x 128
stream s9, buf, f32 base=0x1000 rows=vectors => stream s9, buf, f32 base=0x1000 rows=7 :: sx is 7 x 1 and cannot be
# groups
n=2 m=4 blocks=32 slots=64 => n=5 m=4 blocks=25 slots=125 :: 5:4 cannot be formed; allowed: 1:1
blocks=32 slots=64 => blocks=65 slots=128 :: 65 blocks of 2:4; a tile holds 64
slots=64 => slots=63 :: slots=63 is not blocks x n = 64
index=2 => index=3 :: index=3 is not log2(4) = 2
merge=4 => merge=3 :: merge=3: this machine merges 4 sub-macros
packing=packed => packing=aligned :: packing=aligned: this machine has packed
select=incell => select=literal :: select=literal: this machine has incell
# contents
ldw s2, s1 wait=t1+t3 post=t2+t5 => sync weights wait=t1+t3 post=t2+t5 :: cells reads units that no `ldw`
copy s8, s7, ch0 post=t6 => sync dma0 post=t6 :: sx reads buf at 0x1000, where nothing has been written
s4, buf, i8 base=0 rows=vectors => s4, buf, i8 base=0 rows=7 :: act reads buf at 0x0..0x800, of which only a part
s8, buf, f32 base=0x1000 rows=1 cols=136 => s8, buf, f32 base=0x1000 rows=1 cols=99 :: sw reads buf at 0x1020..0x1220
mode=first level=L0 => mode=add :: acc reads acc at 0x0, where nothing has been written
"""

#: Streams of every kind, all written; one instruction comes at the end.
VECTOR = """
.target edge
    stream s0, buf, f32 base=0 rows=4 cols=8
    stream s1, buf, b8 base=0x100 rows=4 cols=8
    stream s2, buf, f32 base=0x200 rows=4 cols=1
    stream s3, buf, i32 base=0x300 rows=4 cols=1
    stream s4, buf, f32 base=0x400 rows=8 cols=4
    stream s5, buf, i8 base=0x500 rows=4 cols=8
    stream s6, acc, i32 base=0 rows=4 cols=8
    pitch s6 row=512 col=4
    stream s7, buf, f32 base=0x600 rows=4 cols=4
    stream s8, acc, i32 base=0 rows=4 cols=8
    vfill s0
    vfill s1
    vfill s3
    vfill s4
    vfill s6
    vrsum s2, s0
    vmm s7, s0, s4
    quant s5, s0, s2
    store s3, s3
    barrier
    accum s6, s6
    gather s0, s0, s3, ch0
    barrier
    {}
    halt
"""

#: (instruction, message)
OPERANDS = """
vsub s0, s1 imm=1.0 :: vsub takes numbers, not b8
vneg s0, s1 :: vneg takes numbers, not b8
vadd s0, s4 imm=1.0 :: a is 8 x 4 and cannot be repeated to dst, 4 x 8
vrmax s0, s4 :: dst is 4 x 8, not 8 x 1, one element a row of a
vmm s0, s0, s4 :: b is 8 x 4, not 8 x 8, K by the columns of dst
vmm s7, s4, s4 :: a is 8 x 4, not 4 x 4, the rows of dst by K
vmm s1, s0, s0 :: dst is b8; allowed: f32
quant s5, s0, s3 :: scale is i32; allowed: f32
quant s0, s0, s2 :: dst is f32; allowed: i8, u8
quant s5, s0, s2 zero=s3 :: zero is i32; allowed: i8
store s0, s6 :: dst is f32; allowed: i32
dequant s0, s0, s2, s2 :: acc is f32; allowed: i32
accum s6, s8 :: src has pitches 32 and 4 bytes; sums of a vector lie side by side, those of vectors 512 bytes apart
accum s6, s3 :: src is in buf; allowed: acc
gather s0, s0, s2, ch0 :: index is f32; allowed: i32, i64
gather s0, s5, s3, ch0 :: table is i8 and dst f32: element types differ
gather s0, s4, s3, ch0 :: table has 4 columns and dst 8
gather s4, s7, s3, ch0 :: index has 4 elements for 8 rows of dst
scatter s0, s0, s2, ch0 :: index is f32; allowed: i32, i64
scatter s5, s0, s3, ch0 :: src is f32 and dst i8: element types differ
scatter s0, s4, s3, ch0 :: src has 4 columns and dst 8
scatter s0, s0, s7, ch0 :: index has 16 elements for 4 rows of src
vrank s0, s0 :: dst is f32; allowed: i32, i64
vrank s3, s4 :: the rows differ
vrank s6, s2 :: dst has 8 columns, a only 1
vpick s0, s0, s2 :: index is f32; allowed: i32, i64
vpick s0, s5, s3 :: a is i8; allowed: f32
vpick s0, s4, s3 :: a is 8 x 4 and cannot be repeated to the rows of dst
vput s0, s4, s3 :: index is 4 x 1, not 8 x 4, as a
vscan s5, s5 :: dst is i8; allowed: f32, i32, i64
vscan s0, s4 :: a is 8 x 4, not 4 x 8, as dst
copy s6, s3, ch0 :: dst is in acc; allowed: const, dram, buf
"""

#: (an input in place of that of the good program, message)
TENSORS = [
    (Tensor("x", "f99", (8,), "dram", 0, (4,)), "input 'x' has unknown dtype f99"),
    (Tensor("x", "f32", (8,), "buf", 0, (4,)), "input 'x' lies in buf; allowed: const, dram"),
    (Tensor("x", "f32", (8,), "const", 0, (4,)), "input 'x' is written, but const is read only"),
    (Tensor("x", "f32", (8,), "dram", 0, (4, 4)), "input 'x' has shape [8] with strides [4, 4]"),
    (Tensor("x", "f32", (-8,), "dram", 0, (4,)), "input 'x' has shape [-8] with strides [4]"),
    (Tensor("x", "f32", (8,), "dram", 2, (4,)), "input 'x' is not aligned to its elements of 4 bytes"),
    (Tensor("x", "f32", (8,), "dram", 6144, (4,)), "input 'x' takes bytes 0x1800..0x1820 of dram, which has 0x1800"),
    (Tensor("x", "f32", (8,), "dram", 0, (-4,)), "input 'x' takes bytes -0x1c..0x4 of dram, which has 0x1800"),
    (Tensor("x", "f32", (1 << 50,), "dram", 0, (0,)), "input 'x' has 1125899906842624 elements"),
]

_LEVELS = range(8)
_ONE = "buf, f32 base={} rows=1 cols=1\n"
#: Loops in loops, each of which changes a register that the one around it sets again.
_RESTLESS = (
    f".target edge\nstream s9, {_ONE.format(0)}vfill s9\n"
    + "".join(f"stream s{n}, {_ONE.format(4)}loop L{n} count=4\n" for n in _LEVELS)
    + "vfill s9\n" * 100
    + "".join(f"stream s{n}, {_ONE.format(8)}endloop L{n}\n" for n in reversed(_LEVELS))
    + "halt"
)
#: Rings of 16 places, one a loop, in loops in loops: more combinations than can be followed.
_RINGS = (
    ".target edge\n"
    + "".join(f"stream s{n}, {_ONE.format(64 * n)}step s{n}, L{n} by=4 mod=16\n" for n in range(6))
    + "".join(f"loop L{n} count=18\n" for n in range(6))
    + "".join(f"vfill s{n}\n" for n in range(6))
    + "".join(f"endloop L{n}\n" for n in reversed(range(6)))
    + "halt"
)
_ONE_SLOT = GOOD.replace("    step s1, L0 by=0x4000 mod=2\n", "")
_WIDE = "stream s0, buf, u8 base=0 rows=1 cols=262144\n"
_SUMS = "    stream s6, acc, i32 base=0 rows=vectors cols=128\n"
_EARLY = GOOD.replace("release=t3 wait=t2", "release=t7 wait=t2").replace("t1+t3", "t1")

#: (program text, message)
TEXTS = [
    (_RESTLESS, "loops in loops set registers again and again; set them before the outermost loop"),
    (_RINGS, "from here on there is too much between two barriers to prove that no hazard is left"),
    (_ONE_SLOT.replace("ch0 wait=t5", "ch0"), "on engine dma0, which, in an earlier iteration, 0x00000190 ldw reads"),
    (_EARLY.replace("sync array post=t7", ""), "or a later `sync array` post a semaphore that this waits for"),
    *(
        (GOOD.replace(_SUMS, f"{_SUMS}    pitch s6 row={row} col={col}\n"), f"acc has pitches {row} and {col} bytes")
        for row, col in ((516, 4), (1024, 4), (512, 8))
    ),
    (
        ".target edge\nloop L0 count=900000\nsync vector post=t1\nendloop L0\nhalt",
        "an iteration changes semaphore t1 by 1: that is too much to follow",
    ),
    (
        f".target edge\n{_WIDE}loop L0 count=4000000000\nvfill s0\nendloop L0\nhalt",
        "the loops work on 1048576000000000 elements in all; allowed: 1000000000000000",
    ),
]

#: (fields of the machine's control, message)
SMALLER = [
    ({"streams": 12}, "stream=s12: this machine has 12 streams"),
    ({"semaphores": 8}, "semaphore t8: this machine has 8 semaphores"),
]


def changes(text: str, good: str) -> Iterator[tuple[str, str]]:
    """Yield (program text, message) for the rows of a table."""
    for row in filter(None, text.split("\n")):
        if row.startswith("#"):
            continue
        change, _, message = row.partition(" :: ")
        old, new = (part.strip().replace(" / ", "\n").removeprefix("-\n") for part in change.split(" => "))
        assert old in good, row
        yield good.replace(old, "" if new == "-" else new, 1), message


def operands(text: str) -> Iterator[tuple[str, str]]:
    """Yield (program text, message) for instructions whose operands do not fit."""
    for row in filter(None, text.split("\n")):
        instruction, _, message = row.partition(" :: ")
        yield VECTOR.format(instruction), message


def every() -> Iterator[tuple[Program, str]]:
    """Yield every program that is refused, with (a part of) what is said about it."""
    for text, message in (*changes(CHANGES, GOOD), *operands(OPERANDS), *TEXTS):
        yield assemble(text), message
    good = assemble(GOOD)
    yield from ((replace(good, inputs=(tensor,)), f"program: {message}") for tensor, message in TENSORS)
    yield from ((replace(good, machine=smaller(**fields)), message) for fields, message in SMALLER)
    yield from changed(good)


def smaller(**fields: int) -> Machine:
    """Return the machine of the good program with other control fields."""
    given = load_machine("edge")
    return replace(given, control=replace(given.control, **fields))


def changed(good: Program) -> Iterator[tuple[Program, str]]:
    """Yield programs that no text describes."""
    machine, (x,), (y,) = good.machine, good.inputs, good.outputs
    yield replace(good, inputs=(x, x)), "program: input 'x' is there twice"
    yield replace(good, dram_bytes=1 << 60), "of dram; the machine has"
    yield replace(good, weight_bytes=1 << 40), "bytes of weights in 21024 bytes of const"
    channel = replace(machine, dram=replace(machine.dram, channels=1))
    yield replace(good, machine=channel), "channel=ch1: this machine has 1 DMA channels"
    yield replace(assemble(GOOD.replace("sync vector wait", "sync dma1 wait")), machine=channel), "engine dma1: this"
    levels = assemble(GOOD.replace("L0", "L1"))
    yield replace(levels, machine=smaller(loop_levels=1)), "level=L1: this machine has 1 loop levels"
    reads, writes = (Tensor(name, "f32", (8,), "dram", at, (4,)) for name, at in (("a", 0x1800), ("b", 0x1820)))
    hosted = assemble(GOOD.replace("    halt", "    barrier\n    host segment=0\n    halt"))
    hosted = replace(hosted, dram_bytes=0x1840, segments=(Segment("s", (reads,), (writes,), b""),))
    yield hosted, "host: reads 'a' at 0x1800 of dram, where nothing has been written"
    bad = (Segment("s", (reads, reads), (replace(writes, dtype="f9"), writes), b""),)
    yield replace(hosted, segments=bad), "host segment 0: input 'a' is there twice"
    yield replace(hosted, segments=bad), "host segment 0: output 'b' has unknown dtype f9"
    yield replace(good, outputs=(replace(y, dtype="f9"),)), "output 'y' has unknown dtype f9"
    yield from stateful(replace(good, states=(State("x", "y"),)), x)


def stateful(good: Program, x: Tensor) -> Iterator[tuple[Program, str]]:
    """Yield programs whose states do not stay in place."""
    yield good, "state 'x' -> 'y' does not stay in place: type, shape, address or strides of its two ends differ"
    yield replace(good, states=(State("x", "z"),)), "state 'x' -> 'z': the program has no output 'z'"
    yield replace(good, states=good.states * 2), "program: input 'x' belongs to two states"
    same = replace(good, outputs=(replace(x, name="y"),))
    yield replace(same, inputs=(*same.inputs, replace(x, name="w"))), "state 'x' shares memory with 'w'"
    const = replace(x, space="const", address=0)
    yield replace(good, inputs=(const,), outputs=(replace(const, name="y"),)), "lies in const; allowed: dram"
