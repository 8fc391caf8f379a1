"""What the user may choose about pruning, as values; and what contradicts itself."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from flexc.budget_words import Amount, parse_budget
from flexc.isa.errors import FlexcError, UsageError, did_you_mean, raise_all
from flexc.passes.feeds import Feeds
from flexc.passes.methods import DEFAULT_M, HYPER_M, METHODS, SAMPLES, Method, find_method
from flexc.passes.pattern import BLOCKS, NM

if TYPE_CHECKING:
    import os

Calibration: TypeAlias = "str | os.PathLike[str] | Mapping[str, Path | str] | Feeds"
"""Calibration data: one file, a file for each input, or windows made by hand."""

UPDATES, METRICS, EFFORTS = ("none", "sparsegpt", "cg", "admm"), ("auto", "kl", "output"), ("quick", "full")
PERMUTES = ("none", "free")


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """How to prune.

    Attributes:
        prune: a pruning method by name; None: ``keep`` where a weight has a pattern, else ``none``.
        nm: one pattern for all linears.
        sparsity: share of zeros over all linears open to pruning.
        budget: cycles, energy or stored bits that the whole program may take.
        m_set: block lengths to choose from.
        update: what becomes of the weights that stay; None: what the method does by itself.
        calib: calibration data; without, methods that want some look at random inputs.
        samples: how many windows of these to use at most.
        metric: how the divergence of outputs is measured.
        effort: how long to search.
        hyper_m: times the mean from which on a metric counts as an outlier.
        permute: ``free``: channels are put in an order that loses less, wherever constants alone take it up; None: what
            the method does by itself.
        selection: file with patterns, instead of choosing any.
        include_tied: prune a head tied to the embedding, too.
        state: file that an interrupted selection leaves and goes on from.
    """

    prune: str | None = None
    nm: NM | None = None
    sparsity: float | None = None
    budget: Amount | None = None
    m_set: tuple[int, ...] = DEFAULT_M
    update: str | None = None
    calib: Calibration | None = None
    samples: int = SAMPLES
    metric: str = "auto"
    effort: str = "quick"
    hyper_m: float = HYPER_M
    permute: str | None = None
    selection: str | Path | None = None
    include_tied: bool = False
    state: Path | None = None


def prune_words(arguments: Namespace) -> dict[str, Any]:
    """Return the fields of :class:`PruneOptions` that the words on the command line give.

    Raises:
        UsageError: a pattern, a budget or a list of block lengths that is not one: all of them at once.
    """
    problems: list[FlexcError] = []
    fields: dict[str, Any] = {
        "prune": arguments.prune,
        "sparsity": arguments.sparsity,
        "update": arguments.update,
        "calib": arguments.calib,
        "samples": arguments.samples,
        "metric": arguments.metric,
        "effort": arguments.effort,
        "permute": arguments.permute,
        "selection": arguments.selection,
        "include_tied": arguments.prune_tied,
    }
    if arguments.hyper_m is not None:
        fields["hyper_m"] = arguments.hyper_m
    for name, parse, text in (
        ("nm", NM.parse, arguments.nm),
        ("budget", parse_budget, arguments.budget),
        ("m_set", parse_m_set, arguments.m_set),
    ):
        if text is None:
            continue
        try:
            fields[name] = parse(text)
        except UsageError as error:
            where = f"--{name.replace('_', '-')} {text}"
            problems.append(UsageError(error.message, where=where, remedy=error.remedy))
    raise_all(problems)
    return fields


def parse_m_set(text: str) -> tuple[int, ...]:
    """Read ``4,8,16``.

    Raises:
        UsageError: something else, or a block length that no pattern may have.
    """
    parts = [part.strip() for part in text.split(",")]
    raise_all([_no_block(part) for part in parts if not part.isdecimal() or int(part) not in BLOCKS])
    return tuple(sorted({int(part) for part in parts}))


def _no_block(given: object) -> UsageError:
    return UsageError(f"'{given}' is no block length", remedy=f"choose among {', '.join(map(str, BLOCKS))}")


def check_prune_usage(options: PruneOptions, flag: str = "--prune") -> None:
    """Refuse options that ask for something no input could satisfy; `flag` is what the method's own option is called.

    Raises:
        UsageError: an unknown name; an amount that is missing, or given twice, or that the method does not take.
    """
    method = find_method(options.prune) if options.prune else None
    given = [name for name in ("nm", "sparsity", "budget") if getattr(options, name) is not None]
    problems: list[FlexcError] = list(_unknown_words(options))
    problems += _wrong_amounts(method, flag, given, chosen=options.selection is not None)
    if options.sparsity is not None and not 0 <= options.sparsity < 1:
        remedy = "0.5 prunes half"
        problems.append(UsageError(f"--sparsity {options.sparsity:g}: a share from 0 to below 1", remedy=remedy))
    if options.samples < 1:
        problems.append(UsageError(f"--samples {options.samples}: at least one calibration window is needed"))
    if not options.hyper_m > 0:
        problems.append(UsageError(f"--hyper-m {options.hyper_m:g}: it must be above 0"))
    problems += [_no_block(m) for m in options.m_set if m not in BLOCKS]
    raise_all([*problems, *_unheeded(method, flag, options)])


def _unknown_words(options: PruneOptions) -> list[UsageError]:
    problems = []
    for flag, word, known in (
        ("update", options.update or "none", UPDATES),
        ("metric", options.metric, METRICS),
        ("effort", options.effort, EFFORTS),
        ("permute", options.permute or "none", PERMUTES),
    ):
        if word not in known:
            remedy = did_you_mean(word, known) or f"one of {', '.join(known)}"
            problems.append(UsageError(f"--{flag} {word}: no such choice", remedy=remedy))
    return problems


def _wrong_amounts(method: Method | None, flag: str, given: list[str], *, chosen: bool) -> list[UsageError]:
    """Say what is wrong with what says how much to prune; `chosen`: a file holds the patterns."""
    if method is None:
        able = ", ".join(each.name for each in METHODS.values() if given and given[0] in each.takes)
        return [UsageError(f"--{given[0]} says how to prune, but not by which method", remedy=able)] if given else []
    problems = []
    for name in given:
        if name not in method.takes:
            able = ", ".join(each.name for each in METHODS.values() if name in each.takes)
            problems.append(UsageError(f"{flag} {method.name} takes no --{name}", remedy=f"these do: {able}"))
    if not problems and len(given) + chosen > 1:
        listed = " and ".join(f"--{name}" for name in [*given, *(["selection"] if chosen else [])])
        problems.append(UsageError(f"{listed} exclude each other", remedy="give one of them"))
    if not given and not chosen and method.amounts:
        examples = " or ".join(_EXAMPLES[name] for name in method.amounts)
        what = "a pattern" if method.amounts[0] == "nm" else "a sparsity or a budget"
        problems.append(UsageError(f"{flag} {method.name} needs {what}", remedy=f"give one, for instance {examples}"))
    return problems


def _unheeded(method: Method | None, flag: str, options: PruneOptions) -> list[UsageError]:
    """Say which options would change nothing; of data for a method that looks at none there is only a warning."""
    unsaid = PruneOptions()
    given = [name for name in _WORDS if getattr(options, name) not in (getattr(unsaid, name), "none")]
    problems = []
    for name in given:
        able = ", ".join(each.name for each in METHODS.values() if each.heeds(name))
        if method is None:
            problems.append(UsageError(f"{_WORDS[name]} says how to prune, but not by which method", remedy=able))
        elif not method.heeds(name) and name not in ("calib", "samples"):
            problems.append(UsageError(f"{flag} {method.name} takes no {_WORDS[name]}", remedy=f"these do: {able}"))
    if options.selection is not None:
        for word in (_WORDS[name] for name in ("m_set", "metric", "effort", "hyper_m") if name in given):
            text = f"{word} changes nothing: --selection holds the patterns"
            problems.append(UsageError(text, remedy="leave it out, or let the method choose"))
    if "m_set" in given and options.nm is not None:
        problems.append(UsageError("--nm and --m-set exclude each other", remedy="give one of them"))
    return problems


_WORDS = {
    "m_set": "--m-set",
    "update": "--update",
    "calib": "--calib",
    "samples": "--samples",
    "metric": "--metric",
    "effort": "--effort",
    "permute": "--permute",
    "hyper_m": "--hyper-m",
    "selection": "--selection",
    "include_tied": "--prune-tied",
}
"""The options that say how to prune, besides those that say how much, and what they are called."""

_EXAMPLES = {"nm": "--nm 4:8", "sparsity": "--sparsity 0.6", "budget": "--budget cycles=x0.8"}
