"""Words and instructions: identities, clean refusals, and a table that checks itself."""

from __future__ import annotations

import pytest
from hypothesis import given

from flexc.isa.assembly.assembler import assemble
from flexc.isa.assembly.disassembler import format_instruction
from flexc.isa.encoding import decode, decode_all, encode, instr
from flexc.isa.errors import FlexcError
from flexc.isa.instruction import OPCODE_BITS, WORD_BITS, Instr
from flexc.isa.table import BY_MNEMONIC, TABLE, check_table
from tests.isa.strategies import instructions


def test_the_table_is_consistent() -> None:
    check_table()


@pytest.mark.parametrize("mnemonic", sorted(BY_MNEMONIC))
def test_every_bit_of_a_word_is_accounted_for(mnemonic: str) -> None:
    spec = BY_MNEMONIC[mnemonic]
    low = OPCODE_BITS
    for field, place in spec.layout:
        assert place == low
        low += field.width
    assert low == spec.used_bits <= WORD_BITS


def test_no_two_instructions_share_a_word() -> None:
    assert len({each.opcode for each in TABLE}) == len({each.mnemonic for each in TABLE}) == len(TABLE)


@given(instructions())
def test_decoding_what_was_encoded_gives_it_back(instruction: Instr) -> None:
    word = encode(instruction)
    assert encode(decode(word)) == word
    assert format_instruction(decode(word)) == format_instruction(instruction)


@given(instructions())
def test_assembling_what_was_printed_gives_it_back(instruction: Instr) -> None:
    program = assemble(f".target edge\n{format_instruction(instruction)}")
    assert encode(program.code[0]) == encode(instruction)


def test_bits_above_the_last_field_are_refused() -> None:
    word = bytearray(encode(instr("halt")))
    word[15] = 1
    with pytest.raises(FlexcError, match="halt: bits from 8 up are not zero"):
        decode(bytes(word))


def test_an_error_names_the_offset() -> None:
    with pytest.raises(FlexcError) as caught:
        decode_all(encode(instr("halt")) + bytes(16))
    assert str(caught.value) == "code offset 0x10: opcode 0x00 is no instruction"


def test_a_value_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(FlexcError, match=r"rows=0 is out of range; allowed: 1\.\.268435455"):
        instr("stream", stream=0, space="buf", dtype="f32", base=0, rows=0, cols=1)
