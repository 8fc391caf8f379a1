"""Frozen dataclasses to JSON values and back, every type checked: how tensors, segments and debug data are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import FlexcError, did_you_mean

Record = TypeVar("Record")

#: Whole numbers beyond this are refused: no shape, address or instruction number needs them.
LIMIT = 2**62
#: JSON text with more values is not read: each takes far more memory than text.
MOST_VALUES = 1 << 20


def dump(value: object) -> bytes:
    """Return the JSON text of a value: one form for one value, ASCII, no blanks."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def values_in(text: bytes) -> int:
    """Return about how many values a JSON text has: at least as many as it has."""
    return text.count(b",") + text.count(b"[") + text.count(b"{") + 1


def parse(text: bytes, where: str) -> object:
    """Return the value of JSON text, or raise FlexcError."""
    values = values_in(text)
    if values > MOST_VALUES:
        raise FlexcError(f"holds about {values} values; at most {MOST_VALUES} are read", where=where)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FlexcError(f"is not valid JSON: {error}", where=where) from None


def to_record(value: object) -> Any:
    """Return the JSON value of a record (a dataclass): a dict without the fields that have their default value.

    Fields of type ``bytes`` are left out: they are stored elsewhere.
    """
    if is_dataclass(value):
        return {
            each.name: to_record(getattr(value, each.name))
            for each in fields(value)
            if not isinstance(getattr(value, each.name), bytes) and getattr(value, each.name) != _default(each)
        }
    if isinstance(value, Mapping):
        return {str(key): to_record(each) for key, each in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [to_record(each) for each in value]
    return value


def from_record(cls: type[Record], data: object, where: str, **elsewhere: bytes) -> Record:
    """Return the dataclass that a JSON value describes; fields of type ``bytes`` come from ``elsewhere``.

    Raises:
        FlexcError: a field is missing, unknown or of the wrong type; ``where`` and the field's path stand before it.
    """
    if not isinstance(data, dict):
        raise FlexcError(f"is {_kind(data)} where {cls.__name__} belongs", where=where)
    hints, known = _shape(cls)
    unknown = [key for key in data if key not in known]
    if unknown:
        raise FlexcError(f"unknown field {unknown[0]!r}", where=where, remedy=did_you_mean(unknown[0], list(known)))
    missing = [name for name, each in known.items() if name not in data and _default(each) is MISSING]
    if missing:
        raise FlexcError(f"field {missing[0]!r} is missing", where=where)
    return cls(**{name: _value(hints[name], data[name], f"{where}.{name}") for name in data}, **elsewhere)


def records(cls: type[Record], data: object, where: str) -> tuple[Record, ...]:
    """Return the dataclasses that a JSON list describes, or raise FlexcError."""
    if not isinstance(data, list):
        raise FlexcError(f"is {_kind(data)} where a list belongs", where=where)
    return tuple(from_record(cls, each, f"{where}[{place}]") for place, each in enumerate(data))


def table(data: object, where: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return a JSON object that has exactly these keys, or raise FlexcError."""
    if not isinstance(data, dict) or set(data) != set(keys):
        raise FlexcError(f"is not an object with exactly {', '.join(keys)}", where=where)
    return data


def texts(data: object, where: str) -> dict[str, str]:
    """Return a JSON object whose values are all text, or raise FlexcError."""
    if not isinstance(data, dict) or not all(isinstance(each, str) for each in data.values()):
        raise FlexcError("is not an object of texts", where=where)
    return data


def whole(data: object, where: str) -> int:
    """Return a whole number, or raise FlexcError."""
    if isinstance(data, bool) or not isinstance(data, int) or not -LIMIT <= data <= LIMIT:
        raise FlexcError(f"is {_kind(data)} where a whole number belongs", where=where)
    return data


_SHAPES: dict[type[Any], tuple[dict[str, Any], dict[str, Field[Any]]]] = {}


def _shape(cls: type[Any]) -> tuple[dict[str, Any], dict[str, Field[Any]]]:
    """Return the types and the fields of a dataclass, worked out once."""
    if cls not in _SHAPES:
        hints = get_type_hints(cls)
        _SHAPES[cls] = hints, {each.name: each for each in fields(cls) if hints[each.name] is not bytes}
    return _SHAPES[cls]


def _default(each: Field[Any]) -> object:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _value(hint: Any, data: object, where: str) -> object:
    if hint is int:
        return whole(data, where)
    if hint is str:
        if not isinstance(data, str):
            raise FlexcError(f"is {_kind(data)} where text belongs", where=where)
        return data
    if is_dataclass(hint) and isinstance(hint, type):
        return from_record(hint, data, where)
    if get_origin(hint) is tuple and isinstance(data, list):
        return tuple(_value(get_args(hint)[0], each, f"{where}[{place}]") for place, each in enumerate(data))
    if get_origin(hint) is Mapping and isinstance(data, dict):
        return _mapping(data, where)
    raise FlexcError(f"is {_kind(data)}, which does not belong there", where=where)


def _mapping(data: dict[str, object], where: str) -> Mapping[int, str]:
    found = {}
    for key, text in data.items():
        if not (key.isascii() and key.isdigit() and len(key) < 16) or not isinstance(text, str):
            raise FlexcError(f"{key!r} is no number with a text", where=where)
        found[int(key)] = text
    return dict(sorted(found.items()))


def _kind(data: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "a truth value"}
    return names.get(type(data), "nothing")
