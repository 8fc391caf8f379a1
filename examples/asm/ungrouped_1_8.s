; y = x @ W on one macro of `edge`, W 1:8 sparse, all sub-macros ungrouped
;
; W is 32 inputs x 32 outputs. Of every 8 inputs of a column one weight is kept: 4 blocks, 4 weights a column.
; With n=1 no two sub-macros work on the same block: row 0 of sub-macro b holds the weight of block b and takes its
; activation from inputs 8b..8b+7, by the 3 index bits of the cell. The 32 inputs are just what one row's bus carries.
;
;   cell (row 0, column c)   sub-macro 0   sub-macro 1    sub-macro 2     sub-macro 3
;   sees inputs              0..7          8..15          16..23          24..31
;   column 0 keeps           +2 at 5       +2 at 8        +1 at 19        -2 at 29
;
; The engines are kept in step by barriers: control goes on only when all of them have finished. That is easy to follow
; and slow; gemv_2_4.s does with tokens what is done here with barriers.

.meta source, "ungrouped_1_8.s"
.target edge
.equ columns machine.array.columns
.equ vectors 2
.equ inputs  32
.equ tile_bytes columns * (4 + 2)       ; a column: 4 weight bytes, then 4 x 3 index bits in 2 bytes
.equ acc_row machine.array.macros * columns * 4     ; from one vector's sums to the next: all macros lie between

.output y dtype=i32 shape=[2, 32]

; where things lie in the buffer
.equ buf_tile 0
.equ buf_x    0x100
.equ buf_y    0x200

configure:
    groups n=1 m=8 blocks=4 slots=4 index=3 packing=packed select=incell merge=4
    stream s0, const, u8  base=tile     rows=1       cols=tile_bytes
    stream s1, buf,   u8  base=buf_tile rows=1       cols=tile_bytes
    stream s2, const, i8  base=x        rows=vectors cols=inputs
    stream s3, buf,   i8  base=buf_x    rows=vectors cols=inputs
    stream s4, cells, u8  base=0        rows=1       cols=1         ; macro 0, weight set 0
    stream s5, acc,   i32 base=0        rows=vectors cols=columns
    pitch  s5 row=acc_row col=4
    stream s6, buf,   i32 base=buf_y    rows=vectors cols=columns
    stream s7, dram,  i32 base=y        rows=vectors cols=columns
fetch:
    copy s1, s0, ch0                    ; both channels share the DRAM bus
    copy s3, s2, ch1
    barrier
multiply:
    ldw s4, s1
    barrier                             ; cells are written before they are read
    lda s3
    mac s5, s4
    barrier
drain:
    store s6, s5
    barrier
    copy s7, s6, ch0
    halt

; Expected: x[0] counts 0..31 and x[1] is all ones, so y[1] is the sum of a column's weights.
; Column 0: y[0, 0] = 2 * 5 + 2 * 8 + 1 * 19 + (-2) * 29 = -13; y[1, 0] = 2 + 2 + 1 + (-2) = 3.
;
; y[0, 0:16] = -13, -126, -16, 169, -58, -44, 76, -55, -112, -10, -78, -30, 36, 96, 62, -19
; y[0, 16:32] = -6, 21, 101, 5, 41, -38, 85, -14, -111, -3, -93, -104, 11, 30, 1, 107
; y[1, 0:16] = 3, -8, -1, 8, -3, -1, 6, -1, -4, -1, -3, 2, 0, 4, 3, 0
; y[1, 16:32] = -1, 1, 5, 4, 5, -1, 0, 2, -5, 3, -5, -3, -3, 3, 3, 6

; Cycles, worked out by hand: control issues an instruction a cycle, so the first copy is issued at 10.
; 100 ns of DRAM latency are 50 cycles at 500 MHz; the bus brings 51.2 bytes a cycle in bursts of 64.
;
;   engine    start..end   instruction       why
;   dma0         10..64    copy s1, s0, ch0  50 latency; 192 bytes are 3 bursts: 192 / 51.2 = 3.75, so 4 cycles of bus
;   dma1         11..66    copy s3, s2, ch1  latency until 61, bus taken until 64; 64 bytes are 1 burst: 2 cycles
;   control      12..67    barrier           all done at 66, 1 cycle to issue it
;   weights      67..99    ldw s4, s1        32 columns, one a cycle (192 bytes over 256 a cycle would take 1)
;   control      68..100   barrier
;   array       100..102   lda s3            the distribution network settles in 2 cycles
;   array       102..114   mac s5, s4        2 vectors, the 2nd goes in at 103 and needs 11 cycles to come out
;   control     102..115   barrier
;   vector      115..116   store s6, s5      64 elements, 64 lanes: 1 cycle
;   control     116..117   barrier
;   dma0        117..172   copy s7, s6, ch0  50 latency; 256 bytes are 4 bursts: 256 / 51.2 = 5 cycles of bus
;
; cycles = 172

