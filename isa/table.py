"""The instruction table: every instruction of FlexCiM once. Encoder, decoder, assembler and manual follow it."""

from __future__ import annotations

from . import counters, durations
from .fields import Choice, Signed, Tokens, Unsigned
from .instruction import ENGINES, SEMAPHORES, WORD_BITS, Instruction
from .operands import CHANNEL, DST, DTYPE, LEVEL, MODE, SPACE, level, stream
from .vector_table import VECTOR

__all__ = ["ARRAY", "BY_MNEMONIC", "BY_OPCODE", "CONTROL", "HOST", "MOVES", "TABLE", "VECTOR", "check_table"]

CONTROL = (
    Instruction("halt", 0x01, "control", (), "The program ends when every engine has finished."),
    Instruction(
        "loop",
        0x02,
        "control",
        (level("level", "its counter"), Unsigned("count", 32, "iterations", low=1)),
        "Carry out what follows, up to the matching `endloop`, `count` times; no cycles are spent on going round.",
    ),
    Instruction("endloop", 0x03, "control", (level("level", "the loop that ends here"),), "The body of the loop ends."),
    Instruction("barrier", 0x04, "control", (), "Control waits until every engine has finished what it was given."),
    Instruction(
        "stream",
        0x05,
        "control",
        (
            stream("stream", "the stream to set"),
            SPACE,
            DTYPE,
            Unsigned("base", 40, "address of element (0, 0)", unit="bytes", hexadecimal=True),
            Unsigned("rows", 28, "rows", low=1),
            Unsigned("cols", 28, "columns", low=1),
        ),
        "Point a stream at rows x cols elements without gaps; earlier pitches and steps of this stream are forgotten.",
    ),
    Instruction(
        "slide",
        0x09,
        "control",
        (
            stream("stream", "the stream to set"),
            SPACE,
            DTYPE,
            Unsigned("base", 32, "address of element (0, 0)", unit="bytes", hexadecimal=True),
            Unsigned("rows", 16, "rows", low=1),
            Unsigned("cols", 17, "columns", low=1),
            level("level", "the loop it moves with"),
            Signed("by", 32, "distance an iteration", unit="bytes"),
            Unsigned("mod", 4, "places of the ring; 0: no ring", default=0),
        ),
        "`stream` and `step` in one, for numbers that are small enough.",
    ),
    Instruction(
        "pitch",
        0x06,
        "control",
        (
            stream("stream", "the stream to change"),
            Signed("row", 40, "from one row to the next", unit="bytes"),
            Signed("col", 40, "from one column to the next", unit="bytes"),
        ),
        "Set the distances between the stream's rows and columns.",
    ),
    Instruction(
        "step",
        0x07,
        "control",
        (
            stream("stream", "the stream to change"),
            level("level", "the loop it moves with"),
            Signed("by", 40, "distance an iteration", unit="bytes"),
            Unsigned("mod", 24, "places of the ring; 0: no ring", default=0),
        ),
        "Move the stream by `by` bytes an iteration of the loop. With `mod`, go round a ring of `mod` places: the "
        "iterations are then counted on, modulo `mod`, when an outer loop enters this one again.",
    ),
    Instruction(
        "groups",
        0x08,
        "control",
        (
            Unsigned("n", 5, "weights kept in a block", low=1, high=16),
            Unsigned("m", 5, "activations in a block; 1: dense", low=1, high=16),
            Unsigned("blocks", 8, "blocks a tile", low=1, high=128),
            Unsigned("slots", 8, "cells of a column in use, n a block", low=1, high=128),
            Unsigned("index", 3, "index bits a cell, log2 m", high=4),
            Choice("packing", 1, "where the slots of a block lie", words=("packed", "aligned")),
            Choice("select", 2, "how a cell selects its activation", words=("incell", "literal", "phased", "shared")),
            Unsigned("merge", 3, "sub-macros whose sums of a column are added", low=1, high=4),
        ),
        "Join the sub-macros' slots into groups of n that receive the same block of m activations; "
        "merging adds the sums of a column. Holds for every later `ldw` and `mac`.",
    ),
)

