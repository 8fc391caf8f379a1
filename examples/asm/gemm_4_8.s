; Y = X @ W on one macro with two weight sets, W 4:8 sparse: a GEMM with double-buffered weights
;
; X is 4 x 48, W 48 x 8. Of every 8 inputs of a column 4 weights are kept. With n=4 all four sub-macros are joined: they
; receive the same block of 8 activations, each multiplies one weight of it, merging adds the four. A tile is 2 blocks
; (2 rows, 16 inputs) x 4 columns, so W is 3 x 2 tiles:
;
;                       columns 0..3   columns 4..7
;     inputs  0..15     tile 0         tile 3             L0 goes over the columns,
;     inputs 16..31     tile 1         tile 4             L1 over the inputs; sums stay in the
;     inputs 32..47     tile 2         tile 5             accumulators while L1 goes round
;
; Weights pass two double buffers: two places in the on-chip buffer and two weight sets in the cells. Both are rings:
; tile i goes to place i mod 2. `step ... mod=2` counts L1's iterations on when L0 enters L1 again, so that tile 3 goes
; to place 1 although it is iteration 0. While the array multiplies tile i, tile i+1 is written and tile i+2 fetched.
;
;   token   is given when               by                 is taken by    at first
;   t1      a place in the buffer is    ldw, done          copy           2 (both are free)
;   t2      a tile is in the buffer     copy               ldw
;   t3      a weight set is free        mac, last vector   ldw            2 (both are free)
;   t4      a tile is in the cells      ldw                lda
;   t5      X is in the buffer          copy               the array, once
;   t6      sums are complete           sync of the array  store
;   t7      all results are there       sync of vector     copy
;
; two_sets.toml is `edge` cut down to one macro of 4 columns, so that a reader can follow all numbers.

.meta source, "gemm_4_8.s"
.target "two_sets.toml"
.equ columns machine.array.columns
.equ vectors 4
.equ k_tiles 3
.equ n_tiles 2
.equ k_tile  16
.equ inputs  k_tiles * k_tile
.equ outputs n_tiles * columns
.equ tile_bytes columns * (8 + 3)               ; a column: 8 weight bytes, then 8 x 3 index bits in 3 bytes
.equ acc_row machine.array.macros * columns * 4 ; from one vector's sums to the next

.output y dtype=i32 shape=[4, 8]

; where things lie in the buffer
.equ buf_tiles 0                        ; two places
.equ buf_x     0x100
.equ buf_y     0x200

fetch_x:
    stream s0, const, i8 base=x     rows=vectors cols=inputs
    stream s1, buf,   i8 base=buf_x rows=vectors cols=inputs
    copy s1, s0, ch1 post=t5
configure:
    groups n=4 m=8 blocks=2 slots=8 index=3 packing=packed select=incell merge=4
    stream s2, const, u8 base=tiles rows=1 cols=tile_bytes              ; the tile to fetch
    step   s2, L0 by=k_tiles * tile_bytes
    step   s2, L1 by=tile_bytes
    stream s3, buf, u8 base=buf_tiles rows=1 cols=tile_bytes            ; its place in the buffer
    step   s3, L1 by=tile_bytes mod=2
    stream s4, cells, u8 base=0 rows=1 cols=1                           ; its weight set
    step   s4, L1 by=machine.array.macros mod=2
    stream s5, buf, i8 base=buf_x rows=vectors cols=k_tile              ; its columns of X
    pitch  s5 row=inputs col=1
    step   s5, L1 by=k_tile
    stream s6, acc, i32 base=0 rows=vectors cols=columns                ; sums: the next columns use other vectors
    step   s6, L0 by=vectors * acc_row
    stream s7, buf, i32 base=buf_y rows=vectors cols=columns            ; their place in Y
    pitch  s7 row=outputs * 4 col=4
    step   s7, L0 by=columns * 4
all_is_free:
    sync weights post=t1
    sync weights post=t1
    sync array post=t3
    sync array post=t3
    sync array wait=t5
    loop L0 count=n_tiles
      loop L1 count=k_tiles
tile:
        copy s3, s2, ch0 wait=t1 post=t2
        ldw s4, s3 wait=t2+t3 post=t1+t4
        lda s5 wait=t4
        mac s6, s4 mode=first level=L1 release=t3       ; the first tile overwrites, the others add
      endloop L1
      sync array post=t6
      store s7, s6 wait=t6
    endloop L0
write_y:
    sync vector post=t7
    stream s8, buf,  i32 base=buf_y rows=vectors cols=outputs
    stream s9, dram, i32 base=y     rows=vectors cols=outputs
    copy s9, s8, ch1 wait=t7
    halt

