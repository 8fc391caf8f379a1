"""Small random programs whose engines meet in the same memory, some ordered by semaphores and some not."""

from __future__ import annotations

from random import Random

_HEAD = """
.target edge
.input x dtype=i8 shape=[4096] address=0
.code
    groups n=1 m=1 blocks=4 slots=4 index=0 packing=packed select=incell merge=4
    stream s60, buf, u8 base=0 rows=1 cols=4096
    stream s61, acc, i32 base=0 rows=8 cols=128
    stream s62, cells, u8 base=0 rows=4 cols=1
    stream s63, buf, u8 base=0 rows=4 cols=128
    vfill s60
    vfill s61
    barrier
    ldw s62, s63
    barrier
"""
_ENGINES = ("dma0", "dma1", "vector", "array", "weights")


class _Writer:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.lines: list[str] = []
        self.streams = 0
        self.counts: dict[int, int] = {}
        self.semaphores = self.random.sample(range(1, 40), self.random.choice((0, 1, 2, 3, 4)))

    def program(self) -> str:
        if self.random.random() < 0.5:
            self.pipeline()
        else:
            self.level(0, self.random.choice((1, 1, 2)))
        credits_ = [
            f"    sync {self.random.choice(('vector', 'dma0'))} post=t{token}"
            for token in self.semaphores
            for _ in range(self.random.choice((0, 1, 1, 2, 2, 3)))
        ]
        return "\n".join([_HEAD, *self.lines[: self.split], *credits_, *self.lines[self.split :], "    halt", ""])

    split = 0

    def level(self, depth: int, loops: int) -> None:
        """Write instructions, and loops with more of them, with as many posts as waits."""
        for _ in range(loops):
            if depth < 3 and self.random.random() < 0.8:
                count = self.random.choice((1, 2, 3, 4, 5, 6, 7, 9) if depth == 0 else (1, 2, 3, 4))
                self.counts[depth] = count
                self.lines.append(f"    loop L{depth} count={count}")
                self.body(depth + 1)
                self.level(depth + 1, self.random.choice((0, 0, 1)))
                self.lines.append(f"    endloop L{depth}")
                del self.counts[depth]
            else:
                self.body(depth)

    def body(self, depth: int) -> None:
        texts = [self.instruction(depth) for _ in range(self.random.randint(1, 4))]
        waits: list[list[str]] = [[] for _ in texts]
        posts: list[list[str]] = [[] for _ in texts]
        for token in self.semaphores:
            if self.random.random() < 0.7:
                self.random.choice(waits).append(f"t{token}")
                self.random.choice(posts).append(f"t{token}")
        self.add(texts, waits, posts)

    def add(self, texts: list[str], waits: list[list[str]], posts: list[list[str]]) -> None:
        for text, wait, post in zip(texts, waits, posts, strict=True):
            if text.startswith("    mac") and len(post) == 1 and self.random.random() < 0.5:
                text, post = f"{text} release={post[0]}", []
            tokens = "".join(f" {name}={'+'.join(each[:2])}" for name, each in (("wait", wait), ("post", post)) if each)
            self.lines.append(text + tokens)

    def pipeline(self) -> None:
        """Write load, work and store with two or so slots each: right, but for what is left out."""
        slots, count = self.random.choice((1, 2, 2, 3)), self.random.choice((2, 3, 5, 8, 9))
        self.semaphores = [1, 2, 3, 4]
        turn = f"by=64 mod={slots}" if self.random.random() < 0.8 else "by=64"
        wide = self.random.choice((16, 64, 80))
        for number, base in enumerate((0, 0, 1024, 1024)):
            self.lines.append(f"    stream s{number}, buf, u8 base={base} rows=1 cols={wide}")
            self.lines.append(f"    step s{number}, L0 {turn}")
        self.lines.append(f"    stream s4, dram, u8 base=0 rows=1 cols={wide}\n    step s4, L0 by=64")
        self.lines.append(f"    stream s5, dram, u8 base=2048 rows=1 cols={wide}\n    step s5, L0 by=64")
        credit = self.random.choice((slots, slots, slots, slots + 1, slots - 1))
        self.lines += ["    sync vector post=t2+t4"] * credit
        body = [
            "copy s0, s4, ch0 wait=t2 post=t1",
            "vmov s2, s0 wait=t1+t4 post=t2+t3",
            "copy s5, s2, ch1 wait=t3 post=t4",
        ]
        if self.random.random() < 0.3:
            place = self.random.randrange(3)
            body[place] = body[place].replace(self.random.choice(("wait=t2 ", "post=t1", "+t4", "t2+", " post=t4")), "")
        nested = self.random.random() < 0.4
        self.lines += ["    loop L1 count=3"] if nested else []
        self.lines += [f"    loop L0 count={count}", *(f"    {line}" for line in body), "    endloop L0"]
        self.lines += ["    endloop L1"] if nested else []
        self.split = len(self.lines)

    def instruction(self, depth: int) -> str:
        engine = self.random.choice(_ENGINES)
        if self.random.random() < 0.08:
            return f"    sync {engine}"
        cols, rows = self.random.choice((4, 8, 32)), self.random.choice((1, 1, 2, 4))
        match engine:
            case "vector" if self.random.random() < 0.4:
                return f"    store {self.stream('buf', 'i32', rows, cols)}, {self.stream('acc', 'i32', rows, cols)}"
            case "vector":
                return f"    vmov {self.stream('buf', 'u8', rows, cols)}, {self.stream('buf', 'u8', rows, cols)}"
            case "array" if self.random.random() < 0.3:
                return f"    accum {self.stream('acc', 'i32', rows, cols)}, {self.stream('acc', 'i32', rows, cols)}"
            case "array":
                self.lines.append(f"    lda {self.stream('buf', 'i8', rows, 4)}")
                return f"    mac {self.stream('acc', 'i32', rows, 128)}, s62"
            case "weights":
                return f"    ldw s62, {self.stream('buf', 'u8', 4, 128)}"
        there, back = self.stream("dram", "u8", rows, cols), self.stream("buf", "u8", rows, cols)
        pair = f"{there}, {back}" if self.random.random() < 0.5 else f"{back}, {there}"
        return f"    copy {pair}, ch{engine[3]}"

    def stream(self, space: str, dtype: str, rows: int, cols: int) -> str:
        """Return a register set to a random window of the first bytes of a memory."""
        name, random = f"s{self.streams}", self.random
        self.streams = (self.streams + 1) % 60
        size = 4 if dtype == "i32" else 1
        base = random.choice((0, 0, 32, 64, 256, 512)) if space == "acc" else random.choice((0, 16, 64, 512, 1024))
        self.lines.append(f"    stream {name}, {space}, {dtype} base={base} rows={rows} cols={cols}")
        if rows > 1 and space == "acc":
            self.lines.append(f"    pitch {name} row=512 col=4")
        elif rows > 1 and cols < 128 and random.random() < 0.6:
            self.lines.append(f"    pitch {name} row={random.choice((cols * size, 64, 128))} col={size}")
        for level in self.counts:
            if random.random() < 0.6:
                by, mod = random.choice((4, 16, 32, 64, 128)), random.choice((0, 0, 2, 2, 3))
                self.lines.append(f"    step {name}, L{level} by={by}" + (f" mod={mod}" if mod else ""))
        return name


def random_program(seed: int) -> str:
    """Return the text of a program; some wait for tokens that never come."""
    return _Writer(seed).program()
