"""The words that say how to prune: declared once, for every command that can."""

from __future__ import annotations

import argparse

from flexc.passes.methods import DEFAULT_M, HYPER_M, METHODS, SAMPLES


def add_prune_arguments(parser: argparse.ArgumentParser, flag: str, default: str | None) -> None:
    """Declare the options of pruning; `flag` is what the method's own option is called here."""
    listed = "; ".join(f"{method.name}: {method.summary}" for method in METHODS.values())
    group = parser.add_argument_group("pruning", listed)
    unsaid = default or "keep a pattern that is there"
    group.add_argument(
        flag, metavar="METHOD", dest="prune", default=default, help=f"{', '.join(METHODS)} (default: {unsaid})"
    )
    group.add_argument("--sparsity", metavar="S", type=float, help="share of zeros over the linears, such as 0.6")
    group.add_argument("--nm", metavar="N:M", help="weights kept in each block, the same for every linear")
    group.add_argument(
        "--budget",
        metavar="WHAT=AMOUNT",
        help="cycles, energy or bits of a window on the target: cycles=12M, energy=3mJ, bits=x0.5 (of the dense model)",
    )
    group.add_argument("--m-set", metavar="M,M", help=f"block lengths to choose from (default: {_listed(DEFAULT_M)})")
    group.add_argument("--update", metavar="HOW", help="change the weights that stay: none, sparsegpt, cg or admm")
    group.add_argument(
        "--permute",
        metavar="HOW",
        help=f"order of channels: none, or free: one that loses less (default: {_permuting()})",
    )
    group.add_argument("--calib", metavar="FILE", help="calibration data: .npy (tokens, or inputs) or .npz by name")
    group.add_argument(
        "--samples", metavar="N", type=int, default=SAMPLES, help=f"calibration windows (default: {SAMPLES})"
    )
    group.add_argument("--metric", metavar="HOW", default="auto", help="divergence of outputs: kl or output (error)")
    group.add_argument("--effort", metavar="HOW", default="quick", help="quick, or full: search longer")
    group.add_argument(
        "--hyper-m", metavar="X", type=float, help=f"times the mean of an outlier (default: {HYPER_M:g})"
    )
    group.add_argument("--selection", metavar="FILE.json", help="take the patterns from this file")
    group.add_argument("--save-selection", metavar="FILE.json", help="write the patterns to this file")
    group.add_argument("--prune-tied", action="store_true", help="prune a head tied to the embedding, too")


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _permuting() -> str:
    named = ", ".join(method.name for method in METHODS.values() if method.permute == "free")
    return f"free with {named}, else none"
