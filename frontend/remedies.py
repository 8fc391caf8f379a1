"""What a user can do about an operator whose result has a size that is known at run time only."""

from __future__ import annotations

_MASKS = "keep all elements and use the mask itself (Where, or a product with it) instead of picking what it chooses"
_SIZES = "its size is computed from data: make that a constant, or bind the dims it comes from with --shape or --dim"

#: Operator -> remedy; all others have the general one.
_REMEDIES: dict[str, str] = {
    "NonMaxSuppression": "export the detector without its post-processing, and run that on the outputs",
    **dict.fromkeys(("Compress", "NonZero"), _MASKS),
    "Unique": "export the model without it, and find distinct values outside",
    **dict.fromkeys(
        ("CenterCropPad", "ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Reshape", "Resize", "Slice", "Split",
         "Tile", "TopK", "Upsample"),
        _SIZES,
    ),
    "Loop": "let it run a constant number of times, and end by nothing else",
    "If": "its branches have other shapes: make the condition a constant, or export the branch that is taken",
    **dict.fromkeys(("StringSplit", "StringNormalizer", "ImageDecoder"), "prepare its result outside the model"),
}  # fmt: skip
_GENERAL = "export the model without this operator"


def domain_remedy(domain: str) -> str:
    """Return what to do about an operator of a domain that flexc does not know."""
    if domain == "com.microsoft.nchwc":
        return (
            "it lays images out for one processor: optimise with ORT_ENABLE_EXTENDED at most, or give the file before"
        )
    return "export the model with standard ONNX operators only"


def static_remedy(op_type: str) -> str:
    """Return what to do where the result of an operator has no static shape."""
    return f"flexc compiles static shapes: {_REMEDIES.get(op_type, _GENERAL)}"
