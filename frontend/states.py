"""States: inputs that a model hands back as outputs, so that they can stay in the machine from run to run."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from ..isa.errors import FlexcError, did_you_mean, raise_all
from .edit import shape_of

STATE_KEY = "flexc.state"  # metadata of an input: the name of the output that says what it has become

_BEFORE = re.compile(r"past|prev|cache|state|(?<![a-z])in(?![a-z])", re.IGNORECASE)
_AFTER = re.compile(r"present|next|new|cache|state|updated|(?<![a-z])out(?![a-z])", re.IGNORECASE)
#: Words of a name that say which of the two it is; what is left says which state.
_SIDE = re.compile(
    r"past_key_values|past_key_value|past|previous|prev|present_key_values|present|next|new|updated|"
    r"(?<![a-z])(?:in|input|out|output)(?![a-z])",
    re.IGNORECASE,
)


def declare_states(graph: ir.Graph, wanted: Mapping[str, str], where: str) -> None:
    """Note at inputs which output they become: those of ``wanted``, and pairs of one type, shape and name.

    Names agree when they differ only in words such as past and present, or in and out: ``past_key_values.0.key`` and
    ``present.0.key``, ``cache_k`` and ``new_cache_k``.

    Args:
        graph: static; inputs that have a note keep it.
        wanted: input -> output, as the user gives them.
        where: name of the model in error messages.

    Raises:
        FlexcError: a name that is not there, or a pair whose types or shapes differ.
    """
    inputs = {str(value.name): value for value in graph.inputs}
    outputs = {str(value.name): value for value in graph.outputs}
    problems = [problem for pair in wanted.items() if (problem := _problem(*pair, inputs, outputs, where))]
    raise_all(problems)
    for name, output in wanted.items():
        inputs[name].metadata_props[STATE_KEY] = output
    taken = {value.metadata_props.get(STATE_KEY) for value in graph.inputs}
    for value in graph.inputs:
        if STATE_KEY not in value.metadata_props and _BEFORE.search(str(value.name)):
            found = [name for name, output in outputs.items() if name not in taken and _alike(value, output)]
            if len(found) == 1:
                value.metadata_props[STATE_KEY] = found[0]
                taken.add(found[0])


def _alike(before: ir.Value, after: ir.Value) -> bool:
    one, other = str(before.name), str(after.name)
    named = _AFTER.search(other) is not None and _which(one) == _which(other)
    return named and before.dtype == after.dtype and shape_of(before) == shape_of(after)


def _which(name: str) -> str:
    return "".join(char for char in _SIDE.sub("", name).lower() if char.isalnum())


def _problem(
    name: str, output: str, inputs: Mapping[str, ir.Value], outputs: Mapping[str, ir.Value], where: str
) -> FlexcError | None:
    for each, known, what in ((name, inputs, "input"), (output, outputs, "output")):
        if each not in known:
            listed = f"{what}s: {', '.join(known) or 'none'}"
            text = f"--state {name}={output}: no {what} '{each}'"
            return FlexcError(text, where=where, remedy=did_you_mean(each, list(known)) or listed)
    before, after = inputs[name], outputs[output]
    if before.dtype == after.dtype and shape_of(before) == shape_of(after):
        return None
    kinds = [f"{value.dtype.name if value.dtype else '?'}{list(shape_of(value))}" for value in (before, after)]
    return FlexcError(
        f"--state {name}={output}: {kinds[0]} cannot become {kinds[1]}",
        where=where,
        remedy="a state keeps its type and shape; a cache that grows needs --cache CAPACITY",
    )
