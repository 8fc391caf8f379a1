"""How things are placed in memory: the one alignment that mapping reckons with and the backend keeps."""

from __future__ import annotations

#: Addresses are multiples of this many bytes: every element type is aligned, and a burst starts a slot.
ALIGN = 64


def aligned(size: int) -> int:
    """Return a size in bytes rounded up, so that what follows is aligned."""
    return -(-size // ALIGN) * ALIGN
