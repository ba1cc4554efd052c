"""Schedules over the share of a run: their curves, and the steps and radius of the attack that follow it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from art_lbgat import RunOptions
from art_lbgat.engine.schedule import SCHEDULES, Cosine, OneCycle, StepSchedule

SHARES = st.floats(0, 1, allow_nan=False)
WARMUPS = st.floats(0, 0.99, allow_nan=False)


@given(warmup=WARMUPS, final=SHARES, kind=st.sampled_from([OneCycle, Cosine]), shares=st.tuples(SHARES, SHARES))
def test_rates_rise_to_the_peak_and_fall_to_the_end(warmup, final, kind, shares):
    schedule, (first, second) = kind(warmup, final), sorted(shares)
    low, high = schedule.factor(first), schedule.factor(second)
    assert 0 <= low <= 1 + 1e-12
    if second < warmup:
        assert low <= high
    elif first >= warmup:
        assert low >= high - 1e-12
    assert schedule.factor(warmup) == pytest.approx(1)
    assert schedule.factor(1.0) == pytest.approx(final, abs=1e-12)


@given(share=SHARES, warmup=WARMUPS, final=SHARES)
def test_the_two_curves_are_these(share, warmup, final):
    down = (share - warmup) / (1 - warmup)
    line = share / warmup if share < warmup else 1 - (1 - final) * down
    wave = share / warmup if share < warmup else final + (1 - final) * (1 + math.cos(math.pi * down)) / 2
    assert OneCycle(warmup, final).factor(share) == pytest.approx(line, abs=1e-12)
    assert Cosine(warmup, final).factor(share) == pytest.approx(wave, abs=1e-12)


def test_names_and_what_they_stand_for():
    assert {name: make(100) for name, make in SCHEDULES.items()} == {
        "one-cycle": OneCycle(0.25, 0.0),
        "cosine": Cosine(0.0, 0.0),
        "step": StepSchedule((75, 90)),
    }
    assert [SCHEDULES["step"](n).milestones for n in (1, 2, 4, 20)] == [(1,), (2,), (3, 4), (15, 18)]
    assert OneCycle() != Cosine(0.25)


@pytest.mark.parametrize(
    ("bad", "match"), [({"warmup": 1.0}, "warmup: expected a share"), ({"final": 1.5}, "final: expected a share"),
                       ({"warmup": -0.1}, "warmup: expected a finite"), ({"final": True}, "final: expected a finite")]
)  # fmt: skip
def test_a_bad_curve_is_refused(bad, match):
    for kind in (OneCycle, Cosine):
        with pytest.raises((ValueError, TypeError), match=match):
            kind(**bad)


@given(share=SHARES, ramp=st.floats(0.01, 1))
def test_eps_rises_with_the_share_of_the_run(share, ramp):
    assert RunOptions(eps_warmup=ramp).eps_factor(9, share) == (1 if share >= ramp else share / ramp)
    assert RunOptions(eps_warmup_epochs=4).eps_factor(3, share) == 0.75
    assert RunOptions().eps_factor(1, share) == 1


def test_the_length_of_a_step_follows_their_number():
    lengths = {1: 1.25, 2: 1.0, 3: 2 / 3, 4: 0.5, 5: 0.5, 10: 0.25}
    for number, length in lengths.items():
        options = RunOptions(max_iter_schedule=((0.0, number),))
        assert options.attack_steps(0.9) == (number, pytest.approx(length))
    options = RunOptions(max_iter_schedule=[[0.0, 2], [0.5, 3, 0.4], [0.75, 10]])
    assert [options.attack_steps(s)[0] for s in (0, 0.4999, 0.5, 0.74, 0.75, 1)] == [2, 2, 3, 3, 10, 10]
    assert options.attack_steps(0.6) == (3, 0.4)
    assert (options.most_steps, RunOptions().most_steps, RunOptions().attack_steps(0.5)) == (10, None, None)
    assert options == RunOptions(max_iter_schedule=((0.0, 2), (0.5, 3, 0.4), (0.75, 10)))
