"""``--dump-dir``: what each stage hands on, in files that start with the stage's number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from flexc.isa.errors import FlexcError

if TYPE_CHECKING:
    import onnx_ir as ir

    from flexc.compiler import Compilation


class Dump:
    """Writes into a folder, or nothing where there is none."""

    def __init__(self, folder: str | Path | None) -> None:
        """Make the folder.

        Raises:
            FlexcError: it cannot be made.
        """
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FlexcError(f"cannot be made: {error.strerror or error}", where=str(self.folder)) from None

    def graph(self, name: str, model: ir.Model) -> None:
        """Write a graph that Netron opens and onnxruntime runs."""
        if self.folder is not None:
            from flexc.frontend.io import save

            save(model, self.folder / name)

    def program(self, partition: str, listing: str, compilation: Compilation) -> None:
        """Write where each node runs, as text and as JSON, and the assembly listing."""
        if self.folder is None:
            return
        from flexc.isa.assembly.disassembler import Options, disassemble
        from flexc.isa.instruction import WORD_BYTES
        from flexc.report import compile_report, node_rows, plain_report

        report = compile_report(compilation) | {"nodes": node_rows(compilation)}
        _write(self.folder / f"{partition}.json", json.dumps(report, indent=1) + "\n")
        _write(self.folder / f"{partition}.txt", plain_report(report))
        whole = 0, WORD_BYTES * len(compilation.program.code)  # the code alone: the data are in the program file
        lines = disassemble(compilation.program, Options(source=True, bytes=True, range=whole))
        _write(self.folder / listing, "\n".join(lines) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FlexcError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
