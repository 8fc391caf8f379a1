"""What a report says of numbers: integers that came with the model, and the precision that others are computed in."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import onnx_ir as ir

from flexc.expert_words import capacity_facts
from flexc.frontend.codes import CODES_KEY, VIEWS
from flexc.frontend.experts import EXPERTS_KEY
from flexc.frontend.precision import NARROWED_KEY
from flexc.frontend.routing import ROUTING_KEY
from flexc.frontend.wide import WIDE_KEY
from flexc.tables import counted


def numbers_report(quantised: ir.Model) -> dict[str, Any]:
    """Return the types that float32 stands for, how many linears have integers kept, made anew or made, and experts."""
    experts = [node.metadata_props[EXPERTS_KEY] for node in quantised.graph if EXPERTS_KEY in node.metadata_props]
    noted = [node for node in quantised.graph if CODES_KEY in node.metadata_props]
    notes = [node.metadata_props[CODES_KEY] for node in noted if node.op_type not in VIEWS]  # written around the others
    return {
        "computed_in_float32": quantised.metadata_props.get(NARROWED_KEY, ""),
        "values_of_16_bits": sum(WIDE_KEY in node.metadata_props for node in quantised.graph),
        "weights": dict(Counter(notes)),
        "experts": dict(Counter(experts)),
        "routing": json.loads(quantised.metadata_props.get(ROUTING_KEY, "{}")),
    }


def number_facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return these as facts; nothing of a float32 model whose weights flexc quantises itself."""
    weights, facts = numbers["weights"], []
    if numbers["computed_in_float32"]:
        facts.append(("precision", f"{numbers['computed_in_float32']} of the model is computed in float32"))
    if any(weights.get(each) for each in ("kept", "requantised", "dequantised")):
        facts.append(("quantised", "; ".join(_origins(weights))))
    if wide := numbers["values_of_16_bits"]:
        text = f"{wide} {'value has' if wide == 1 else 'values have'} codes of 16 bits, held exactly in float32"
        facts.append(("16 bits", f"{text}; what the array reads of them is quantised anew to INT8"))
    for number, products in numbers["experts"].items():
        many = counted(products, "product")
        text = f"every row goes through all {number} experts ({many}), and routing picks the results"
        facts.append(("experts", f"{text}: time does not depend on it"))
    return facts + capacity_facts(numbers["routing"])


def _origins(weights: dict[str, int]) -> list[str]:
    """Return what became of the integers that came with the model."""
    linears = {note: count for note, count in weights.items() if note != "dequantised"}
    anew, tables = weights.get("requantised", 0), weights.get("dequantised", 0)
    parts = []
    if linears.get("kept") or anew:
        parts.append(f"{linears.get('kept', 0)} of {sum(linears.values())} linears keep the integers of the file")
    if anew:
        parts.append(f"{anew} {_were(anew)} quantised in a way the array has not, and anew to INT8")
    if tables:
        parts.append(f"{counted(tables, 'table')} {_were(tables)} dequantised")
    return parts


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
