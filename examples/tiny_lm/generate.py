"""One generation loop for onnxruntime and for flexc: the line that opens the session is the only one that differs.

Run with ``python examples/tiny_lm/generate.py`` where flexc is installed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from tokenizer import END, decode, encode
from with_cache import with_cache

import flexc
from flexc.step_costs import phase_table, phases
from flexc.tables import show

HERE = Path(__file__).parent
PROMPT = "function os.path.join("
NEW_TOKENS = 64


def generate(session: Any, prompt: list[int], most: int) -> list[int]:
    """Continue a prompt with the likeliest token each time; what `present` says is handed back as `past`."""
    names = [each.name for each in session.get_outputs()]
    past = {
        each.name: np.zeros([0 if dim == "past" else dim for dim in each.shape], np.float32)
        for each in session.get_inputs()
        if each.name.startswith("past")
    }
    step, made = np.array([prompt], np.int64), list[int]()
    while len(made) < most:
        outputs = dict(zip(names, session.run(None, {"tokens": step, **past}), strict=True))
        token = int(outputs["logits"][0, -1].argmax())
        if token == END:
            break
        made.append(token)
        step = np.array([[token]], np.int64)
        past = {name: outputs[name.replace("past_key_values", "present")] for name in past}
    return made


def main() -> int:
    """Write the same text twice; 0 when it is the same."""
    prompt = [END, *encode(PROMPT)]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/cached.onnx"
        onnx.save(with_cache(onnx.load(HERE / "model.onnx")), path)
        reference = onnxruntime.InferenceSession(path)
        session = flexc.Session(path)
        theirs, ours = generate(reference, prompt, NEW_TOKENS), generate(session, prompt, NEW_TOKENS)
    print("    " + f"{PROMPT}|{decode(ours)}".replace("\n", "\n    ") + "\n")
    same = ours == theirs
    print(f"onnxruntime (float32) writes {'the same' if same else 'other'} {len(theirs)} tokens.\n")
    show([phase_table(phases(session.steps))])
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
