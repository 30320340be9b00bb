"""Texts that no server has seen before."""

import os
import random
from collections.abc import Callable

_WORDS = (
    *("river", "stone", "market", "evening", "signal", "garden", "window", "letter", "engine", "harbour"),
    *("silver", "winter", "paper", "bridge", "forest", "music", "number", "travel", "kitchen", "doctor"),
    *("history", "shadow", "planet", "village", "teacher", "corner", "copper", "island", "morning", "season"),
)


def fresh_texts(*, words: int, count: int) -> Callable[[], list[str]]:
    """Give other texts at each call, in next to no time: no server finds them in its prefix cache."""
    chosen = random.Random(0)
    bodies = [" ".join(chosen.choices(_WORDS, k=words)) for _ in range(count)]
    number = random.Random(os.urandom(8)).getrandbits(48)

    def texts() -> list[str]:
        nonlocal number
        number += 1
        return [f"{number:x} {body}" for body in bodies]

    return texts
