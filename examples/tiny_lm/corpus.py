"""The training text: the documentation strings of the running Python's own standard library.

Every document is one documented object, written the way a reader of ``help()`` would expect it::

    function json.dumps(obj, *, skipkeys=False, ensure_ascii=True, ...)
    Serialize ``obj`` to a JSON formatted ``str``.

Pure Python modules are read with :mod:`ast`, so nothing of them is imported or executed; only the modules
written in C are imported, since their documentation lives nowhere else.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import tokenize
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

LONGEST_SIGNATURE = 160
"""Characters of a signature that are kept; longer ones become ``(...)``."""

SKIPPED_PACKAGES = frozenset({"site-packages", "dist-packages", "pydoc_data", "test", "tests", "idle_test"})

_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def gather() -> list[str]:
    """Return every distinct document of the standard library, in a fixed order."""
    documents: dict[str, None] = {}
    for document in (*_topics(), *_c_modules(), *_python_modules()):
        cleaned = clean(document)
        if len(cleaned) > 40:
            documents.setdefault(cleaned)
    return _without_repeated_bodies(list(documents))


def split(documents: list[str], share: int = 40) -> tuple[list[str], list[str]]:
    """Split into (training, held out); one document in ``share`` is held out, chosen by its hash."""
    held_out = [int(hashlib.sha256(text.encode()).hexdigest(), 16) % share == 0 for text in documents]
    train = [text for text, held in zip(documents, held_out, strict=True) if not held]
    return train, [text for text, held in zip(documents, held_out, strict=True) if held]


def clean(text: str) -> str:
    """Return ``text`` as plain ASCII without trailing blanks, long rules or runs of empty lines."""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = re.sub(r"[^\n -~]", " ", text.expandtabs(4))
    text = re.sub(r"([^\w\s.])\1{7,}", r"\1\1\1\1", text)
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _without_repeated_bodies(documents: list[str]) -> list[str]:
    """Keep the first of several documents that differ only in their first line (inherited docstrings)."""
    first: dict[str, str] = {}
    for document in documents:
        first.setdefault(document.partition("\n")[2], document)
    return list(first.values())


def _topics() -> Iterator[str]:
    """Yield the sections of the language reference that ``help('TOPIC')`` shows, with names made plain."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(topics):
        yield f"topic {name}\n{topics[name]}"


def _python_modules() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED_PACKAGES.isdisjoint(parts):
            module = ".".join(part for part in parts if part != "__init__")
            yield from _from_source(path, module)


def _from_source(path: Path, module: str) -> Iterator[str]:
    """Yield the documents of one source file; a file that no parser accepts (a test's bad input) gives none."""
    try:
        with tokenize.open(path) as source:
            tree = ast.parse(source.read())
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    if doc := ast.get_docstring(tree):
        yield f"module {module}\n{doc}"
    yield from _from_body(tree, module)


def _from_body(parent: ast.Module | _Documented, prefix: str) -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, _Documented):
            name = f"{prefix}.{node.name}"
            if doc := ast.get_docstring(node):
                yield f"{_heading(node, isinstance(parent, ast.ClassDef), name)}\n{doc}"
            yield from _from_body(node, name)


def _heading(node: _Documented, is_method: bool, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {name}({bases})" if bases else f"class {name}"
    signature = f"({ast.unparse(node.args)})"
    kind = "method" if is_method else "function"
    return f"{kind} {name}{signature if len(signature) <= LONGEST_SIGNATURE else '(...)'}"


def _c_modules() -> Iterator[str]:
    for name in sorted(sys.stdlib_module_names):
        spec = importlib.util.find_spec(name)
        if spec is not None and not str(spec.origin).endswith((".py", ".pyc")) and name != "_tkinter":
            yield from _from_c_module(importlib.import_module(name), name.lstrip("_"))


def _from_c_module(module: ModuleType, name: str) -> Iterator[str]:
    yield from _with_doc(f"module {name}", module)
    for key, value in sorted(vars(module).items()):
        if inspect.isclass(value):
            yield from _from_c_class(value, f"{name}.{key}")
        elif inspect.isbuiltin(value):
            yield from _with_doc(f"function {name}.{key}{_signature(value)}", value)


def _from_c_class(cls: type, name: str) -> Iterator[str]:
    yield from _with_doc(f"class {name}{_signature(cls)}", cls)
    for key, value in sorted(vars(cls).items()):
        if inspect.isroutine(value):
            yield from _with_doc(f"method {name}.{key}{_signature(value)}", value)


def _with_doc(heading: str, value: object) -> Iterator[str]:
    doc = getattr(value, "__doc__", None)
    if isinstance(doc, str):
        yield f"{heading}\n{inspect.cleandoc(doc)}"


def _signature(value: Callable[..., object]) -> str:
    """Return the call signature, or nothing where the C function has none to tell."""
    try:
        text = re.sub(" at 0x[0-9a-f]+", "", str(inspect.signature(value)))  # an address differs from run to run
    except (ValueError, TypeError, AttributeError):
        return ""
    return text if len(text) <= LONGEST_SIGNATURE else "(...)"
