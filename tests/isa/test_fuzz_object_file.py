"""Mutated program files with right checksums end in a clean refusal or a verified program, never in a traceback."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from flexc.isa import container, object_file
from flexc.isa.assembler import assemble
from flexc.isa.errors import FlexcError
from flexc.isa.verifier import verify
from flexc.isa.version import isa_digest
from tests.isa.refused import GOOD

ROUNDS = 300
_TEXT = (object_file.TENSORS.number, object_file.DEBUG.number, object_file.META.number)
_MUTATED = (*_TEXT, object_file.CODE.number)


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Return bytes with one to three places changed, or numbers in a text replaced."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(changed))
        if generator.random() < 0.3 and chr(changed[place]).isdigit():
            changed[place : place + 1] = str(generator.choice([-1, 0, 7, 255, 1 << 31, 1 << 63, 1 << 90])).encode()
        else:
            changed[place] ^= 1 << generator.randrange(8)
    return bytes(changed)


def test_mutations_end_cleanly(tmp_path: Path) -> None:
    generator = random.Random(1)
    program = assemble(GOOD.replace("    lda s5", ".op name=a op_type=b nodes=[c] engine=d nm=e\n lda s5\n.endop\nx:"))
    contents = list(object_file.contents(program))
    fingerprint = bytes.fromhex(program.machine.fingerprint())
    chosen = [place for place, content in enumerate(contents) if content.kind in _MUTATED and len(content.data) > 2]
    passed = refused = 0
    for _ in range(ROUNDS):
        place = generator.choice(chosen)
        content = contents[place]
        sections = list(contents)
        sections[place] = replace(content, data=mutated(bytes(content.data), generator))
        container.write(tmp_path / "p.fxc", sections, isa_digest(), fingerprint)
        try:
            passed += not verify(object_file.load(tmp_path / "p.fxc"))
        except FlexcError:
            refused += 1
    assert passed > 0
    assert refused > ROUNDS // 4
