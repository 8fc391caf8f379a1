"""Arguments of the Python API against their declared types: a wrong one is refused where it is given.

The types, and what messages say of an argument, are read from the signatures and docstrings: nothing is declared twice.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union

import numpy as np
import numpy.typing as npt

from flexc.isa.errors import FlexcError, UsageError, did_you_mean, raise_all

Given = ParamSpec("Given")
Result = TypeVar("Result")
_LONGEST = 60  # characters of a value that messages show
_TEXTS = (str, bytes, bytearray)
_NUMBERS: dict[type, tuple[type, ...]] = {int: (Integral,), float: (Real,), bool: (bool, np.bool_)}
_WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("text", "names"),
    type(None): ("None", "None"),
    Path: ("a path", "paths"),
    os.PathLike: ("a path", "paths"),
    npt.ArrayLike: ("an array", "arrays"),
}
"""What messages call a type, one of it and many."""


def typed(public: str, *more: Any) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Let a function refuse arguments of other types than its annotations say.

    Args:
        public: what users call it.
        more: functions or dataclasses that declare what may be among its ``**`` arguments.
    """

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            given = dict(signature.bind(*args, **kwargs).arguments)
            extra = next((name for name, each in signature.parameters.items() if each.kind is each.VAR_KEYWORD), None)
            given |= given.pop(extra, {}) if extra else {}
            given.pop("self", None)
            _refuse(public, given, (function, *more))
            return function(*args, **kwargs)

        return checked

    return decorate


def _refuse(public: str, given: Mapping[str, Any], declared: Sequence[Any]) -> None:
    """Refuse arguments that nothing declares, or of other types, all at once; what comes first declares first.

    Raises:
        UsageError: all of them.
    """
    hints: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for each in reversed(declared):
        hints |= _hints(each)
        texts |= _described(each)
    problems: list[FlexcError] = []
    for name, value in given.items():
        if name not in hints:
            remedy = did_you_mean(name, list(hints))
            problems.append(UsageError(f"there is no argument '{name}'", where=public, remedy=remedy))
        elif not _fits(value, hints[name]):
            message = f"{name}={_shown(value)}: it must be {_words(hints[name])}"
            problems.append(UsageError(message, where=public, remedy=texts.get(name, "")))
    raise_all(problems)


@functools.cache
def _hints(declared: Any) -> dict[str, Any]:
    """Return the types of a function's parameters or a dataclass's fields, names that only checkers import included."""
    import onnx
    import onnx_ir as ir

    names: dict[str, Any] = {"os": os, "onnx": onnx, "ir": ir}
    inner = inspect.unwrap(declared)
    written = {name: text for name, text in inspect.get_annotations(inner).items() if name != "return"}
    for name in sorted(set(re.findall(r"\w+", " ".join(map(str, written.values()))))):
        home = _home(name)
        if home is not None:
            holder = types.SimpleNamespace(__annotations__={name: home[name]})
            names |= typing.get_type_hints(holder, home, dict(names))
    if isinstance(inner, type):  # a dataclass: fields of its bases, too
        return typing.get_type_hints(inner, localns=names)
    return typing.get_type_hints(types.SimpleNamespace(__annotations__=written), inner.__globals__, names)


def _home(alias: str) -> dict[str, Any] | None:
    """Return the names of the module that declares a type alias, as text; None where none does."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("flexc.") and vars(module).get("__annotations__", {}).get(alias) == "TypeAlias":
            return vars(module) if isinstance(vars(module).get(alias), str) else None
    return None


@functools.cache
def _described(declared: Any) -> dict[str, str]:
    """Return what the docstring says of every argument or attribute."""
    text = inspect.getdoc(declared) or ""
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: _plain(words) for name, words in found}


def _plain(text: str) -> str:
    """Return a docstring's words without markup."""
    return re.sub(r":\w+:`~?([\w.]+)`", r"\1", " ".join(text.split())).replace("``", "")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type; types that this does not know fit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if hint in _NUMBERS:
        return isinstance(value, _NUMBERS[hint]) and (hint is bool or not isinstance(value, bool))
    if origin is Mapping or (origin is not None and issubclass(origin, Mapping)):
        pairs = value.items() if isinstance(value, Mapping) else ()
        return isinstance(value, Mapping) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in pairs)
    if origin in (Sequence, tuple, list):
        listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, _TEXTS)
        return listed and all(_fits(each, inner[0]) for each in value)
    known = origin or hint
    return isinstance(value, known) if isinstance(known, type) and _is_checkable(known) else True


def _is_checkable(known: type) -> bool:
    return not getattr(known, "_is_protocol", False) or getattr(known, "_is_runtime_protocol", False)


def _words(hint: Any, *, many: bool = False) -> str:
    """Return a type as messages name it, one or many of it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint][many]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(each, many=many) for each in inner))
    if origin is not None and issubclass(origin, Mapping):
        pair = f"{_words(inner[0], many=True)} to {_words(inner[1], many=True)}"
        return f"mappings of {pair}" if many else f"a mapping of {pair}"
    if origin in (Sequence, tuple, list):
        return f"{'lists' if many else 'a list'} of {_words(inner[0], many=True)}"
    known = origin or hint
    if known in _WORDS:
        return _WORDS[known][many]
    return f"{known.__module__.partition('.')[0]}.{known.__name__}" if isinstance(known, type) else "data"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def array_of(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return data of an input as an array.

    Raises:
        UsageError: lists of different lengths.
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        remedy = "give an array, or lists of equal lengths"
        raise UsageError(
            f"{_shown(value)} is no array: its rows differ", where=f"input '{name}'", remedy=remedy
        ) from error
