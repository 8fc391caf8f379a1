"""flexc: a compiler and an emulator for FlexCiM, a sparse digital compute-in-memory macro.

``flexc.compile(model)`` returns a :class:`Program`; ``Program.run(feeds)`` returns a :class:`Result`. Nothing heavy is
loaded before one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexc.api import Program as Program
    from flexc.api import compile_model as compile
    from flexc.api import load as load
    from flexc.emulation import Result as Result
    from flexc.isa.errors import FlexcError as FlexcError
    from flexc.session import Session as Session

__all__ = ["FlexcError", "Program", "Result", "Session", "__version__", "compile", "load"]

_HOMES = {
    "FlexcError": ("flexc.isa.errors", "FlexcError"),
    "Program": ("flexc.api", "Program"),
    "Result": ("flexc.emulation", "Result"),
    "Session": ("flexc.session", "Session"),
    "compile": ("flexc.api", "compile_model"),
    "load": ("flexc.api", "load"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("flexc")
    if name not in _HOMES:
        raise AttributeError(f"module 'flexc' has no attribute '{name}'")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
