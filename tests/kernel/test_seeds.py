"""Seeds: the definition, and that names do not touch each other."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_alpot.kernel.seeds import MAX_SEED, derive_seed

SEEDS = st.integers(0, 2**64)


def by_definition(seed, name, maximum=2**31 - 1):
    words = struct.unpack("<8I", hashlib.sha256(name.encode("utf-8")).digest())
    number = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    return int(number) % maximum + 1


@given(SEEDS, st.text(max_size=20))
def test_seed_is_that_of_the_definition(seed, name):
    assert derive_seed(seed, name) == by_definition(seed, name)


def test_known_values_never_change():
    assert derive_seed(42, "iteration-2/explore") == 1810418786


@given(SEEDS, st.integers(1, 1000))
def test_seed_lies_in_the_range_of_its_consumer(seed, maximum):
    assert 1 <= derive_seed(seed, "x", maximum=maximum) <= maximum


def test_range_is_used_up_to_its_ends():
    assert {derive_seed(k, "x", maximum=4) for k in range(100)} == {1, 2, 3, 4}
    assert max(derive_seed(k, "x") for k in range(200)) > MAX_SEED // 2


def test_names_and_seeds_give_different_seeds():
    found = {derive_seed(seed, f"member-{k}") for seed in range(20) for k in range(50)}
    assert len(found) == 1000


def test_seeds_of_neighbouring_names_are_uncorrelated():
    values = np.array([[derive_seed(s, "train"), derive_seed(s, "traim")] for s in range(1000)], dtype=float)
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.1


def test_a_negative_seed_is_named():
    with pytest.raises(ValueError, match="-3"):
        derive_seed(-3, "x")


def test_an_empty_range_is_named():
    with pytest.raises(ValueError, match="positive, got 0"):
        derive_seed(1, "x", maximum=0)
