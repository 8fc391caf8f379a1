"""A byte-pair tokenizer over printable ASCII, small enough to read; needs nothing but the standard library.

Text is first cut into words (with the one blank or punctuation mark before them), numbers, punctuation and white
space; pairs are merged inside such a piece only. Token 0 ends a document; it also stands before the first word of
every document, so a prompt starts with it: ``[END, *encode(prompt)]``.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path

END = 0
"""The token between two documents; :func:`decode` writes nothing for it."""

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""Every character that has a token of its own; any other character is read as ``?``."""

_PIECE = re.compile(r"[^A-Za-z0-9\n]?[A-Za-z]+|[0-9]{1,2}| ?[^A-Za-z0-9\s]+|\s+")

Pair = tuple[int, int]


class Tokenizer:
    """Turns text into token numbers and back; ``merges[i]`` is the pair of tokens joined into token 97 + i."""

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges = list(merges)
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._text = ["", *ALPHABET]
        for left, right in self.merges:
            self._text.append(self._text[left] + self._text[right])
        self._encode_piece = cache(self._merge_piece)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read what :meth:`save` wrote: a JSON list of pairs."""
        return cls((left, right) for left, right in json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """Write the merges as JSON."""
        path.write_text(json.dumps(self.merges, separators=(",", ":")) + "\n")

    @property
    def size(self) -> int:
        """The number of different tokens."""
        return len(self._text)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of ``text``, without an :data:`END`."""
        return [token for piece in _PIECE.findall(text) for token in self._encode_piece(piece)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text that ``tokens`` stand for."""
        return "".join(self._text[token] for token in tokens)

    def _merge_piece(self, piece: str) -> tuple[int, ...]:
        tokens = _characters(piece)
        while len(tokens) > 1:
            pair = min(pairwise(tokens), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if pair not in self._rank:
                break
            tokens = _join(tokens, pair, len(ALPHABET) + 1 + self._rank[pair])
        return tuple(tokens)


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a tokenizer of ``size`` tokens: join the most frequent pair of neighbours until there are enough."""
    counts = Counter(piece for text in texts for piece in _PIECE.findall(text))
    words = [_characters(piece) for piece in counts]
    weights = list(counts.values())
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += weights[index]
            where[pair].add(index)
    merges: list[Pair] = []
    for new in range(len(ALPHABET) + 1, size):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for index in sorted(where.pop(best)):
            for pair in pairwise(words[index]):
                pairs[pair] -= weights[index]
            words[index] = _join(words[index], best, new)
            for pair in pairwise(words[index]):
                pairs[pair] += weights[index]
                where[pair].add(index)
        del pairs[best]
    return Tokenizer(merges)


def _characters(piece: str) -> list[int]:
    return [1 + (ALPHABET.find(char) if char in ALPHABET else ALPHABET.index("?")) for char in piece]


def _join(tokens: list[int], pair: Pair, new: int) -> list[int]:
    """Return ``tokens`` with every ``pair`` in it replaced by ``new``, from the left."""
    joined: list[int] = []
    position = 0
    while position < len(tokens):
        if tuple(tokens[position : position + 2]) == pair:
            joined.append(new)
            position += 2
        else:
            joined.append(tokens[position])
            position += 1
    return joined


@cache
def shipped() -> Tokenizer:
    """The tokenizer of the model beside this file."""
    return Tokenizer.load(Path(__file__).with_name("tokenizer.json"))


def encode(text: str) -> list[int]:
    """Return the tokens of ``text`` for the model beside this file."""
    return shipped().encode(text)


def decode(tokens: Iterable[int]) -> str:
    """Return the text that ``tokens`` of the model beside this file stand for."""
    return shipped().decode(tokens)
