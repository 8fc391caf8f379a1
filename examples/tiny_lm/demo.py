"""The demo: compile the shipped language model, let it write text on the emulated machine, and check every step.

Run with ``make demo``, or ``python examples/tiny_lm/demo.py`` where flexc is installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizer import END, decode, encode

import flexc
from flexc.run_report import run_parts, run_report
from flexc.tables import show

HERE = Path(__file__).parent
PROMPT = "function os.path.join("
NEW_TOKENS = 64
CHECKED_WINDOWS = 2

Tokens = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
#: Takes one window of tokens [1, T] and returns its logits [1, T, vocabulary].
Model = Callable[[Tokens], Floats]


def generate(model: Model, length: int) -> tuple[list[int], float]:
    """Continue the prompt with the likeliest token each time; return the new tokens and the seconds it took."""
    started = time.perf_counter()
    text = [END, *encode(PROMPT)]
    start = len(text)
    while len(text) < min(length, start + NEW_TOKENS):
        window = np.full((1, length), END, np.int64)
        window[0, : len(text)] = text
        token = int(model(window)[0, len(text) - 1].argmax())
        if token == END:
            break
        text.append(token)
    return text[start:], time.perf_counter() - started


def emulated(program: flexc.Program) -> Model:
    """Return the model as the emulated machine runs it."""
    return lambda tokens: program.run({"tokens": tokens}).outputs["logits"]


def reference(path: Path) -> Model:
    """Return the model as onnxruntime runs it, in float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(tokens: Tokens) -> Floats:
        logits: Floats = session.run(["logits"], {"tokens": tokens})[0]
        return logits

    return run


def agreement(ours: list[int], theirs: list[int]) -> str:
    """Say how far two continuations are the same."""
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    if ours == theirs:
        return f"onnxruntime (float32) writes the same {len(ours)} tokens"
    return f"onnxruntime (float32) writes the same first {same} of {len(ours)} tokens, then: {decode(theirs[same:])!r}"


def main() -> int:
    """Run the demo; 0 when the check passes, 1 when it does not."""
    model = HERE / "model.onnx"
    print(f"Compiling {model.name} for machine 'edge', keeping the N:M sparsity found in its weights ...")
    started = time.perf_counter()
    program = flexc.compile(model, target="edge")
    print(f"  {len(program.image.code)} instructions in {time.perf_counter() - started:.1f} s\n")
    length = program.image.inputs[0].shape[1]
    ours, took = generate(emulated(program), length)
    theirs, _ = generate(reference(model), length)
    print(f"On the emulator, {len(ours)} tokens in {took:.1f} s, the prompt up to the bar:\n")
    print("    " + f"{PROMPT}|{decode(ours)}".replace("\n", "\n    ") + "\n")
    print(f"{agreement(ours, theirs)}.\n")
    tokens = np.load(HERE / "validation.npy").astype(np.int64)
    windows = tokens[: CHECKED_WINDOWS * length].reshape(CHECKED_WINDOWS, 1, length)
    show(run_parts(run_report(program.cost, CHECKED_WINDOWS, [], {}, None), layers=True))
    verdict = program.check({"tokens": windows})
    print()
    show(verdict.parts())
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
