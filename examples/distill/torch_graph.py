"""An ONNX graph run by torch, so that its weights can be trained: the operators of exported transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

Attributes = dict[str, Any]


class Graph:
    """A model of one input and one output of static shapes.

    Attributes:
        constants: initializers by name; floats of them may be given anew to :meth:`run`.
        shape: of the input.
    """

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        self._nodes = list(model.graph.node)
        self.constants: dict[str, Tensor] = {}
        for item in model.graph.initializer:
            self.constants[item.name] = torch.from_numpy(numpy_helper.to_array(item).copy()).to(device)
        inputs = [value for value in model.graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise SystemExit(f"the model has {len(inputs)} inputs; this script feeds one")
        self._input, self._output = inputs[0].name, model.graph.output[0].name
        self.shape = tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim)
        unknown = sorted({node.op_type for node in self._nodes} - set(OPERATORS) - {"Constant"})
        if unknown or not prod(self.shape):
            raise SystemExit(f"not known here: {', '.join(unknown) or 'dynamic shapes'}")
        for node in self._nodes:
            if node.op_type == "Constant":
                array = numpy_helper.to_array(node.attribute[0].t)
                self.constants[node.output[0]] = torch.from_numpy(array.copy()).to(device)

    def run(self, value: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Run on one input of :attr:`shape`; `weights` take the place of constants of their names."""
        known: dict[str, Tensor] = {**self.constants, **weights, self._input: value}
        for node in self._nodes:
            if node.op_type == "Constant":
                continue
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            made = OPERATORS[node.op_type](attributes, *[known[name] if name else None for name in node.input])
            known.update(zip(node.output, made if isinstance(made, (tuple, list)) else [made], strict=False))
        return known[self._output]

    def weights_of_linears(self) -> list[str]:
        """Return the constants that products and convolutions multiply by, each once."""
        products = [node.input[1] for node in self._nodes if node.op_type in ("MatMul", "Gemm", "Conv")]
        return [name for name in dict.fromkeys(products) if name in self.constants]


def _ints(value: Tensor | None) -> list[int]:
    return [] if value is None else [int(each) for each in value.reshape(-1).tolist()]


def _axes(a: Attributes, axes: Tensor | None) -> list[int]:
    return list(a.get("axes", [])) or _ints(axes)


