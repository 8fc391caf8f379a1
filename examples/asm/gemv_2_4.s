; y = dequant(x @ W) + bias on one macro of `edge`, W 2:4 sparse, x one vector: a GEMV
;
; W is 16 inputs x 32 outputs; of every 4 inputs of a column 2 weights are kept. With n=2 the sub-macros are joined in
; pairs: 0 and 1 receive the same block of 4 activations, 2 and 3 the next one, so a row works on 2 blocks and the
; 4 blocks take 2 rows. Merging adds what all of them found in a column.
;
;   cell (column c)    sub-macro 0   sub-macro 1   sub-macro 2   sub-macro 3
;   row 0 sees         x[0..3]       x[0..3]       x[4..7]       x[4..7]
;   row 1 sees         x[8..11]      x[8..11]      x[12..15]     x[12..15]
;   column 0, row 0    -4 at 2       +2 at 3       -2 at 4       -3 at 7
;   column 0, row 1    -4 at 8       +4 at 9       -3 at 12      +4 at 15
;
; Engines wait for one another by tokens: t1 weights fetched, t2 and t3 vector and scales fetched, t4 cells written,
; t5 sums there, t6 result there. Streams are set just before they are needed: while control sets one, engines work.

.meta source, "gemv_2_4.s"
.target edge
.equ columns machine.array.columns
.equ inputs  16
.equ tile_bytes columns * (8 + 2)       ; a column: 8 weight bytes, then 8 x 2 index bits in 2 bytes

.output y dtype=f32 shape=[1, 32]

; where things lie in the buffer: the vector and all scales come in one transfer, as they follow one another in const
.equ buf_tile  0
.equ buf_small 0x200
.equ buf_sx    buf_small + sx - x
.equ buf_sw    buf_small + sw - x
.equ buf_bias  buf_small + bias - x
.equ buf_y     0x400
.equ small     bias + 4 * columns - x

fetch:
    stream s0, const, u8 base=tile     rows=1 cols=tile_bytes
    stream s1, buf,   u8 base=buf_tile rows=1 cols=tile_bytes
    copy s1, s0, ch0 post=t1
    stream s2, const, u8 base=x         rows=1 cols=small
    stream s3, buf,   u8 base=buf_small rows=1 cols=small
    copy s3, s2, ch1 post=t2+t3         ; one token for lda, one for dequant
multiply:
    groups n=2 m=4 blocks=4 slots=8 index=2 packing=packed select=incell merge=4
    stream s4, cells, u8 base=0 rows=1 cols=1                   ; macro 0, weight set 0
    ldw s4, s1 wait=t1 post=t4
    stream s5, buf, i8 base=buf_small rows=1 cols=inputs        ; x
    lda s5 wait=t2+t4
    stream s6, acc, i32 base=0 rows=1 cols=columns
    mac s6, s4 post=t5
dequantise:
    stream s7,  buf, f32 base=buf_sx   rows=1 cols=1
    stream s8,  buf, f32 base=buf_sw   rows=1 cols=columns
    stream s9,  buf, f32 base=buf_bias rows=1 cols=columns
    stream s10, buf, f32 base=buf_y    rows=1 cols=columns
    dequant s10, s6, s7, s8 bias=s9 wait=t3+t5 post=t6
    stream s11, dram, f32 base=y rows=1 cols=columns
    copy s11, s10, ch0 wait=t6
    halt

