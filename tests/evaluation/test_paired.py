"""Paired differences: intervals that cover, that pairing makes narrow, and what they do where there is nothing to see."""

import numpy as np
import pytest

from art_lbgat.evaluation import paired_difference, wilson_interval
from art_lbgat.evaluation.results import Difference


def simulated(generator, seeds, n, by_seed=0.1, effect=0.3):
    """Masks of two methods: images are more or less hard for both, a little more for one, each training has its luck."""
    hard = generator.normal(scale=2, size=n)
    noise = (generator.normal(scale=0.7, size=n) + generator.normal(scale=by_seed, size=(seeds, 1))
             + generator.normal(size=(seeds, n)) for _ in range(2))  # fmt: skip
    first, second = (hard + each for each in noise)
    return first + effect > 0, second > 0


def true_difference(by_seed=0.1, effect=0.3):
    """P(N(effect, total variance) > 0) - 1/2, in closed form by the error function."""
    from math import erf, sqrt

    return erf(effect / sqrt(2 * (4 + 0.49 + 1 + by_seed**2))) / 2


@pytest.mark.parametrize(("seeds", "by_seed"), [(1, 0.0), (2, 0.1), (5, 0.3)])
def test_about_95_of_100_intervals_hold_the_truth(seeds, by_seed):
    """Over new images and, with several seeds, new trainings; 200 draws have a standard error of 1.5 %."""
    generator, truth = np.random.default_rng(0), true_difference(by_seed)
    found = [paired_difference(*simulated(generator, seeds, 300, by_seed)) for _ in range(200)]
    share = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.91 <= share <= 0.99
    assert abs(np.mean([each.value for each in found]) - truth) < 0.01


def test_without_seeds_an_interval_says_nothing_of_other_trainings():
    """The trap that seeds are for: one training each, which differ by luck, and an interval that excludes the truth."""
    generator = np.random.default_rng(0)
    found = [paired_difference(*simulated(generator, 1, 1000, 0.3, effect=0.0)) for _ in range(100)]
    assert np.mean([each.real for each in found]) > 0.2
    several = [paired_difference(*simulated(generator, 4, 1000, 0.3, effect=0.0)) for _ in range(100)]
    assert np.mean([each.real for each in several]) < 0.12
    assert (found[0].seeds, several[0].seeds) == (1, 4)


def test_pairing_is_narrower_than_two_intervals():
    first, second = simulated(np.random.default_rng(3), 1, 599)
    found = paired_difference(first, second)
    apart = [wilson_interval(float(mask.mean()), 599) for mask in (first, second)]
    unpaired = np.hypot(*(high - low for low, high in apart))
    assert found.high - found.low < 0.85 * unpaired
    generator = np.random.default_rng(0)
    mixed = paired_difference(generator.permuted(first, axis=1), second)
    assert found.high - found.low < 0.85 * (mixed.high - mixed.low)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_it_is_repeatable_and_the_other_way_round_has_the_other_sign(seeds):
    first, second = simulated(np.random.default_rng(1), seeds, 200)
    found, again, other = (paired_difference(*each) for each in ((first, second), (first, second), (second, first)))
    assert found == again
    assert other.value == -found.value
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(first.mean() - second.mean())


def test_one_seed_is_the_known_interval_of_a_paired_difference():
    """``d -+ 1.96 sqrt((p - d^2) / n)`` with ``p`` the share on which the two disagree (McNemar), for large ``n``."""
    first, second = (mask[0] for mask in simulated(np.random.default_rng(2), 1, 5000))
    found, disagree = paired_difference(first, second), np.mean(first != second)
    half = 1.96 * np.sqrt((disagree - found.value**2) / 5000)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)
    assert found == paired_difference(first[None], second[None])


def test_what_has_no_spread_has_no_width():
    mask = np.random.default_rng(0).random((3, 50)) < 0.5
    assert paired_difference(mask, mask) == Difference(0.0, 0.0, 0.0, 3)
    assert not paired_difference(mask, mask.copy()).real
    ones, zeros = np.ones((2, 9), dtype=bool), np.zeros((2, 9), dtype=bool)
    assert paired_difference(ones, zeros) == Difference(1.0, 1.0, 1.0, 2)
    assert paired_difference(ones, zeros).real
    alone = paired_difference(ones[:, :1], zeros[:, :1])
    assert (alone.value, alone.low, alone.high, alone.real) == (1.0, -1.0, 1.0, False)


def test_seeds_that_disagree_widen_the_interval():
    """The same ten images won by each of two trainings, and won by one and lost by the other."""
    base = np.zeros((2, 100), dtype=bool)
    same, apart, lost = base.copy(), base.copy(), base.copy()
    same[:, :10], apart[0, :20], lost[1, 20:30] = True, True, True
    steady, torn = paired_difference(same, base), paired_difference(apart, lost)
    assert steady.real
    assert not torn.real
    assert torn.high - torn.low > 3 * (steady.high - steady.low)


@pytest.mark.parametrize(("first", "second", "error", "words"), [
    (np.zeros(3), np.zeros(3, dtype=bool), TypeError, "masks_a: expected bool, got dtype float64"),
    (np.zeros(3, dtype=bool), np.zeros(3, dtype=int), TypeError, "masks_b: expected bool, got dtype int64"),
    (np.zeros((2, 3), dtype=bool), np.zeros((1, 3), dtype=bool), ValueError, r"masks_a, masks_b: .* got \[\(2, 3\), \(1, 3\)\]"),
    (np.zeros((2, 0), dtype=bool), np.zeros((2, 0), dtype=bool), ValueError, "masks_a, masks_b: .* at least one image"),
    (np.zeros((1, 2, 3), dtype=bool), np.zeros((1, 2, 3), dtype=bool), ValueError, "masks_a, masks_b: expected one shape"),
])  # fmt: skip
def test_masks_that_cannot_be_paired(first, second, error, words):
    with pytest.raises(error, match=words):
        paired_difference(first, second)