def _reshape(_a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    dims = _ints(shape)
    return x.reshape([x.shape[at] if dim == 0 else dim for at, dim in enumerate(dims)])


def _slice(_a: Attributes, x: Tensor, *given: Tensor) -> Tensor:
    starts, ends, axes, steps = ([*map(_ints, given), [], []])[:4]
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[at] if axes else at
        kept = range(*slice(start, end, steps[at] if steps else 1).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(kept, dtype=torch.int64, device=x.device))
    return x


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    for axis in sorted(axis % (x.ndim + len(_axes(a, axes))) for axis in _axes(a, axes)):
        x = x.unsqueeze(axis)
    return x


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    pieces: tuple[Tensor, ...] = x.split(_ints(sizes) or -(-x.shape[axis] // a["num_outputs"]), axis)
    return pieces


def _gather(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    return x[(slice(None),) * axis + (index,)]


def _gemm(a: Attributes, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    y = a.get("alpha", 1.0) * (x.T if a.get("transA") else x) @ (w.T if a.get("transB") else w)
    return y if bias is None else y + a.get("beta", 1.0) * bias


def _mean(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.mean(_axes(a, axes) or list(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))


def _norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, scale.shape, scale, bias, a.get("epsilon", 1e-5))


def _rms_norm(a: Attributes, x: Tensor, scale: Tensor) -> Tensor:
    return F.rms_norm(x, scale.shape, scale, a.get("epsilon", 1e-5))


def _sum(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.sum(_axes(a, axes) or list(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))


def _trilu(a: Attributes, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return x.triu(diagonal) if a.get("upper", 1) else x.tril(diagonal)


def _padded(a: Attributes, x: Tensor, value: float) -> Tensor:
    """Return `x` [batch, channels, *places] with the border that the attribute `pads` asks for."""
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise SystemExit("not known here: auto_pad")
    places = x.ndim - 2
    pads = a.get("pads", [0] * 2 * places)
    return F.pad(x, [pads[at + side * places] for at in reversed(range(places)) for side in (0, 1)], value=value)


def _conv(a: Attributes, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim]
    ones = [1] * (x.ndim - 2)
    strides, dilations = a.get("strides", ones), a.get("dilations", ones)
    return function(_padded(a, x, 0), w, bias, strides, 0, dilations, a.get("group", 1))


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    function = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[x.ndim]
    ones = [1] * (x.ndim - 2)
    border, dilations = _padded(a, x, float("-inf")), a.get("dilations", ones)
    if a.get("ceil_mode"):
        raise SystemExit("not known here: MaxPool with ceil_mode")
    return function(border, a["kernel_shape"], a.get("strides", ones), 0, dilations)


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    if a.get("mode", b"constant") != b"constant":
        raise SystemExit("not known here: Pad that does not fill with one value")
    ends = _ints(pads)
    words = [ends[at + side * x.ndim] for at in reversed(range(x.ndim)) for side in (0, 1)]
    return F.pad(x, words, value=0.0 if value is None else float(value))


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(prod(x.shape[:axis]), -1)


def _filled(a: Attributes, shape: Tensor) -> Tensor:
    value = torch.from_numpy(numpy_helper.to_array(a["value"]).copy()) if "value" in a else torch.zeros(1)
    return value.to(shape.device).expand(_ints(shape))


def _clip(_a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x.clip(low, high)


def _shape(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[a.get("start", 0) : a.get("end")], device=x.device)


def _gelu(a: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=a.get("approximate", b"none").decode())


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, x, y: x + y, "Sub": lambda _, x, y: x - y, "Mul": lambda _, x, y: x * y,
    "Div": lambda _, x, y: x / y, "Pow": lambda _, x, y: x**y, "Neg": lambda _, x: -x, "Sqrt": lambda _, x: x.sqrt(),
    "Reciprocal": lambda _, x: x.reciprocal(), "Exp": lambda _, x: x.exp(), "Erf": lambda _, x: x.erf(),
    "Tanh": lambda _, x: x.tanh(), "Sigmoid": lambda _, x: x.sigmoid(), "Relu": lambda _, x: x.relu(),
    "Softplus": lambda _, x: F.softplus(x), "Gelu": _gelu, "IsNaN": lambda _, x: x.isnan(), "Identity": lambda _, x: x,
    "Where": lambda _, c, x, y: torch.where(c, x, y), "MatMul": lambda _, x, y: x @ y, "Gemm": _gemm,
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)), "ReduceMean": _mean, "LayerNormalization": _norm,
    "Reshape": _reshape, "Transpose": lambda a, x: x.permute(a["perm"]), "Slice": _slice, "Split": _split,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]), "Gather": _gather, "Unsqueeze": _unsqueeze,
    "Expand": lambda _, x, shape: x.expand(np.broadcast_shapes(tuple(x.shape), tuple(_ints(shape)))),
    "Conv": _conv, "MaxPool": _max_pool, "GlobalAveragePool": lambda _, x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "Flatten": _flatten, "Clip": _clip, "Pad": _pad, "RMSNormalization": _rms_norm, "ReduceSum": _sum, "Trilu": _trilu,
    "Equal": lambda _, x, y: x == y, "Greater": lambda _, x, y: x > y, "LessOrEqual": lambda _, x, y: x <= y,
    "And": lambda _, x, y: x & y, "Not": lambda _, x: ~x, "Cos": lambda _, x: x.cos(), "Sin": lambda _, x: x.sin(),
    "CumSum": lambda _, x, axis: x.cumsum(int(axis)), "ConstantOfShape": _filled, "Shape": _shape,
    "Squeeze": lambda a, x, axes=None: x.squeeze(_axes(a, axes)) if _axes(a, axes) else x.squeeze(),
    "Cast": lambda a, x: x.to(torch.from_numpy(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(a["to"]))).dtype),
}  # fmt: skip