MOVES = (
    Instruction(
        "sync",
        0x10,
        "any",
        (Choice("engine", 3, "the queue it goes through", positional=True, words=ENGINES),),
        "Only waits and posts: its tokens are posted once every earlier instruction of its engine has delivered its "
        "results.",
        duration=durations.nothing,
        counters=counters.nothing,
        timing="0 cycles",
    ),
    Instruction(
        "copy",
        0x11,
        "dma",
        (DST, stream("src", "what is copied"), CHANNEL),
        "dst[i, j] = src[i, j], element sizes equal; a source with one row or one column is repeated.",
        reads=("src",),
        writes=("dst",),
        duration=durations.copy,
        counters=counters.copy,
        timing="DRAM latency, then max(bursts over DRAM bandwidth, bytes over the buffer's port)",
    ),
    Instruction(
        "gather",
        0x12,
        "dma",
        (DST, stream("table", "rows to pick from"), stream("index", "one index a row of dst, i32 or i64"), CHANNEL),
        "dst[i, :] = table[index[i], :]; a negative index counts from the end, then it is clamped to the table.",
        reads=("table", "index"),
        writes=("dst",),
        duration=durations.gather,
        counters=counters.gather,
        timing="as copy; every row picked is a run of its own",
    ),
    Instruction(
        "scatter",
        0x13,
        "dma",
        (DST, stream("src", "one row a row to write"), stream("index", "one index a row of src, i32 or i64"), CHANNEL),
        "dst[index[i], :] = src[i, :], one row after the other, the rest of dst stays; a negative index counts from "
        "the end, then it is clamped to dst.",
        reads=("src", "index", "dst"),
        writes=("dst",),
        duration=durations.scatter,
        counters=counters.scatter,
        timing="as copy; every row written is a run of its own",
    ),
)

ARRAY = (
    Instruction(
        "ldw",
        0x20,
        "weights",
        (stream("cells", "the macros and the weight set to write"), stream("src", "one row of tile bytes a macro")),
        "Write weights and indices of one tile a macro into the cells: for each column `slots` weight bytes, "
        "then for each column `slots` indices of `index` bits, a column padded to whole bytes.",
        reads=("src",),
        writes=("cells",),
        duration=durations.load_weights,
        counters=counters.load_weights,
        timing="max(load_cycles, bytes a cluster over the weight bus); 0 from const on a resident machine",
    ),
    Instruction(
        "lda",
        0x21,
        "array",
        (stream("act", "vectors of activations, i8: one row a vector"),),
        "Point the activation bus at the vectors that the next `mac` takes; the distribution network settles.",
        reads=("act",),
        duration=durations.settle,
        counters=counters.nothing,
        timing="settle_cycles",
    ),
    Instruction(
        "mac",
        0x22,
        "array",
        (
            stream("acc", "one row of sums a vector: the columns of the macros that take part"),
            stream("cells", "the macros and their weight set"),
            MODE,
            LEVEL,
            Unsigned(
                "slices",
                5,
                "the macros form so many equal groups, group g taking the g-th part of a vector",
                low=1,
                default=1,
            ),
            Tokens(
                "release",
                6,
                "semaphore to give a token to when the last vector is in: cells and activations are free",
                default=(),
                length=1,
                count=SEMAPHORES,
            ),
        ),
        "acc[v, c] (+)= sum over the slots s of column c of weight[s, c] * activation[v, block(s) * m + index[s, c]], "
        "exact in int32.",
        reads=("act", "cells"),
        writes=("acc",),
        duration=durations.mac,
        counters=counters.mac,
        timing="busy V * c * II; done (V - 1) * c * II + drain + c - 1; c = cycles a vector",
    ),
    Instruction(
        "accum",
        0x23,
        "array",
        (DST, stream("src", "sums to add")),
        "dst += src, int32, between accumulators of different macros: joins partial sums over K.",
        reads=("src", "dst"),
        writes=("dst",),
        duration=durations.accumulate,
        counters=counters.accumulate,
        timing="one cycle a vector",
    ),
)

HOST = (
    Instruction(
        "host",
        0x70,
        "host",
        (Unsigned("segment", 16, "its number in the object file"),),
        "Run a part of the model in onnxruntime on the host, on tensors in DRAM.",
        duration=durations.host,
        counters=counters.host,
        timing="DRAM latency + bytes in and out over DRAM bandwidth; the host's own time is not modelled",
    ),
)

TABLE = (*CONTROL, *MOVES, *ARRAY, *VECTOR, *HOST)
BY_MNEMONIC = {each.mnemonic: each for each in TABLE}
BY_OPCODE = {each.opcode: each for each in TABLE}


def check_table() -> None:
    """Raise ValueError when two instructions share a name or an opcode, or one does not fit into a word."""
    if len(BY_MNEMONIC) != len(TABLE) or len(BY_OPCODE) != len(TABLE):
        raise ValueError("two instructions share a mnemonic or an opcode")
    for each in TABLE:
        names = [operand.name for operand in each.fields]
        if len(set(names)) != len(names) or each.used_bits > WORD_BITS:
            raise ValueError(f"{each.mnemonic}: {each.used_bits} of {WORD_BITS} bits, operands {names}")