; Expected. Column 0: the products are
;   (-4) * 3 + 2 * (-4) + (-2) * 5 + (-3) * (-8) + (-4) * 9 + 4 * (-10) + (-3) * 13 + 4 * (-16) = -185
; and y[0, 0] = -185 * sx * sw[0] + bias[0] = -185 * 0.5 * 0.25 + 0 = -23.125.
;
; y[0, 0:8] = -23.125, -2.625, 7.875, -0.75, 7.125, 7.875, 2.125, 2.875
; y[0, 8:16] = -46.5, 21.25, 34, 9.5, 20.25, -18, -8.5, -17.5
; y[0, 16:24] = -76, 29.5, 2.5, 70.5, 52.5, 1, 80, 25
; y[0, 24:32] = 17, 23, 30, 156, -52, 108, 32, 164
;
; Cycles, worked out by hand: control issues an instruction a cycle, so a copy is issued at 2, the other at 5.
; 100 ns of DRAM latency are 50 cycles at 500 MHz; the bus brings 51.2 bytes a cycle in bursts of 64.
;
;   engine    start..end   instruction              why
;   dma0          2..59    copy s1, s0, ch0         50 latency; 320 bytes are 5 bursts: 320 / 51.2 = 6.25, so 7 of bus
;   dma1          5..66    copy s3, s2, ch1         latency until 55, bus taken until 59; 276 bytes: 5 bursts, 7 cycles
;   weights      59..91    ldw s4, s1               32 columns, one a cycle (320 bytes over 256 a cycle would take 2)
;   array        91..93    lda s5                   the distribution network settles in 2 cycles
;   array        93..104   mac s6, s4               one vector, 11 cycles until its sums are out
;   vector      104..108   dequant s10, s6, s7, s8  32 elements on 64 lanes: 4 simple operations
;   dma0        108..161   copy s11, s10, ch0       50 latency; 128 bytes are 2 bursts: 2.5, so 3 cycles of bus
;
; cycles = 161