; Expected. Y[0, 0] adds, from the first blocks of column 0 in tiles 0, 1 and 2 and from the second ones:
;   inputs  0.. 7:  2 * (-1) + (-1) * (-4) + 2 * (-2) + 2 * 0 = -2
;   inputs  8..15:  1 * (-2) + 2 * (-4) + 2 * 1 + 1 * 4 = -4
;   inputs 16..23:  1 * (-2) + 1 * 2 + 1 * (-1) + 1 * (-1) = -2
;   inputs 24..31:  (-3) * (-4) + (-3) * 4 + 2 * 4 + (-2) * 1 = 6
;   inputs 32..39:  1 * (-2) + 2 * (-1) + (-2) * 0 + 1 * 0 = -4
;   inputs 40..47:  (-2) * 1 + 1 * 2 + 2 * 0 + (-1) * 2 = -2
;   in all -8
;
; y[0, 0:8] = -8, -37, -35, 4, -25, -13, 4, 46
; y[1, 0:8] = -42, -22, -31, 37, 3, 33, -26, -3
; y[2, 0:8] = 44, 31, 33, -42, 5, -35, -16, -10
; y[3, 0:8] = 2, 17, -33, 16, 15, 11, -29, -3
;
; Cycles, worked out by hand: control issues an instruction a cycle; after 26 others the first tile's copy is issued at
; 26. 8 ns of DRAM latency are 4 cycles; the bus brings 51.2 bytes a cycle in bursts of 64. A tile of 44 bytes is one
; burst: 4 + 2 cycles. Writing it takes 4 (a column a cycle), lda 2, and mac holds the array for 4 vectors; the last
; sums come out 3 + 11 cycles after the first vector went in, while the next tile is already at work. So fetching and
; multiplying take 6 cycles a tile, writing 4, all at the same time: without double buffers it would be 6 + 4 + 6 = 16.
;
;   engine    start..end   instruction         why
;   dma1          2..10    copy s1, s0, ch1    4 latency; 192 bytes are 3 bursts: 3.75, so 4 cycles of bus
;   weights      19..19    sync weights        two tokens: both places are free
;   weights      20..20    sync weights
;   array        21..21    sync array          two tokens: both weight sets are free
;   array        22..22    sync array
;   array        23..23    sync array          X came at 10
;
;   dma0         26..32    copy s3, s2, ch0    tile 0 to place 0
;   weights      32..36    ldw s4, s3          ... to weight set 0
;   array        36..38    lda s5
;   array        38..52    mac s6, s4          vectors go in until 42: set 0 is free
;   dma0         32..38    copy s3, s2, ch0    tile 1 to place 1
;   weights      38..42    ldw s4, s3          ... to weight set 1, while tile 0 is multiplied
;   array        42..44    lda s5
;   array        44..58    mac s6, s4          set 1 is free at 48
;   dma0         38..44    copy s3, s2, ch0    tile 2 to place 0, free since 36
;   weights      44..48    ldw s4, s3          ... to weight set 0, free since 42
;   array        48..50    lda s5
;   array        50..64    mac s6, s4          set 0 is free at 54
;   array        54..64    sync array          waits for the sums of tile 2
;   vector       64..65    store s7, s6        16 sums on 64 lanes
;
;   dma0         44..50    copy s3, s2, ch0    tile 3 to place 1, free since 42: the ring goes on
;   weights      50..54    ldw s4, s3          ... to weight set 1, free since 48
;   array        54..56    lda s5
;   array        56..70    mac s6, s4
;   dma0         50..56    copy s3, s2, ch0    tile 4 to place 0
;   weights      56..60    ldw s4, s3
;   array        60..62    lda s5
;   array        62..76    mac s6, s4
;   dma0         56..62    copy s3, s2, ch0    tile 5 to place 1
;   weights      62..66    ldw s4, s3
;   array        66..68    lda s5
;   array        68..82    mac s6, s4          vectors go in until 72
;   array        72..82    sync array
;   vector       82..83    store s7, s6
;
;   vector       83..83    sync vector
;   dma1         83..90    copy s9, s8, ch1    4 latency; 128 bytes are 2 bursts: 2.5, so 3 cycles of bus
;
; cycles = 90

.weights
tiles:
; tile 0: columns 0..3, inputs 0..15
    .i8  2, -1,  2,  2,   1,  2,  2,  1  ; column 0
    .i8  3,  3,  1, -2,   3, -1, -1, -1  ; column 1
    .i8 -2,  3,  2, -2,  -3, -2, -3,  3  ; column 2
    .i8  2, -2, -2, -2,   2,  1, -1,  1  ; column 3
    .bits 3,  0, 2, 4, 6,  0, 3, 5, 7  ; column 0
    .bits 3,  4, 5, 6, 7,  0, 1, 3, 4  ; column 1
    .bits 3,  0, 5, 6, 7,  2, 3, 4, 6  ; column 2
    .bits 3,  0, 1, 4, 5,  0, 1, 4, 7  ; column 3
; tile 1: columns 0..3, inputs 16..31
    .i8  1,  1,  1,  1,  -3, -3,  2, -2  ; column 0
    .i8  1,  3,  2, -2,   2, -3,  2, -1  ; column 1
    .i8  1, -3, -3, -3,   1,  3, -3, -2  ; column 2
    .i8  1, -1,  2,  2,   1, -3,  3,  2  ; column 3
    .bits 3,  0, 1, 5, 6,  1, 5, 6, 7  ; column 0
    .bits 3,  1, 2, 5, 6,  0, 1, 2, 7  ; column 1
    .bits 3,  3, 5, 6, 7,  0, 2, 6, 7  ; column 2
    .bits 3,  0, 2, 5, 6,  0, 4, 5, 7  ; column 3
