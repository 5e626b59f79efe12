"""Files as a disk, a network or a stranger leaves them."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any


def mutations(content: bytes, count: int) -> list[bytes]:
    """Truncated, with bits flipped, bytes replaced, parts repeated, cut out and swapped: the same on every machine."""
    rng = random.Random(0)
    mutants = []
    for i in range(count):
        at, length = rng.randrange(len(content)), rng.randrange(1, 65)
        piece = content[at : at + length]
        kinds = (
            content[:at],
            content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
            content[:at] + rng.randbytes(len(piece)) + content[at + length :],
            content[:at] + piece + content[at:],
            content[:at] + content[at + length :],
            content[:at] + bytes(len(piece)) + content[at + length :],
            content[:at] + b"\xff" * len(piece) + content[at + length :],
            content + rng.randbytes(length),
        )
        mutants.append(kinds[i % len(kinds)])
    return mutants


def refusal(read: Callable[[Path], Any], path: Path, mutant: bytes, error: type[Exception]) -> str:
    """What is said of the file, if it is refused."""
    path.write_bytes(mutant)
    try:
        read(path)
    except error as sentence:
        return str(sentence)
    return ""
