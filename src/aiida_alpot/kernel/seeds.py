"""Seeds are inputs: every random number of a campaign comes from one integer and a name."""

from __future__ import annotations

import hashlib

import numpy as np

MAX_SEED = 2**31 - 1


def derive_seed(seed: int, name: str, *, maximum: int = MAX_SEED) -> int:
    """Return the seed that belongs to *name*, independent of every other name.

    ``SeedSequence([seed, *sha256(name) as uint32 words])``, mapped into ``[1, maximum]``.

    :param seed: the seed of the campaign, not negative.
    :param name: what the seed is for, e.g. ``"train/iteration-2/member-0"``.
    :param maximum: largest seed the consumer accepts.
    :raises ValueError: if *seed* is negative or *maximum* is not positive.
    """
    if seed < 0:
        raise ValueError(f"a seed is a non-negative integer, got {seed}")
    if maximum < 1:
        raise ValueError(f"the largest seed must be positive, got {maximum}")
    number = int(seed)  # of NumPy too
    n_words = max(1, -(-number.bit_length() // 32))
    entropy = number.to_bytes(4 * n_words, "little") + hashlib.sha256(name.encode()).digest()
    # the words in one array: SeedSequence makes an array of each number of a list, which takes four times as long
    sequence = np.random.SeedSequence(np.frombuffer(entropy, dtype="<u4").astype(np.uint32))
    state = sequence.generate_state(1, dtype=np.uint64)[0]
    return 1 + int(state) % maximum