; tile 2: columns 0..3, inputs 32..47
    .i8  1,  2, -2,  1,  -2,  1,  2, -1  ; column 0
    .i8 -3, -1, -2, -1,   2, -3,  2, -3  ; column 1
    .i8  1,  2, -2,  1,   3,  2, -3, -1  ; column 2
    .i8 -3,  1, -3,  2,   1,  2, -2, -2  ; column 3
    .bits 3,  0, 2, 6, 7,  1, 2, 5, 6  ; column 0
    .bits 3,  1, 4, 5, 7,  0, 2, 6, 7  ; column 1
    .bits 3,  0, 2, 6, 7,  1, 2, 4, 6  ; column 2
    .bits 3,  0, 1, 2, 5,  0, 4, 5, 6  ; column 3
; tile 3: columns 4..7, inputs 0..15
    .i8  1, -3, -3,  2,   2, -3,  1,  2  ; column 4
    .i8 -1,  1, -1,  1,   1,  2,  2,  1  ; column 5
    .i8 -3,  1,  3,  2,  -3, -3,  3,  1  ; column 6
    .i8  1,  3,  3,  1,   3, -1,  2, -1  ; column 7
    .bits 3,  2, 3, 4, 6,  0, 4, 6, 7  ; column 4
    .bits 3,  0, 2, 3, 6,  1, 5, 6, 7  ; column 5
    .bits 3,  0, 2, 3, 4,  0, 1, 3, 4  ; column 6
    .bits 3,  0, 2, 3, 7,  2, 3, 4, 6  ; column 7
; tile 4: columns 4..7, inputs 16..31
    .i8  2, -2, -1,  2,   2, -1,  2, -3  ; column 4
    .i8 -1,  3, -1, -2,  -2,  2, -1,  3  ; column 5
    .i8 -1,  3, -3, -2,   1, -1, -1,  2  ; column 6
    .i8 -3, -1, -1,  1,  -2,  2, -1,  1  ; column 7
    .bits 3,  0, 1, 2, 7,  0, 3, 5, 6  ; column 4
    .bits 3,  0, 4, 6, 7,  2, 3, 5, 6  ; column 5
    .bits 3,  2, 4, 6, 7,  1, 2, 5, 7  ; column 6
    .bits 3,  0, 5, 6, 7,  0, 2, 3, 6  ; column 7
; tile 5: columns 4..7, inputs 32..47
    .i8 -2, -2,  1, -3,   2,  1, -2, -2  ; column 4
    .i8  1, -2,  2, -1,  -3,  3, -2, -3  ; column 5
    .i8  1,  2, -2,  3,   1,  2,  3, -1  ; column 6
    .i8  3,  3,  3,  3,  -2,  2,  2,  3  ; column 7
    .bits 3,  0, 1, 4, 7,  0, 5, 6, 7  ; column 4
    .bits 3,  0, 2, 6, 7,  2, 3, 5, 7  ; column 5
    .bits 3,  2, 4, 6, 7,  1, 3, 6, 7  ; column 6
    .bits 3,  0, 1, 6, 7,  0, 2, 4, 7  ; column 7
.constants
x:
    .i8 -1,  3, -4,  2, -2,  1,  0,  0,  -2,  0,  0, -4,  2,  1,  0,  4  ; X[0]: tile 0 (and 3) sees these
    .i8 -2,  2, -3,  0,  3, -1, -1,  3,  -2, -4, -4, -3,  1,  4,  4,  1
    .i8 -2,  3, -1,  0,  3, -4,  0,  0,  -2,  1,  2, -4,  4,  0,  2,  4
    .i8  3, -4,  0, -4,  4, -4, -3,  2,  -1,  4, -2, -3,  0,  3,  1, -3  ; X[1]
    .i8  2,  0,  1,  2,  2, -3, -4,  0,  -1,  3, -3, -1, -3,  3, -2,  0
    .i8  2,  4, -3, -1,  3,  3,  3, -4,   1, -1, -3, -3,  4, -1,  2, -1
    .i8  4, -2,  3, -1,  3,  2,  1,  1,  -4, -2, -3,  2, -3,  2, -4, -1  ; X[2]
    .i8  2,  0,  4, -3, -1,  3,  1, -1,  -1, -2,  3,  4,  1, -2, -4, -3
    .i8  3, -1,  4,  0,  2,  1,  2, -1,   0,  2, -1, -4, -2,  4, -3,  0
    .i8  0,  0,  1,  0,  3, -2,  1,  3,   4,  0,  3, -4,  1, -1,  3,  0  ; X[3]
    .i8 -1, -1, -1, -4,  0,  3,  0, -3,   3,  2, -4, -1,  1,  0, -1,  2
    .i8  4, -4, -2,  0, -3,  0, -1, -1,   1, -4,  0, -4,  2,  0, -3,  0