.weights
tile:
    .i8 -4,  2,  -2, -3,  -4,  4,  -3,  4  ; column 0: 2 of block 0, 2 of block 1, ...
    .i8 -2,  2,  -3,  3,  -1,  3,  -4,  3  ; column 1
    .i8  3, -4,   4,  1,  -1,  2,   4,  1  ; column 2
    .i8  3,  3,  -1, -1,   2,  2,   1, -1  ; column 3
    .i8 -3, -2,   3, -3,   2,  3,   4, -1  ; column 4
    .i8 -4,  4,  -2,  3,   2, -1,  -1, -3  ; column 5
    .i8  1, -4,  -4, -2,   4, -1,  -1, -2  ; column 6
    .i8 -2,  4,  -1, -2,  -4,  1,   2, -1  ; column 7
    .i8  4, -1,  -2,  1,  -4,  4,  -3,  3  ; column 8
    .i8  2, -2,  -2,  3,  -1, -2,  -4, -2  ; column 9
    .i8 -1,  3,   3, -4,  -3, -1,   3, -1  ; column 10
    .i8 -3,  3,   2, -2,  -4,  2,   3, -4  ; column 11
    .i8  4,  3,   1, -1,   4, -4,   4,  1  ; column 12
    .i8 -1, -2,  -3, -3,  -1,  3,   4,  3  ; column 13
    .i8 -1, -3,  -2,  4,   1,  4,   2,  3  ; column 14
    .i8 -2,  1,  -4,  4,   3,  1,   2,  4  ; column 15
    .i8  1, -2,  -3,  3,   3, -3,  -1,  4  ; column 16
    .i8 -3,  2,   3, -2,  -4,  2,   3,  3  ; column 17
    .i8  3,  3,   2, -4,   3, -2,   2, -3  ; column 18
    .i8  1,  1,  -3, -2,   1,  4,   3,  4  ; column 19
    .i8 -4,  2,   3, -1,  -2, -1,  -1, -4  ; column 20
    .i8 -3, -2,  -2,  1,   2,  2,   4,  3  ; column 21
    .i8  1, -1,  -1,  2,   1, -1,   4, -3  ; column 22
    .i8 -2,  3,  -3, -2,  -4,  1,  -4, -3  ; column 23
    .i8  4, -2,  -3, -4,   1, -1,   4,  2  ; column 24
    .i8 -1, -3,  -1,  4,  -3, -2,  -2,  4  ; column 25
    .i8 -3,  3,   1,  3,   1, -4,  -3,  1  ; column 26
    .i8 -3,  1,   1, -2,  -3, -3,   1, -4  ; column 27
    .i8 -4, -3,  -2, -1,   2,  1,  -3, -3  ; column 28
    .i8 -3, -4,   1,  3,   3, -3,   3, -4  ; column 29
    .i8  2, -3,   4,  1,   4, -2,  -2, -3  ; column 30
    .i8 -3,  1,  -1, -1,  -3,  1,   4, -3  ; column 31
    .bits 2,  2, 3,  0, 3,  0, 1,  0, 3  ; column 0: where in their block
    .bits 2,  1, 2,  1, 3,  1, 3,  0, 2  ; column 1
    .bits 2,  0, 1,  1, 3,  1, 2,  0, 3  ; column 2
    .bits 2,  1, 3,  0, 2,  2, 3,  1, 3  ; column 3
    .bits 2,  1, 2,  1, 3,  0, 3,  0, 2  ; column 4
    .bits 2,  1, 3,  0, 3,  0, 3,  0, 3  ; column 5
    .bits 2,  1, 2,  0, 1,  1, 3,  0, 3  ; column 6
    .bits 2,  0, 1,  0, 2,  0, 1,  0, 3  ; column 7
    .bits 2,  1, 2,  2, 3,  2, 3,  2, 3  ; column 8
    .bits 2,  0, 1,  1, 2,  1, 3,  0, 1  ; column 9
    .bits 2,  0, 3,  1, 3,  1, 3,  0, 1  ; column 10
    .bits 2,  0, 3,  1, 2,  0, 3,  0, 1  ; column 11
    .bits 2,  0, 3,  0, 2,  0, 3,  1, 2  ; column 12
    .bits 2,  0, 1,  2, 3,  1, 3,  1, 3  ; column 13
    .bits 2,  0, 1,  0, 2,  2, 3,  1, 3  ; column 14
    .bits 2,  1, 2,  2, 3,  0, 3,  1, 3  ; column 15
    .bits 2,  0, 2,  0, 3,  1, 2,  0, 3  ; column 16
    .bits 2,  0, 2,  1, 3,  0, 3,  0, 2  ; column 17
    .bits 2,  0, 2,  0, 2,  1, 3,  0, 2  ; column 18
    .bits 2,  0, 1,  0, 2,  1, 2,  0, 2  ; column 19
    .bits 2,  1, 2,  2, 3,  0, 2,  0, 3  ; column 20
    .bits 2,  0, 2,  0, 3,  0, 1,  1, 2  ; column 21
    .bits 2,  1, 2,  1, 3,  2, 3,  2, 3  ; column 22
    .bits 2,  1, 3,  0, 2,  1, 2,  0, 1  ; column 23
    .bits 2,  1, 3,  1, 2,  1, 2,  0, 1  ; column 24
    .bits 2,  1, 3,  0, 2,  0, 3,  1, 3  ; column 25
    .bits 2,  0, 3,  1, 2,  2, 3,  0, 3  ; column 26
    .bits 2,  0, 3,  0, 2,  1, 3,  2, 3  ; column 27
    .bits 2,  2, 3,  0, 1,  0, 1,  0, 2  ; column 28
    .bits 2,  0, 2,  1, 2,  0, 1,  1, 3  ; column 29
    .bits 2,  0, 2,  0, 3,  2, 3,  0, 2  ; column 30
    .bits 2,  0, 1,  0, 3,  1, 2,  0, 1  ; column 31
    .align 64                           ; constants begin here: float32 numbers must lie at multiples of 4
.constants
x:                                      ; +1, -2, +3, -4, ...
    .i8  1, -2,  3, -4,   5, -6,  7, -8,   9, -10,  11, -12,   13, -14,  15, -16
sx:
    .f32 0.5
sw:
    .f32 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25
    .f32 0.5,  0.5,  0.5,  0.5,  0.5,  0.5,  0.5,  0.5
    .f32 1,    1,    1,    1,    1,    1,    1,    1
    .f32 2,    2,    2,    2,    2,    2,    2,    2
bias:
    .f32 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15
    .f32 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
