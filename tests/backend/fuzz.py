"""Random graphs through compiler and emulator, by hand: ``python -m tests.backend.fuzz 0 1000 [makers]``."""

from __future__ import annotations

import sys
import traceback
from collections import Counter

import onnx

from flexc.isa.errors import FlexcError
from tests.backend.array_makers import ARRAY, OTHERS
from tests.backend.compare import assert_same, machine_of
from tests.backend.graphs import Draft, Maker, random_draft
from tests.backend.move_makers import MOVEMENT
from tests.backend.row_makers import ROWS, arithmetic, exact_function

KINDS: dict[str, tuple[Maker, ...]] = {
    "movement": MOVEMENT,
    "rows": (*ROWS, *MOVEMENT),
    "array": (*ARRAY, *ARRAY, *MOVEMENT, exact_function, arithmetic),
    "everything": (*MOVEMENT, *ROWS, *ROWS, *ARRAY, *ARRAY, *OTHERS),
}


def try_seed(seed: int, kind: str) -> Draft:
    """Make the graph of a seed, run it on the machine of that seed and compare."""
    draft = random_draft(seed, KINDS[kind], nodes=3 + seed % 12)
    model = draft.model()
    exact = {each.name: each.exact for each in draft.values}
    try:
        assert_same(model, machine_of(seed // 3), draft.feeds(1 + seed % 2), exact)
    except FlexcError as error:  # a linear that is too long for one of the small buffers
        if "does not fit machine" not in str(error):
            raise
    return draft


def main(arguments: list[str]) -> None:
    """Try the seeds of a range; print what fails and how often."""
    first, last = int(arguments[0]), int(arguments[1])
    failures: Counter[str] = Counter()
    for seed in range(first, last):
        for kind in arguments[2:] or KINDS:
            try:
                try_seed(seed, kind)
            except (
                ArithmeticError,
                AssertionError,
                AttributeError,
                FlexcError,
                LookupError,
                TypeError,
                ValueError,
            ) as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = " ".join(str(error).split())[:150]
                failures[f"{type(error).__name__} {where.name}"] += 1
                print(seed, kind, type(error).__name__, where.filename.rsplit("/", 1)[-1], where.lineno, text)
    print(sum(failures.values()), "failures", dict(failures))


def save(seed: int, kind: str, path: str) -> None:
    """Write the graph of a seed to a file, to look at it."""
    onnx.save(random_draft(seed, KINDS[kind], nodes=3 + seed % 12).model(), path)


if __name__ == "__main__":
    main(sys.argv[1:])