.weights
tile:
    .i8  2,   2,   1,  -2  ; column 0: blocks 0, 1, 2, 3
    .i8 -3,  -1,  -1,  -3  ; column 1
    .i8 -3,   3,   1,  -2  ; column 2
    .i8 -1,   3,   3,   3  ; column 3
    .i8 -1,  -1,   2,  -3  ; column 4
    .i8  1,  -2,   3,  -3  ; column 5
    .i8  2,   3,  -2,   3  ; column 6
    .i8  3,  -3,   2,  -3  ; column 7
    .i8  1,  -1,  -2,  -2  ; column 8
    .i8  2,  -2,  -3,   2  ; column 9
    .i8 -1,   2,  -2,  -2  ; column 10
    .i8  2,   1,   1,  -2  ; column 11
    .i8 -3,   3,  -3,   3  ; column 12
    .i8 -1,   3,  -1,   3  ; column 13
    .i8  1,  -2,   2,   2  ; column 14
    .i8  2,  -1,  -2,   1  ; column 15
    .i8 -3,   2,   1,  -1  ; column 16
    .i8  2,  -2,  -1,   2  ; column 17
    .i8 -1,   2,   1,   3  ; column 18
    .i8  3,   2,   2,  -3  ; column 19
    .i8  2,   3,  -1,   1  ; column 20
    .i8 -1,   3,  -2,  -1  ; column 21
    .i8 -3,  -1,   1,   3  ; column 22
    .i8  3,  -2,   3,  -2  ; column 23
    .i8  2,  -3,  -1,  -3  ; column 24
    .i8  3,   2,  -3,   1  ; column 25
    .i8 -2,  -1,   1,  -3  ; column 26
    .i8  3,  -2,  -1,  -3  ; column 27
    .i8 -3,  -2,  -1,   3  ; column 28
    .i8  3,  -1,  -1,   2  ; column 29
    .i8  3,  -1,   2,  -1  ; column 30
    .i8  1,   2,   1,   2  ; column 31
    .bits 3,  5,  0,  3,  5  ; column 0: which of the 8 inputs of each block
    .bits 3,  7,  2,  4,  1  ; column 1
    .bits 3,  0,  1,  1,  6  ; column 2
    .bits 3,  2,  2,  1,  6  ; column 3
    .bits 3,  0,  5,  5,  5  ; column 4
    .bits 3,  7,  7,  2,  1  ; column 5
    .bits 3,  2,  0,  2,  4  ; column 6
    .bits 3,  7,  2,  6,  6  ; column 7
    .bits 3,  0,  2,  7,  4  ; column 8
    .bits 3,  2,  1,  0,  2  ; column 9
    .bits 3,  4,  1,  6,  0  ; column 10
    .bits 3,  1,  4,  2,  7  ; column 11
    .bits 3,  6,  2,  6,  6  ; column 12
    .bits 3,  3,  7,  5,  1  ; column 13
    .bits 3,  2,  5,  2,  1  ; column 14
    .bits 3,  7,  5,  7,  2  ; column 15
    .bits 3,  5,  1,  6,  7  ; column 16
    .bits 3,  2,  0,  1,  1  ; column 17
    .bits 3,  6,  0,  0,  1  ; column 18
    .bits 3,  5,  4,  3,  0  ; column 19
    .bits 3,  2,  3,  7,  3  ; column 20
    .bits 3,  5,  4,  5,  3  ; column 21
    .bits 3,  1,  6,  2,  4  ; column 22
    .bits 3,  4,  4,  2,  4  ; column 23
    .bits 3,  6,  0,  5,  2  ; column 24
    .bits 3,  1,  6,  4,  2  ; column 25
    .bits 3,  7,  4,  4,  5  ; column 26
    .bits 3,  7,  6,  3,  2  ; column 27
    .bits 3,  5,  6,  5,  1  ; column 28
    .bits 3,  3,  1,  2,  0  ; column 29
    .bits 3,  2,  1,  0,  4  ; column 30
    .bits 3,  7,  7,  4,  1  ; column 31
.constants
x:
    .i8  0,  1,  2,  3,  4,  5,  6,  7,   8,  9, 10, 11, 12, 13, 14, 15
    .i8 16, 17, 18, 19, 20, 21, 22, 23,  24, 25, 26, 27, 28, 29, 30, 31      ; x[0]
    .i8  1,  1,  1,  1,  1,  1,  1,  1,   1,  1,  1,  1,  1,  1,  1,  1
    .i8  1,  1,  1,  1,  1,  1,  1,  1,   1,  1,  1,  1,  1,  1,  1,  1      ; x[1]
