"""The shape of the house: what is packaged, who imports whom, and what stays unloaded until it is needed."""

from __future__ import annotations

import ast
import importlib.resources
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Left to right: a room knows the contract (isa) and the rooms before it, never those after it, and never the driver.
MAY_IMPORT = {
    "isa": set[str](),
    "emulator": {"isa"},
    "frontend": {"isa"},
    "passes": {"isa", "frontend"},
    "backend": {"isa", "frontend", "passes"},
}
STAGES = sorted(MAY_IMPORT)
DISTRIBUTION = {"onnx_ir": "onnx-ir"}  # import name -> distribution, where they differ
EXTRAS_ONLY = {"torch", "onnxscript"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources(*folders: str) -> list[Path]:
    """Every Python file under the folders, as paths relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def package_folders() -> dict[str, str]:
    """Import name -> folder, for every folder of the house that holds a package."""
    found = {}
    for init in sources("driver", *STAGES):
        if init.name == "__init__.py":
            parts = init.parent.parts
            name = ".".join(("flexc", *(parts[1:] if parts[0] == "driver" else parts)))
            found[name] = "/".join(parts)
    return found


def test_packages_are_the_folders(project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    folders = package_folders()
    assert sorted(setuptools["packages"]) == sorted(folders)
    stages = {name: folder for name, folder in folders.items() if folder in ("driver", *STAGES)}
    assert setuptools["package-dir"] == stages  # folders inside a stage follow from the stage's own entry


def test_no_folder_shadows_the_package() -> None:
    assert not (ROOT / "flexc").exists(), "a folder called flexc hides the installed package"
    assert not (ROOT / "__init__.py").exists(), "a package at the root breaks the mapping of folders"


def test_typings_show_the_installed_shape() -> None:
    expected = {stage: f"../../{stage}" for stage in STAGES}
    for path in (ROOT / "driver").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            expected[path.name] = f"../../driver/{path.name}"
    links = {path.name: str(path.readlink()) for path in (ROOT / "typings/flexc").iterdir() if path.is_symlink()}
    missing = [f"ln -s {target} typings/flexc/{name}" for name, target in expected.items() if name not in links]
    assert links == expected, "type checkers do not see the installed shape; " + "; ".join(missing)


def test_data_files_are_packaged(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]["flexc.isa"]
    packaged = {path for pattern in patterns for path in (ROOT / "isa").glob(pattern)}
    held = {path for path in (ROOT / "isa").rglob("*") if path.is_file() and path.suffix in {".toml", ".lark"}}
    assert packaged == held
    assert (importlib.resources.files("flexc.isa") / "machines" / "edge.toml").is_file()


def imports(path: Path) -> Iterator[tuple[int, str, int]]:
    """Every import of a file, also inside functions: (line, dotted name, number of leading dots)."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.lineno, node.module, node.level
            else:
                yield from ((node.lineno, alias.name, node.level) for alias in node.names)


@pytest.mark.parametrize("path", sources("driver", "tests", "examples", "benchmarks", *STAGES), ids=str)
def test_no_stage_is_imported_bare(path: Path) -> None:
    bare = [f"{path}:{line}: {name}" for line, name, dots in imports(path) if not dots and root(name) in MAY_IMPORT]
    assert not bare, "a stage is called flexc.<stage>"


def root(name: str) -> str:
    return name.partition(".")[0]


def room_reached(path: Path, name: str, dots: int) -> str:
    """The room that a relative import in ``path`` lands in."""
    folder = path.parent.parts[: len(path.parent.parts) - (dots - 1)]
    return folder[0] if folder else root(name)


@pytest.mark.parametrize("path", sources(*STAGES), ids=str)
def test_rooms_know_only_the_rooms_before_them(path: Path) -> None:
    room = path.parts[0]
    absolute = [f"{path}:{line}" for line, name, dots in imports(path) if not dots and root(name) == "flexc"]
    assert not absolute, "inside a stage import the others relatively"
    reached = {room_reached(path, name, dots): line for line, name, dots in imports(path) if dots}
    wrong = {f"{path}:{line}": to for to, line in reached.items() if to != room and to not in MAY_IMPORT[room]}
    assert not wrong, f"{room} may import only {sorted(MAY_IMPORT[room])}"


def test_the_driver_and_tests_import_absolutely() -> None:
    """Tests may share helpers with their neighbours, but name flexc in full."""
    relative = [f"{path}:{line}" for path in sources("driver") for line, _, dots in imports(path) if dots]
    beyond = [f"{path}:{line}" for path in sources("tests") for line, _, dots in imports(path) if dots > 1]
    assert not relative + beyond


def test_every_library_is_declared(project: dict[str, Any]) -> None:
    declared = {re.split(r"[<>=]", entry)[0] for entry in project["project"]["dependencies"]}
    used = {root(name) for path in sources("driver", *STAGES) for _, name, dots in imports(path) if not dots}
    libraries = used - set(sys.stdlib_module_names) - {"flexc"}
    assert not libraries & EXTRAS_ONLY, "the installed package must not need the export extra"
    assert {DISTRIBUTION.get(name, name) for name in libraries} <= declared


@pytest.mark.parametrize("path", sources("driver", "tests", *STAGES), ids=str)
def test_files_stay_readable(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 450, "split it by what its parts are for"


HEAVY = ("lark", "numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "scipy", "torch")


def loaded_by(code: str) -> list[str]:
    """The heavy libraries in memory after running the code in a fresh interpreter."""
    probe = f"{code}\nimport sys\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import flexc") == []


@pytest.mark.skipif(not (ROOT / "driver/cli.py").exists(), reason="the command line is not there yet")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compile", "--help"], ["no-such-command"]])
def test_help_and_usage_errors_load_nothing_heavy(arguments: list[str]) -> None:
    code = f"from flexc.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    assert loaded_by(code) == []
