"""What a report says of numbers: integers that came with the model, and the precision that others are computed in."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx_ir as ir

from flexc.frontend.codes import CODES_KEY
from flexc.frontend.experts import EXPERTS_KEY
from flexc.frontend.precision import NARROWED_KEY


def numbers_report(quantised: ir.Model) -> dict[str, Any]:
    """Return the types that float32 stands for, how many linears have integers kept, made anew or made, and experts."""
    experts = [node.metadata_props[EXPERTS_KEY] for node in quantised.graph if EXPERTS_KEY in node.metadata_props]
    notes = [node.metadata_props[CODES_KEY] for node in quantised.graph if CODES_KEY in node.metadata_props]
    return {
        "computed_in_float32": quantised.metadata_props.get(NARROWED_KEY, ""),
        "weights": dict(Counter(notes)),
        "experts": dict(Counter(experts)),
    }


def number_facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return these as facts; nothing of a float32 model whose weights flexc quantises itself."""
    weights, facts = numbers["weights"], []
    if numbers["computed_in_float32"]:
        facts.append(("precision", f"{numbers['computed_in_float32']} of the model is computed in float32"))
    if weights.get("kept") or weights.get("requantised"):
        text = f"{weights.get('kept', 0)} of {sum(weights.values())} linears keep the integers of the file"
        if weights.get("requantised"):
            text += f"; {weights['requantised']} were quantised in a way the array has not, and anew to INT8"
        facts.append(("quantised", text))
    for number, products in numbers["experts"].items():
        text = f"every row goes through all {number} experts ({products} products), and routing picks the results"
        facts.append(("experts", f"{text}: time does not depend on it"))
    return facts
