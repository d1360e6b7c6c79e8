"""Random numbers that depend on a seed and on what they are for, never on the order of work."""

from __future__ import annotations

import hashlib

import numpy as np


def entropy(seed: int, *keys: int | str) -> int:
    """A 63-bit integer that is the same for the same seed and keys on every machine and Python."""
    # NumPy's integers are the same keys as Python's.
    words = [f"str:{key}" if isinstance(key, str) else f"int:{int(key)}" for key in keys]
    text = "\0".join([str(int(seed)), *words])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """An independent NumPy stream, e.g. ``generator(seed, "crop", epoch, index)``."""
    return np.random.default_rng(entropy(seed, *keys))
