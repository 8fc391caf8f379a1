"""Pins: where the user wants nodes to run, and in which N:M pattern, by name (``--pin 'PATTERN=host'``, ``=2:4``).

A pin is written on the nodes of the loaded graph as metadata, so it travels through every later pass and into dumps.
Of several pins that name a node the last holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, cast

from ..frontend.linears import find_linears
from ..frontend.operators import native
from ..isa.errors import FlexcError, UsageError, did_you_mean, raise_all
from .emit import PIN_KEY, PIN_NM_KEY
from .pattern import NM
from .products import find_products

if TYPE_CHECKING:
    import onnx_ir as ir

ENGINES = ("array", "vector", "host")
Engine = Literal["array", "vector", "host"]

_LISTED = 5
"""Nodes that one message names at most."""


@dataclass(frozen=True)
class Pin:
    """Nodes whose name matches ``pattern`` (shell wildcards) run on ``engine``, or have their weights in ``nm``."""

    pattern: str
    engine: Engine | None = None
    nm: NM | None = None

    @staticmethod
    def parse(text: str) -> Pin:
        """Read ``PATTERN=ENGINE`` or ``PATTERN=N:M``; names may hold ``=``, so the last one counts.

        Raises:
            UsageError: anything else.
        """
        pattern, equals, wish = text.rpartition("=")
        if equals and pattern and wish in ENGINES:
            return Pin(pattern, engine=cast("Engine", wish))
        if equals and pattern and (":" in wish or wish == "dense"):
            try:
                return Pin(pattern, nm=NM.parse(wish))
            except UsageError as error:
                raise UsageError(error.message, where=f"--pin '{text}'", remedy=error.remedy) from None
        hint = did_you_mean(wish, [*ENGINES, "dense"]) if equals else ""
        remedy = hint or f"write PATTERN={'|'.join(ENGINES)} or PATTERN=N:M, as in --pin 'layers.0.*=2:4'"
        raise UsageError("not a pin", where=f"--pin '{text}'", remedy=remedy)

    def __str__(self) -> str:
        return f"--pin '{self.pattern}={self.engine or self.nm}'"


def apply_pins(model: ir.Model, pins: Sequence[Pin]) -> None:
    """Note pins on the nodes of a loaded graph.

    Raises:
        FlexcError: a pattern that names no node, or nodes that cannot run where they are wanted; all at once.
    """
    if not pins:
        return
    linears = {linear.node for linear in find_linears(model)}
    problems = []
    for pin in pins:
        able = linears if pin.nm else linears | set(find_products(model))
        matched = [node for node in model.graph if fnmatchcase(str(node.name), pin.pattern)]
        if pin.nm or pin.engine == "array":  # a pattern means the products among what it names, if there are any
            matched = [node for node in matched if node in able] or matched
        problems += _problems(pin, matched, able) if matched else [_unmatched(pin, model.graph)]
        for node in matched:
            node.metadata_props.update({PIN_NM_KEY: str(pin.nm)} if pin.nm else {PIN_KEY: str(pin.engine)})
    raise_all(problems)


def _unmatched(pin: Pin, nodes: Iterable[ir.Node]) -> FlexcError:
    hint = did_you_mean(pin.pattern, [str(node.name) for node in nodes])
    remedy = hint or "names are those that flexc check MODEL.onnx --per-node lists; * stands for any text"
    return FlexcError("no node has such a name", where=str(pin), remedy=remedy)


def _problems(pin: Pin, nodes: Sequence[ir.Node], able: set[ir.Node]) -> list[FlexcError]:
    """Name what cannot run where this pin wants it, one message a reason."""
    reasons: dict[str, list[str]] = {}
    for node in nodes:
        reason = _obstacle(node, pin.engine, node in able)
        if reason:
            reasons.setdefault(reason, []).append(f"'{node.name}'")
    return [
        FlexcError(f"{_names(names)}: {reason}", where=str(pin), remedy="narrow the pattern, or pin to another engine")
        for reason, names in reasons.items()
    ]


def _obstacle(node: ir.Node, engine: Engine | None, on_array: bool) -> str:
    """Return why a node cannot run on an engine, or (None) has no pattern; or an empty string."""
    if engine is None:
        return "" if on_array else f"{node.op_type} has no weights that could be sparse"
    if engine == "host":
        return ""
    if engine == "array":
        return "" if on_array else f"{node.op_type} is no product that the array could compute"
    operator, reason = native(node)
    if operator is None and on_array:
        return f"{node.op_type} runs on the array or the host only"
    return reason


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
