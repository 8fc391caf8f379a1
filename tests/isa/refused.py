"""A good program, and what breaks each rule of the verifier in it."""

from __future__ import annotations

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

#: (what is replaced, by what, the message)
RULES = [
    # structure
    ("    endloop L0\n", "", "loop L0 has no endloop"),
    ("    endloop L0\n", "    endloop L1\n", "endloop L1 ends no loop: the innermost open loop is L0"),
    ("    halt\n", "    endloop L1\n    halt\n", "endloop L1 ends no loop: no loop is open"),
    ("        lda s5", "        loop L0 count=2\n        endloop L0\n        lda s5", "loop level L0 is already open"),
    ("    halt\n", "", "the program does not end with halt"),
    ("    loop L0", "    halt\n    loop L0", "halt stands before the end; only the last instruction may be halt"),
    (
        "        lda s5",
        "loop L1 count=4000000000\nloop L2 count=2\nlda s5\nendloop L2\nendloop L1",
        "instructions in all; allowed: 10000000000",
    ),
    ("    halt\n", "    host segment=0\n    halt\n", "host segment 0 does not exist; the program has 0"),
    # tokens
    (
        "sync array post=t3",
        "sync array",
        "waits for semaphore t3, to which nothing before has posted: 1 tokens are missing",
    ),
    (" release=t3", "", "waits for semaphore t3, to which nothing before has posted: 1 tokens are missing"),
    (
        "count=2\n",
        "count=9\n        sync array wait=t9\n",
        "t9, to which nothing before has posted: 9 tokens are missing",
    ),
    # registers
    ("    stream s6, acc, i32 base=0 rows=vectors cols=128\n", "", "acc=s6 is used before a `stream` has set it"),
    ("    pitch s9 row", "    pitch s20 row", "s20 is changed before a `stream` has set it"),
    ("        lda s5\n", "", "no `lda` has latched activations"),
    (
        "    groups n=2 m=4 blocks=32 slots=64 index=2 packing=packed select=incell merge=4\n",
        "",
        "ldw before any `groups`",
    ),
    # addresses
    ("by=0x4000 mod=2", "by=0x40000 mod=2", "dst reaches bytes 0x4000..0x46800 of buf, which has 0x40000"),
    ("by=4 * tile", "by=-4 * tile", "src reaches bytes -0x2800..0x2800 of const, which has 0x5220"),
    ("base=y rows", "base=y+4 rows", "dst reaches bytes 0x804..0x1804 of dram, which has 0x1800"),
    (
        "base=0 rows=vectors cols=128\n    stream s7",
        "base=0xfe00 rows=vectors cols=128\n    stream s7",
        "of acc, which has 0x10000",
    ),
    ("cells, u8 base=0", "cells, u8 base=1", "cells reaches units 0x1..0x5 of cells, which has 0x4"),
    ("base=0x2000 rows", "base=0x2002 rows", "is not aligned to its elements of 4 bytes"),
    ("    pitch s9 row=4 col=4", "    pitch s9 row=6 col=4", "sx is not aligned to its elements of 4 bytes"),
    (
        "    stream s7, const, f32 base=scales rows=1 cols=136\n",
        "    stream s7, const, f32 base=scales rows=1 << 20 cols=1 << 20\n    pitch s7 row=0 col=0\n",
        "src has 1099511627776 elements, more than any memory holds",
    ),
    # memories, types, shapes
    ("copy s12, s11, ch1", "copy s7, s11, ch1", "dst is in const, which is read only"),
    ("lda s5", "lda s3", "act is in dram; allowed: buf"),
    ("dequant s11, s6, s9, s10", "dequant s11, s6, s9, s7", "sw is in const; allowed: buf, acc"),
    ("ldw s2, s1", "ldw s1, s1", "cells is in buf; allowed: cells"),
    (
        "    pitch s5 row=256 col=1",
        "    pitch s4 row=0 col=1",
        "elements of dst lie on one another: pitches 0 and 1 bytes",
    ),
    ("buf, u8 base=0x4000", "buf, f32 base=0x4000", "src is u8 and dst f32: element sizes differ"),
    (
        "buf, u8 base=0x4000 rows=4 cols=tile",
        "buf, u8 base=0x4000 rows=4 cols=tile-1",
        "src is 4 x 2560 and cannot be repeated",
    ),
    ("stream s5, buf, i8", "stream s5, buf, u8", "act is u8; allowed: i8"),
    ("stream s6, acc, i32", "stream s6, acc, f32", "acc is f32; allowed: i32"),
    ("cells, u8 base=0 rows=4 cols=1", "cells, u8 base=0 rows=2 cols=2", "cells must be u8 or i8 with one column"),
    (
        "cells, u8 base=0 rows=4 cols=1",
        "cells, u8 base=0 rows=2 cols=1",
        "src is 4 x 2560, not 2 x 2560, one row of tile bytes",
    ),
    ("level=L0 release", "level=L0 slices=3 release", "4 macros do not form 3 equal slices"),
    (
        "level=L0 release",
        "level=L0 slices=2 release",
        "act has 128 columns, not 256: slices x blocks x m (2:4, 32 blocks)",
    ),
    ("acc, i32 base=0 rows=vectors cols=128", "acc, i32 base=0 rows=vectors cols=96", "acc is 8 x 96, not 8 x 128"),
    (
        "    stream s9, buf, f32 base=0x1000 rows=vectors",
        "    stream s9, buf, f32 base=0x1000 rows=7",
        "sx is 7 x 1 and cannot be",
    ),
    # groups
    ("n=2 m=4 blocks=32 slots=64", "n=5 m=4 blocks=25 slots=125", "5:4 cannot be formed; allowed: 1:1"),
    ("blocks=32 slots=64", "blocks=65 slots=128", "65 blocks of 2:4; a tile holds 64"),
    ("slots=64", "slots=63", "slots=63 is not blocks x n = 64"),
    ("index=2", "index=3", "index=3 is not log2(4) = 2"),
    ("merge=4", "merge=3", "merge=3: this machine merges 4 sub-macros"),
    ("packing=packed", "packing=aligned", "packing=aligned: this machine has packed"),
    ("select=incell", "select=literal", "select=literal: this machine has incell"),
    # contents
    (
        "        ldw s2, s1 wait=t1+t3 post=t2+t5",
        "        sync weights wait=t1+t3 post=t2+t5",
        "cells reads units that no `ldw`",
    ),
    ("    copy s8, s7, ch0 post=t6", "    sync dma0 post=t6", "sx reads buf at 0x1000, where nothing has been written"),
    (
        "stream s4, buf, i8 base=0 rows=vectors cols=256",
        "stream s4, buf, i8 base=0 rows=7 cols=256",
        "act reads buf at 0x0..0x800, of which only a part has been written",
    ),
    (
        "stream s8, buf, f32 base=0x1000 rows=1 cols=136",
        "stream s8, buf, f32 base=0x1000 rows=1 cols=100",
        "sw reads buf at 0x1020..0x1220, of which only a part has been written",
    ),
    ("mode=first level=L0", "mode=add", "acc reads acc at 0x0, where nothing has been written"),
]
