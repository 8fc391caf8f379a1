"""Instruction statements: operands are matched with fields once a shape; then the values of a line are filled in."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FlexcError, did_you_mean
from ..fields import Field, Float32, Signed, Tokens, Unsigned, Value
from ..instruction import Instr, Instruction
from ..table import BY_MNEMONIC
from .expressions import Symbols, evaluate
from .shapes import Atom, Node, Operation, Shape, SyntaxFault

Numeric = (Unsigned, Signed, Float32)


@dataclass(frozen=True, slots=True)
class Operand:
    """A field and the expression that gives its value."""

    field: Field
    node: Node
    place: int


@dataclass(frozen=True, slots=True)
class InstructionShape:
    """An instruction whose operands are matched with its fields: all that is missing are the atoms of a line."""

    spec: Instruction
    operands: tuple[Operand, ...]
    defaults: dict[str, Value]

    def fill(self, atoms: list[str], symbols: Symbols) -> Instr:
        """Return the instruction that has these atoms; raises :class:`SyntaxFault` at the operand at fault."""
        values = dict(self.defaults)
        for operand in self.operands:
            values[operand.field.name] = _value(operand, atoms, symbols)
        return Instr(self.spec, values)


def match(shape: Shape) -> InstructionShape:
    """Return a shape's operands matched with the fields of its instruction.

    Raises:
        SyntaxFault: no such instruction or operand, one operand twice, one missing, too many by place.
    """
    spec = BY_MNEMONIC.get(shape.word)
    if spec is None:
        raise SyntaxFault(f"unknown instruction '{shape.word}'", 0, did_you_mean(shape.word, list(BY_MNEMONIC)))
    given = _by_place(spec, shape)
    fields = {field.name: field for field in spec.fields}
    for keyword in shape.keywords:
        if keyword.name not in fields:
            remedy = did_you_mean(keyword.name, list(fields)) or usage(spec)
            raise SyntaxFault(f"{spec.mnemonic} has no operand '{keyword.name}'", keyword.place, remedy)
        if keyword.name in given:
            raise SyntaxFault(f"operand '{keyword.name}' is given twice", keyword.place)
        given[keyword.name] = Operand(fields[keyword.name], keyword.value, keyword.place)
    missing = [field for field in spec.fields if field.default is None and field.name not in given]
    if missing:
        what = f"{missing[0].name} ({missing[0].doc}: {missing[0].range_text()})"
        raise SyntaxFault(f"{spec.mnemonic} needs operand {what}", shape.length, usage(spec))
    # every field stands in its order, so that equal instructions are equal whoever made them
    defaults: dict[str, Value] = {field.name: () if field.default is None else field.default for field in spec.fields}
    return InstructionShape(spec, tuple(given.values()), defaults)


def _by_place(spec: Instruction, shape: Shape) -> dict[str, Operand]:
    fields = [field for field in spec.fields if field.positional]
    if len(shape.positionals) > len(fields):
        extra = shape.positionals[len(fields)]
        names = ", ".join(field.name for field in fields) or "no operand"
        raise SyntaxFault(f"{spec.mnemonic} takes {names} by place; more is given", extra.place, usage(spec))
    return {
        field.name: Operand(field, node, node.place) for field, node in zip(fields, shape.positionals, strict=False)
    }


def usage(spec: Instruction) -> str:
    """Return how an instruction is written, in a few words."""
    places = ", ".join(field.name for field in spec.fields if field.positional)
    named = " ".join(
        f"{field.name}=" if field.default is None else f"[{field.name}=]"
        for field in spec.fields
        if not field.positional
    )
    return "it is written " + " ".join(each for each in (spec.mnemonic, places, named) if each)


def _value(operand: Operand, atoms: list[str], symbols: Symbols) -> Value:
    field, node = operand.field, operand.node
    try:
        if isinstance(node, Atom) and (not isinstance(field, Numeric) or atoms[node.index][0].isdigit()):
            return field.parse(atoms[node.index])
        if isinstance(field, Numeric):
            return _number(field, evaluate(node, atoms, symbols))
        if isinstance(field, Tokens):
            return field.parse(_joined(node, atoms))
    except SyntaxFault:
        raise
    except FlexcError as error:
        raise SyntaxFault(error.message, operand.place, error.remedy) from None
    raise SyntaxFault(f"{field.name}: expected {field.range_text()}", node.place)


def _number(field: Field, value: int | float) -> Value:
    """Return a computed value as its field holds it (a float32 is rounded to one)."""
    if isinstance(value, float) and value.is_integer() and not isinstance(field, Float32):
        value = int(value)
    return field.decode(field.encode(value))


def _joined(node: Node, atoms: list[str]) -> str:
    """Return semaphores joined by ``+`` as text."""
    if isinstance(node, Atom):
        return atoms[node.index]
    if isinstance(node, Operation) and node.operator == "+" and len(node.parts) == 2:
        return "+".join(_joined(part, atoms) for part in node.parts)
    raise SyntaxFault("semaphores are joined by +", node.place)
