"""The words of the ``flexc`` command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from flexc.isa.errors import UsageError
from flexc.prune_arguments import add_prune_arguments


class _Parser(argparse.ArgumentParser):
    """Usage errors in the form of all our errors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, remedy=f"see {self.prog} --help")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> NoReturn:
        from flexc import __version__

        print(f"flexc {__version__}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser; the command is in ``command``."""
    top = _Parser("flexc", description="Compile ONNX models for the FlexCiM sparse compute-in-memory macro; run them.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (summary, fill) in _COMMANDS.items():
        fill(commands.add_parser(name, help=summary, description=summary + "."))
    return top


def _compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("-o", "--output", metavar="OUT.fxc", required=True, help="the program file to write")
    _placement(parser)
    parser.add_argument("--no-reference", action="store_true", help="leave the fp32 graph that --check uses out")
    parser.add_argument("--dump-dir", metavar="DIR", help="write what each stage hands on")
    parser.add_argument("--per-layer", action="store_true", help="list every linear and how it is mapped")
    parser.add_argument("--per-node", action="store_true", help="list every node, where it runs and why")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    add_prune_arguments(parser, "--prune", None)


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    _placement(parser)
    parser.add_argument("--per-node", action="store_true", help="list every node, where it runs and why")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("--prompt", metavar="FILE.npy|1,2,3", required=True, help="tokens to begin with")
    parser.add_argument("--new", metavar="N", type=int, default=32, help="tokens to make at most (default: 32)")
    parser.add_argument("--stop", metavar="TOKEN", type=int, action="append", default=[], help="no more after this one")
    parser.add_argument("--output", metavar="FILE.npy", help="save prompt and new tokens, int64")
    _placement(parser)
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    add_prune_arguments(parser, "--prune", None)


def _prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("-o", "--output", metavar="PRUNED.onnx", required=True, help="the model file to write")
    _target_and_shapes(parser)
    _pin(parser, "N:M", "the pattern of linears of such a name, or dense, whatever the method would choose")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    add_prune_arguments(parser, "--method", "flow")


def _eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument(
        "--pruned",
        metavar="FILE",
        action="append",
        default=[],
        help="another model (.onnx) or program (.fxc) to put beside it; may be given several times",
    )
    parser.add_argument(
        "--data",
        metavar="[NAME=]FILE",
        action="append",
        required=True,
        help="data of an input (.npy; tokens longer than one input give several windows), or of all (.npz)",
    )
    parser.add_argument("--labels", metavar="FILE.npy", help="classes, one a row of the output: measures top-1")
    parser.add_argument(
        "--metric", metavar="WHAT", default="auto", help="perplexity, top1 or output (default: by model)"
    )
    parser.add_argument("--windows", metavar="N", type=int, help="use at most N windows, spread evenly over the data")
    parser.add_argument(
        "--on",
        metavar="FORM,FORM",
        help="fp32, quantised, emulator (default: fp32,quantised; of programs all that they hold)",
    )
    _target_and_shapes(parser)
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")


def _target_and_shapes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="NAME|FILE.toml", default="edge", help="machine (default: edge)")
    parser.add_argument("--shape", metavar="NAME=1x256", action="append", default=[], help="dims of a dynamic input")
    parser.add_argument("--dim", metavar="SYMBOL=N", action="append", default=[], help="size of a dynamic dim by name")


def _placement(parser: argparse.ArgumentParser) -> None:
    """What decides where nodes run, for all commands that say or do so."""
    _target_and_shapes(parser)
    _caches(parser)
    parser.add_argument(
        "--attention",
        metavar="ENGINE",
        default="auto",
        help="products of activations: array (INT8), vector (fp32), or auto, the faster (default)",
    )
    parser.add_argument(
        "--expert-capacity",
        metavar="X",
        default="full",
        help="rows an expert takes at most, over its even share: 1.25 drops what is beyond; full takes all (default)",
    )
    _pin(parser, "ENGINE|N:M", "where nodes of such a name run, array, vector or host, or the pattern of their weights")


def _pin(parser: argparse.ArgumentParser, wish: str, meaning: str) -> None:
    text = f"{meaning} (* stands for any text, the last pin holds)"
    parser.add_argument("--pin", metavar=f"PATTERN={wish}", action="append", default=[], help=text)


def _caches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", metavar="N", type=int, help="keep caches that grow in the machine, of N positions at most"
    )
    parser.add_argument("--state", metavar="IN=OUT", action="append", default=[], help="input that becomes an output")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", metavar="OUT.fxc")
    parser.add_argument(
        "--input",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="data of an input (.npy; tokens longer than one input give several windows), or of all (.npz)",
    )
    parser.add_argument("--random-inputs", metavar="SEED", type=int, help="run one window of random data")
    parser.add_argument("--windows", metavar="N", type=int, help="run at most the first N windows")
    parser.add_argument("--output", metavar="FILE.npz", help="save all outputs, [windows, *shape] each")
    parser.add_argument(
        "--check", metavar="MODEL.onnx", nargs="?", const="", help="compare with onnxruntime; and with this model"
    )
    parser.add_argument("--check-windows", metavar="N", type=int, help="windows compared by operation (default: 2)")
    parser.add_argument("--reference-windows", metavar="N", type=int, help="windows compared end to end (default: 32)")
    parser.add_argument("--per-layer", action="store_true", help="list cycles and energy of every layer")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    _stepping(parser)


