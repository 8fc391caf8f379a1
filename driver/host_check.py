"""What the host has to run must be something that onnxruntime can run: asked before a program is made, not after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from flexc.backend.host_kernel import extract
from flexc.emulator.host import open_session
from flexc.frontend.infer import reads
from flexc.isa.errors import FlexcError, raise_all
from flexc.isa.program import Segment
from flexc.passes.partition import Kernel

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Fatal error: )?")


@dataclass(frozen=True)
class Part:
    """Some nodes for the host: their name in messages, and a model of them alone."""

    name: str
    model: bytes


def parts_of_program(segments: Iterable[Segment]) -> list[Part]:
    """Return the host's parts of a program."""
    return [Part(segment.name, segment.model) for segment in segments]


def parts_of_plan(model: ir.Model, kernels: Iterable[Kernel]) -> list[Part]:
    """Return the host's parts of a graph whose kernels are known but have no code."""
    parts = []
    for kernel in kernels:
        if kernel.kind == "host":
            given = [value for value in kernel.inputs() if value.const_value is None]
            made = [value for value in kernel.outputs() if value.name]
            alone = extract(model, kernel.nodes, given, made, "host")
            parts.append(Part(kernel.name, ir.to_proto(alone).SerializeToString()))
    return parts


def refuse_what_nobody_runs(parts: Iterable[Part], where: str) -> None:
    """Let onnxruntime read every part.

    Raises:
        FlexcError: all nodes that it refuses, with its reasons.
    """
    raise_all([problem for part in parts for problem in _problems(part, where)])


def _problems(part: Part, where: str) -> list[FlexcError]:
    """Return one problem for each node that onnxruntime does not read alone, or one for all of them together."""
    reason = _reason(part.model)
    if not reason:
        return []
    alone = {node.name: _reason(_alone(model, node)) for model in [_read(part.model)] for node in model.graph}
    found = {name: text for name, text in alone.items() if text} or {part.name: reason}
    return [
        FlexcError(
            f"neither the machine nor onnxruntime on the host runs it: {text}",
            where=f"{where}: node '{name}'",
            remedy="export the model without this operator, or for an operator set that onnxruntime knows",
        )
        for name, text in found.items()
    ]


def _reason(model: bytes) -> str:
    """Return why onnxruntime does not read a model, or an empty string."""
    try:
        open_session(model)
    except Exception as error:  # noqa: BLE001  whatever it is, it would happen at run time
        return _PREFIX.sub("", " ".join(str(error).split())) or type(error).__name__
    return ""


def _read(content: bytes) -> ir.Model:
    import onnx

    return ir.serde.deserialize_model(onnx.ModelProto.FromString(content))


def _alone(model: ir.Model, node: ir.Node) -> bytes:
    given = [value for value in dict.fromkeys(reads(node)) if value.const_value is None]
    made = [value for value in node.outputs if value.name]
    return bytes(ir.to_proto(extract(model, [node], given, made, "host")).SerializeToString())
