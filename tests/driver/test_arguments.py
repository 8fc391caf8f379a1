"""Wrong arguments of the Python API are refused where they are given, in words; what is declared is what is checked."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flexc
from flexc.api import compile_model
from flexc.argument_types import _described, _hints
from flexc.checker import CheckOptions
from flexc.isa.errors import FlexcError, UsageError
from flexc.prune_options import PruneOptions

from .conftest import mlp_proto

MODEL = mlp_proto()
X = np.zeros((1, 3, 37), np.float32)


@pytest.fixture(scope="module")
def program() -> flexc.Program:
    return flexc.compile(MODEL)


@pytest.fixture(scope="module")
def session() -> flexc.Session:
    return flexc.Session(MODEL)


#: Arguments of flexc.compile, and what the refusal says.
COMPILE: list[tuple[dict[str, Any], str]] = [
    ({"path_or_model": None}, "path_or_model=None: it must be text or a path or onnx.ModelProto"),
    ({"target": 5}, "target=5: it must be text or a path or flexc.Machine"),
    ({"prune": 7}, "prune=7: it must be text or None"),
    ({"prune": "wanda", "nm": 4}, "nm=4: it must be text or flexc.NM or None"),
    ({"calib": 5}, "calib=5: it must be text or a path or a mapping of names"),
    ({"shapes": {"x": "1x3x37"}}, "shapes={'x': '1x3x37'}: it must be a mapping of names to lists of whole numbers"),
    ({"dims": {"n": 2.5}}, "dims={'n': 2.5}: it must be a mapping of names to whole numbers"),
    ({"cache": True}, "cache=True: it must be a whole number or None"),
    ({"pins": "relu=host"}, "pins='relu=host': it must be a list of names"),
    ({"keep_reference": "no"}, "keep_reference='no': it must be True or False"),
    ({"prune": "flow", "sparsity": "0.5"}, "sparsity='0.5': it must be a number or None"),
    ({"prune": "flow", "sparsity": 0.5, "m_set": "4,8"}, "m_set='4,8': it must be a list of whole numbers"),
    ({"prune": "flow", "sparsity": 0.5, "m_set": [4, 5]}, "'5' is no block length"),
    ({"sparsty": 0.5}, "there is no argument 'sparsty'"),
]


@pytest.mark.parametrize(("given", "text"), COMPILE)
def test_compile(given: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as raised:
        flexc.compile(**{"path_or_model": MODEL, **given})
    assert text in str(raised.value)


def test_all_at_once_with_what_the_docstring_says() -> None:
    wrong: dict[str, Any] = {"dims": 3, "budget": 4, "sparsty": 0.5}
    with pytest.raises(FlexcError) as raised:
        flexc.compile(MODEL, **wrong)
    text = str(raised.value)
    assert "dims=3" in text
    assert 'help: numbers for the symbols of dynamic dims, such as {"seq": 128}.' in text
    assert "budget=4" in text
    assert "did you mean 'sparsity'?" in text


def test_other_kinds_of_numbers_and_lists_are_fine() -> None:
    given: dict[str, Any] = {"shapes": {"x": np.array([1, 3, 37])}, "sparsity": np.float64(0.5)}
    program = flexc.compile(MODEL, "edge", prune="magnitude", **given)
    assert program.image.meta["prune"] == "magnitude"


API: Any = flexc
CALLS: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda p, _: p.run([X]), "Program.run: feeds=[array"),
    (lambda p, _: p.run({"x": None}), "it must be a mapping of names to arrays"),
    (lambda p, _: p.run({"x": [[1, 2], [3]]}), "input 'x': [[1, 2], [3]] is no array: its rows differ"),
    (lambda p, _: p.check({"x": X}, window=2), "there is no argument 'window'"),
    (lambda p, _: p.check({"x": X}, windows="2"), "windows='2': it must be a whole number"),
    (lambda p, _: p.save(3), "path=3: it must be text or a path"),
    (lambda _, s: s.run("y", {"x": X}), "Session.run: output_names='y': it must be a list of names or None"),
    (lambda _, s: s.run(None, [X]), "input_feed=[array"),
    (lambda _, s: s.run(None, {"x": [[1], [2, 3]]}), "is no array: its rows differ"),
    (lambda _, s: s.generate([1], "3"), "max_new_tokens='3': it must be a whole number"),
    (lambda *_: API.Session(3), "flexc.Session: model=3"),
    (lambda *_: API.Session(MODEL, cache="8"), "cache='8': it must be a whole number or None"),
    (lambda *_: API.Session(MODEL, sparsty=1), "there is no argument 'sparsty'"),
    (lambda *_: API.load(None), "flexc.load: path=None: it must be text or a path"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), CALLS)
def test_programs_and_sessions(
    call: Callable[[Any, Any], Any], text: str, program: flexc.Program, session: flexc.Session
) -> None:
    with pytest.raises(UsageError) as raised:
        call(program, session)
    assert text in str(raised.value)


@pytest.mark.parametrize("declared", [PruneOptions, CheckOptions])
def test_every_field_has_a_type_and_words(declared: type) -> None:
    names = {field.name for field in dataclasses.fields(declared)}
    assert set(_hints(declared)) == names <= set(_described(declared))


def test_every_argument_of_compile_has_a_type_and_words() -> None:
    names = set(inspect.signature(compile_model).parameters)
    assert set(_hints(compile_model)) == names <= set(_described(compile_model))