def _stepping(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stepping", "a place is a node, a label, or the number of an instruction")
    group.add_argument("--step", action="store_true", help="stop before the first instruction and take commands")
    group.add_argument("--until", metavar="NODE", help="run to that place, then take commands")
    group.add_argument(
        "--break", metavar="LABEL", action="append", default=[], dest="breaks", help="take commands there, each time"
    )
    group.add_argument(
        "--trace-instructions",
        action="store_true",
        help="only print when every instruction starts and ends; needs no input",
    )
    group.add_argument("--limit", metavar="N", type=int, help="trace at most N instructions")


def _disasm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", metavar="OUT.fxc")
    parser.add_argument("-o", "--output", metavar="FILE.s", help="write the listing there (default: stdout)")
    parser.add_argument("-S", "--source", action="store_true", help="say before each stretch which node it runs")
    parser.add_argument("--no-bytes", action="store_true", help="leave out offset and bytes of every instruction")
    parser.add_argument("--embed", action="store_true", help="put weights and constants into the text")
    parser.add_argument("--node", metavar="NAME", help="only the instructions of a node")
    parser.add_argument("--range", metavar="FROM:TO", help="only the instructions between two byte offsets")


def _asm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("listing", metavar="FILE.s")
    parser.add_argument("-o", "--output", metavar="OUT.fxc", required=True, help="the program file to write")


def _program(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", metavar="OUT.fxc")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME|FILE.toml", nargs="?", help="print all of one machine")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _isa(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mnemonic", metavar="MNEMONIC", nargs="?", help="explain one instruction in full")


_Fill = Callable[[argparse.ArgumentParser], None]

_COMMANDS: dict[str, tuple[str, _Fill]] = {
    "compile": ("Compile an ONNX model to a program", _compile),
    "generate": ("Let a model with a cache write tokens; prefill and decode apart", _generate),
    "check": ("Say where each node of a model would run and why, without compiling it", _check),
    "prune": ("Prune an ONNX model to N:M sparsity and write it as ONNX", _prune),
    "eval": ("Measure perplexity, top-1 or output error of models side by side", _eval),
    "run": ("Run a program on the emulator: values, cycles, energy", _run),
    "disasm": ("Print a program as assembly", _disasm),
    "asm": ("Assemble a program", _asm),
    "verify": ("Prove that a program is safe to run, or say what is wrong", _program),
    "inspect": ("Show what a program file holds", _program),
    "targets": ("List the machines, or describe one", _targets),
    "isa": ("List the instructions, or explain one", _isa),
}
