"""The page of operators follows the declarations, and every rule has a sentence for the user."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flexc.frontend.operators import OPERATORS
from flexc.frontend.rewrite.table import EARLY, RULES
from flexc.frontend.supported import entries, page, rewritten, sentence


def test_the_page_is_current(golden: Callable[[str, str], None]) -> None:
    golden("docs/supported-ops.md", page())


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_native_operator_says_its_rule(name: str) -> None:
    assert sentence(OPERATORS[name].rule)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rewriting_rule_says_what_becomes_of_a_node(name: str) -> None:
    assert all(sentence(rule) for rule in RULES[name])


def test_both_tables_are_complete() -> None:
    assert [each.op_type for each in entries()] == sorted(OPERATORS)
    assert [name for name, _ in rewritten()] == sorted({*EARLY, *RULES})
