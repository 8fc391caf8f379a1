"""A program: code, the constants it brings, the tensors it exchanges, and what is known about where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .instruction import Instr
from .streams import Step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .machine import Machine


#: In place of an iteration: all of them.
EVERY = -1
#: Stands in the name of an op between those of layers that it carries out together.
TOGETHER = " + "


@dataclass(frozen=True)
class Tensor:
    """A tensor in DRAM: ``space`` is const or dram, ``strides`` are bytes a dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    space: str
    address: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A part of the model that the host runs: an ONNX model without inputs other than these tensors."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    model: bytes


@dataclass(frozen=True)
class State:
    """An input that stays in DRAM from run to run, and the output that says what it has become.

    Both lie in the same place, with the same type, shape and strides: what one run leaves there is what the next one
    finds. Before the first run its bytes are zero; a run may also be given another content.
    """

    input: str
    output: str


@dataclass(frozen=True)
class Op:
    """A stretch of code, ``first`` to before ``last``, and the nodes of the graph that it carries out.

    ``engine`` is where the work is done, ``reason`` why there. With an ``iteration`` the code stands in a loop over L0
    and does this for these nodes in that iteration only; other ops have the same code for the others.
    The last ``tail`` nodes are row work on the results of an array kernel before they leave the buffer. ``writes`` are
    names of tensors that lie in DRAM when the code has run; later ops may write others over them.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    engine: str
    nm: str
    first: int
    last: int
    reason: str = ""
    iteration: int = EVERY
    tail: int = 0
    writes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All that the op goes by: its name, those of the layers in it, and those of its nodes."""
        return tuple(dict.fromkeys((self.name, *self.name.split(TOGETHER), *self.nodes)))


@dataclass(frozen=True)
class Tap:
    """Where the result of the instruction at ``pc`` belongs in a value of the graph of that shape.

    Element (i, j) of the operand is element ``base + i * row_stride + j * col_stride`` of the flattened value, plus
    the steps (all in elements). Column j is column ``col + j`` plus ``col_steps``; from ``col_limit`` on it is padding.
    In a loop over nodes, iteration n of level ``turn`` makes a part of the value ``names[n]``; else there are no names.
    With an ``iteration`` all this holds in that iteration of L0 only, as for an :class:`Op`.
    """

    pc: int
    operand: str
    value: str
    dtype: str
    shape: tuple[int, ...]
    base: int
    row_stride: int
    col_stride: int
    steps: tuple[Step, ...] = ()
    col: int = 0
    col_steps: tuple[Step, ...] = ()
    col_limit: int = 1 << 40
    turn: int = 0
    names: tuple[str, ...] = ()
    iteration: int = EVERY

    @property
    def values(self) -> tuple[str, ...]:
        """All values that the operand becomes a part of."""
        return self.names or (self.value,)

    def value_at(self, iterations: Sequence[int]) -> str:
        """Return the value that the operand belongs to in these iterations of all levels, or "" where none does."""
        if self.iteration not in (EVERY, iterations[0]):
            return ""
        if not self.names:
            return self.value
        turn = iterations[self.turn]
        return self.names[turn] if turn < len(self.names) else ""


@dataclass(frozen=True)
class Tile:
    """A tile coordinate: what the loop at ``pc`` counts or, where ``count`` is 1, what the code from there on is about.

    Iteration i of ``count`` works on the ``unit`` from ``start + i * step`` on, ``size`` of them (0: more than these,
    or not side by side), of ``limit`` in all (0: not said); what lies beyond the limit is padding.
    """

    pc: int
    what: str
    count: int = 1
    unit: str = ""
    size: int = 0
    step: int = 0
    start: int = 0
    limit: int = 0


@dataclass(frozen=True)
class Debug:
    """What connects code and graph: never needed to run."""

    ops: tuple[Op, ...] = ()
    taps: tuple[Tap, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Program:
    """Everything that the object file holds.

    ``const`` is the content of the const memory (uint8): weights as the cells store them from address 0 to
    ``weight_bytes``, other constants after. ``blobs`` are named byte strings that only ``--check`` reads.
    ``states`` are the inputs that a run may find as the run before left them.
    ``meta`` says in plain words where the program came from (source model, options, version).
    """

    code: tuple[Instr, ...]
    machine: Machine
    const: npt.NDArray[np.uint8]
    weight_bytes: int
    dram_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    segments: tuple[Segment, ...] = ()
    debug: Debug = field(default_factory=Debug)
    meta: Mapping[str, str] = field(default_factory=dict)
    blobs: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    states: tuple[State, ...] = ()
