"""Attention whose queries share keys in groups, with a rotation by position and a cache: onnxruntime's own operator.

GroupQueryAttention as onnxruntime-genai's model builder writes it, in standard operators. Definition:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..edit import shape_of, static_shape
from .site import Site, SiteRule

#: Inputs from here on are of caches in few bits, norms of heads and lengths of queries.
_FIRST_UNKNOWN = 12
#: Attributes that ask for what is not written here, unless they have this value.
_PLAIN = {"kv_cache_bit_width": 0, "qk_output": 0, "sliding_window_cache": 0, "causal": 1}


@dataclass(frozen=True)
class Places:
    """Where the tokens of a step are: ``queries`` their positions [batch or 1, step], ``keys`` [keys] those of all."""

    queries: ir.Value
    keys: ir.Value


class GroupQuery:
    """Emits the parts of one such node; shapes need not be known but for the size of a head."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.heads, self.groups = site.integer("num_heads", 1), site.integer("kv_num_heads", 1)

    def is_plain(self) -> bool:
        """Return whether the node asks for nothing but what is written here."""
        site = self.site
        coded = any(site.text(name, "NONE") != "NONE" for name in ("k_quant_type", "v_quant_type"))
        beyond = any(value is not None for value in site.node.inputs[_FIRST_UNKNOWN:])
        scores = len(site.node.outputs) > 3 and (site.node.outputs[3].uses() or site.node.outputs[3].is_graph_output())
        plain = all(site.integer(name, value) == value for name, value in _PLAIN.items())
        return plain and not coded and not beyond and not scores and self.size() > 0

    def size(self) -> int:
        """Return the size of a head, 0 where it is not known."""
        past = self.site.maybe(3)
        last = past.shape[-1] if past is not None and past.shape is not None else None
        if isinstance(last, int):
            return last
        width = self.site.x.shape[-1] if self.site.x.shape is not None else None
        count = self.heads + (0 if self.site.maybe(1) is not None else 2 * self.groups)
        return width // count if isinstance(width, int) else 0

    def parts(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return queries, keys and values of the step, [batch, heads or groups, step, size]."""
        site, size = self.site, self.size()
        q, k, v = site.x, site.maybe(1), site.maybe(2)
        if k is None or v is None:
            cuts = [0, *np.cumsum([count * size for count in (self.heads, self.groups, self.groups)]).tolist()]
            q, k, v = (site.slice(site.x, 2, cuts[place], cuts[place + 1]) for place in range(3))
        counts = (self.heads, self.groups, self.groups)
        split = [site.reshape(part, [0, 0, count, size]) for part, count in zip((q, k, v), counts, strict=True)]
        q, k, v = (site.transpose(part, [0, 2, 1, 3]) for part in split)
        return q, k, v

    def rotated(self, x: ir.Value, positions: ir.Value) -> ir.Value:
        """Return queries or keys turned by their positions [batch or 1, step], where the node asks for it."""
        site, tables = self.site, (self.site.maybe(7), self.site.maybe(8))
        if not site.integer("do_rotary", 0) or tables[0] is None or tables[1] is None:
            return x
        given = site.maybe(9)
        cos, sin = (
            site.op("Unsqueeze", site.op("Gather", table, given or positions, axis=0), site.ints([1]))
            for table in tables
            if table is not None
        )
        return turned(site, x, (cos, sin), self.size(), pairs=bool(site.integer("rotary_interleaved", 0)))

    def result(self, q: ir.Value, k: ir.Value, v: ir.Value, places: Places) -> ir.Value:
        """Return what the queries get of values [batch, groups, keys, size], heads side by side."""
        site, size = self.site, self.size()
        scale = site.real("scale", 0.0) or 1 / math.sqrt(size)
        q = site.op("Mul", q, self._number(scale, q))
        allowed = self._allowed(places)
        lengths = site.op("Shape", allowed)
        rows = site.reshape(q, [0, self.groups, -1, size])
        scores = site.op("MatMul", rows, site.transpose(k, [0, 1, 3, 2]))
        shared = self.heads // self.groups
        apart = site.op("Concat", site.ints([0, 0, shared]), site.slice(lengths, 0, 1, 3), axis=0)
        shares = self._shares(site.op("Reshape", scores, apart), allowed)
        together = site.op("Concat", site.ints([0, 0, -1]), site.slice(lengths, 0, 2, 3), axis=0)
        found = site.op("MatMul", site.op("Reshape", shares, together), v)
        by_head = site.reshape(found, [0, self.heads, -1, size])
        return site.reshape(site.transpose(by_head, [0, 2, 1, 3]), [0, 0, self.heads * size])

    def _number(self, number: float, like: ir.Value) -> ir.Value:
        """Return a constant of the type that the cache has, or else the queries."""
        given = next(
            (each for each in (self.site.maybe(3), self.site.x, like) if each is not None and each.dtype), like
        )
        return self.site.number(number, given)

    def _allowed(self, places: Places) -> ir.Value:
        """Return which keys a query may see, [batch or 1, step, keys]: up to its own position, in its window."""
        site = self.site
        rows = site.op("Unsqueeze", places.queries, site.ints([2]))
        seen = site.op("LessOrEqual", places.keys, rows)
        window = site.integer("local_window_size", -1)
        if window < 0:
            return seen
        first = site.op("Sub", rows, site.constant(np.array(window, np.int64)))
        return site.op("And", seen, site.op("Greater", places.keys, first))

    def _shares(self, scores: ir.Value, allowed: ir.Value) -> ir.Value:
        """Return the shares of the keys, of scores [batch, groups, heads that share, step, keys]."""
        site, cap, bias = self.site, self.site.real("softcap", 0.0), self.site.maybe(10)
        if cap:
            scores = site.op("Tanh", site.op("Div", scores, self._number(cap, scores)))
            scores = site.op("Mul", scores, self._number(cap, scores))
        if bias is not None:
            scores = site.op("Add", scores, self._by_group(bias))
        seen = site.op("Unsqueeze", allowed, site.ints([1, 2]))
        scores = site.op("Where", seen, scores, self._number(-np.inf, scores))
        sink = site.maybe(11)
        if sink is None and not site.integer("smooth_softmax", 0):
            return site.op("Softmax", scores, axis=-1)
        at = self._number(0.0, scores) if sink is None else site.reshape(sink, [1, self.groups, -1, 1, 1])
        greatest = site.op("Max", site.reduce("ReduceMax", scores, [-1]), at)
        powers = site.op("Exp", site.op("Sub", scores, greatest))
        whole = site.op("Add", site.reduce("ReduceSum", powers, [-1]), site.op("Exp", site.op("Sub", at, greatest)))
        return site.op("Div", powers, whole)

    def _by_group(self, bias: ir.Value) -> ir.Value:
        """Return an addend of the scores [batch or 1, heads or 1, step, keys] with heads in groups."""
        site, count = self.site, bias.shape[1] if bias.shape is not None and len(bias.shape) == 4 else 1
        if count == 1:
            return site.op("Unsqueeze", bias, site.ints([2]))
        tail = site.slice(site.op("Shape", bias), 0, 2, 4)
        dims = site.op("Concat", site.ints([0, self.groups, self.heads // self.groups]), tail, axis=0)
        return site.op("Reshape", bias, dims)


def turned(site: Site, x: ir.Value, angles: tuple[ir.Value, ir.Value], size: int, *, pairs: bool) -> ir.Value:
    """Return x [batch, heads, step, size] turned, as much of it as there are angles.

    ``angles`` are cosines and sines [batch or 1, 1, step, half], made of tables; neighbours are ``pairs``, or halves.
    """
    cos, sin = angles
    half = _columns(cos)
    turning = x if 2 * half == size else site.slice(x, 3, 0, 2 * half)
    if pairs:
        apart = site.reshape(turning, [0, 0, 0, half, 2])
        a, b = (site.op("Squeeze", site.slice(apart, 4, place, place + 1), site.ints([4])) for place in (0, 1))
    else:
        a, b = site.slice(turning, 3, 0, half), site.slice(turning, 3, half, 2 * half)
    first = site.op("Sub", site.op("Mul", a, cos), site.op("Mul", b, sin))
    second = site.op("Add", site.op("Mul", b, cos), site.op("Mul", a, sin))
    if pairs:
        columns = [site.op("Unsqueeze", each, site.ints([4])) for each in (first, second)]
        made = site.reshape(site.op("Concat", *columns, axis=4), [0, 0, 0, 2 * half])
    else:
        made = site.op("Concat", first, second, axis=3)
    return made if 2 * half == size else site.op("Concat", made, site.slice(x, 3, 2 * half, size), axis=3)


def _columns(angles: ir.Value) -> int:
    """Return how many angles there are: the columns of the table they are picked from."""
    value: ir.Value | None = angles
    while value is not None and (node := value.producer()) is not None and node.op_type in ("Gather", "Unsqueeze"):
        value = node.inputs[0]
    return shape_of(value or angles)[-1]


def rotary_embedding(site: Site) -> bool:
    """RotaryEmbedding of onnxruntime's domain: (x, positions or the first one, tables of cosines and sines)."""
    shape, half = static_shape(site.x), shape_of(site.given(2))[-1]
    if shape is None or len(shape) not in (3, 4) or site.integer("is_packed_batching", 0):
        return False
    flat = len(shape) == 3
    whole = (
        shape[2] // (2 * half) if flat else shape[1]
    )  # a head is as wide as its angles, unless only a part is turned
    heads = site.integer("num_heads", 0) if flat and site.integer("rotary_embedding_dim", 0) else whole
    size, step = (shape[2] // heads if flat else shape[3]), shape[1 if flat else 2]
    x = site.transpose(site.reshape(site.x, [shape[0], step, heads, size]), [0, 2, 1, 3]) if flat else site.x
    positions = site.given(1)
    if len(shape_of(positions)) == 1:
        moves = site.constant(np.arange(step, dtype=np.int64).reshape(1, step))
        positions = site.op("Add", site.reshape(positions, [1, 1]), moves)
    cos, sin = (
        site.op("Unsqueeze", site.op("Gather", site.given(place), positions, axis=0), site.ints([1]))
        for place in (2, 3)
    )
    result = turned(site, x, (cos, sin), size, pairs=bool(site.integer("interleaved", 0)))
    return site.done(site.reshape(site.transpose(result, [0, 2, 1, 3]), shape) if flat else result)


def group_query_attention(site: Site) -> bool:
    """GroupQueryAttention of shared keys, rotated by position; what a step adds is written behind the valid ones.

    Inputs: query (or all three packed), key, value, past key, past value, how many keys are valid less 1, how many
    there are in all, tables of cosines and sines, positions, addend of the scores, sinks of the heads.
    """
    parts = GroupQuery(site)
    step = static_shape(site.x)
    if step is None or not parts.is_plain():
        return False
    q, k, v = parts.parts()
    before = _before(site, step[1])
    moves = site.constant(np.arange(step[1], dtype=np.int64).reshape(1, -1))
    queries = moves if before is None else site.op("Add", site.reshape(before, [step[0], 1]), moves)
    q, k = (parts.rotated(each, queries) for each in (q, k))
    k, v = (_present(site, parts, new, site.maybe(place), before) for new, place in ((k, 3), (v, 4)))
    keys = site.constant(np.arange(_room(site, step[1]), dtype=np.int64))
    result = parts.result(q, k, v, Places(queries, keys))
    return site.done(*[result, k, v, result][: len(site.node.outputs)])


def _before(site: Site, step: int) -> ir.Value | None:
    """Return how many keys are valid before the step, int64 [batch]; None where there are none."""
    total = site.numbers(6)
    if site.maybe(3) is None or (total is not None and int(total.reshape(-1)[0]) == step):
        return None
    valid = site.reshape(site.cast(site.given(5), ir.DataType.INT64), [-1])
    return site.op("Sub", valid, site.constant(np.array(step - 1, np.int64)))


def _room(site: Site, step: int) -> int:
    """Return how many keys there are room for after the step: as many as before, or as many as there are in all."""
    total, past = site.numbers(6), site.maybe(3)
    return max(0 if past is None else shape_of(past)[2], step if total is None else int(total.reshape(-1)[0]))


def _present(site: Site, parts: GroupQuery, new: ir.Value, past: ir.Value | None, before: ir.Value | None) -> ir.Value:
    """Return the past with the rows of a step written behind what is valid of it."""
    batch, step = shape_of(site.x)[:2]
    groups, size, room = parts.groups, parts.size(), _room(site, step)
    held = 0 if past is None else shape_of(past)[2]
    if before is None:
        later = [] if past is None or held <= step else [site.slice(past, 2, step, held)]
        filler = room - max(held, step)
        later += [_zeros(site, (batch, groups, filler, size))] if filler > 0 else []
        return site.op("Concat", new, *later, axis=2) if later else new
    assert past is not None
    base = site.op("Concat", past, _zeros(site, (batch, groups, room - held, size)), axis=2) if room > held else past
    starts = np.arange(batch * groups, dtype=np.int64).reshape(batch, groups, 1) * room
    first = site.op("Add", site.reshape(before, [batch, 1, 1]), site.constant(starts + np.arange(step)))
    rows = site.reshape(first, [batch * groups * step, 1])
    table, values = site.reshape(base, [-1, size]), site.reshape(new, [-1, size])
    return site.reshape(site.op("ScatterND", table, rows, values), [batch, groups, room, size])


def _zeros(site: Site, shape: tuple[int, ...]) -> ir.Value:
    kind = next((value.dtype for value in (site.maybe(3), site.x) if value is not None and value.dtype), None)
    return site.constant(np.zeros(shape, (kind or ir.DataType.FLOAT).numpy()), kind)


RULES: dict[str, SiteRule] = {
    "GroupQueryAttention": group_query_attention,
    "RotaryEmbedding": rotary_embedding,
}
