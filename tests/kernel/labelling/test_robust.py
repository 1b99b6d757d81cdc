"""Limits that a twentieth of bad values does not move."""

import numpy as np
import pytest

from aiida_alpot.kernel.labelling.robust import lognormal_limit, tail_limit


def test_one_of_two_hundred_lognormal_ratios_exceeds_the_limit():
    ratios = np.exp(np.random.default_rng(0).normal(0.0, 0.9, 200_000))
    assert np.mean(ratios > lognormal_limit(ratios)) == pytest.approx(0.005, rel=0.1)


def test_gaussian_errors_have_the_limit_of_the_factor():
    ratios = np.abs(np.random.default_rng(0).normal(size=200_000))
    ratios /= np.median(ratios)
    assert tail_limit(ratios, 5.0) == 5.0
    spoilt = np.concatenate([ratios, np.full(len(ratios) // 19, 1e6)])
    assert tail_limit(spoilt, 5.0) == pytest.approx(5.0, rel=0.01)
