"""When a checkpoint is due."""

import pytest
from art_lbgat.engine.cadence import Cadence, Every, parse_every

from art_lbgat.engine import cadence


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cadence.time, "monotonic", lambda: now[0])
    return now


def test_texts_and_numbers():
    assert parse_every(3) == Every(3, "epoch")
    assert parse_every("2 epochs") == parse_every(" 2epoch ") == Every(2, "epoch")
    assert parse_every("500 steps") == Every(500, "step")
    assert parse_every("0.5 minutes") == Every(0.5, "minute")
    assert parse_every("auto").unit == "auto"


@pytest.mark.parametrize("bad", ["", "steps", "0 steps", "1.5 epochs", "2 hours", "-1 step", "auto 3", "1e3 steps"])
def test_other_texts_are_refused(bad):
    with pytest.raises(ValueError, match="checkpoint_every: expected a number of epochs, or text such as"):
        parse_every(bad)


@pytest.mark.parametrize("bad", [0, -1, 1.5, None, True, []])
def test_other_numbers_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match="checkpoint_every"):
        parse_every(bad)


def told(every, events):
    """Which of these events (``"s"``: a step, ``"e"``: an epoch has ended) a checkpoint is due after."""
    found = Cadence(every)
    due = []
    for event in events:
        due.append(found.due(epoch_ended=event == "e"))
        if due[-1]:
            found.restart()
    return due


def test_epochs_and_steps():
    assert told(Every(1, "epoch"), "ssesse") == [False, False, True, False, False, True]
    assert told(Every(2, "epoch"), "sesese") == [False, False, False, True, False, False]
    assert told(Every(2, "step"), "sesses") == [False, False, True, False, False, True]


def test_one_that_was_missed_is_due_at_the_next(clock):
    found = Cadence(Every(1, "step"))
    assert found.due(epoch_ended=False)
    assert found.due(epoch_ended=False)  # nothing was written, since the last was still being written


def test_minutes_follow_a_clock_that_nobody_sets(clock, monkeypatch):
    found = Cadence(Every(2, "minute"))
    clock[0] += 119
    assert not found.due(epoch_ended=False)
    monkeypatch.setattr(cadence.time, "time", lambda: 0.0)
    clock[0] += 1
    assert found.due(epoch_ended=False)
    found.restart()
    assert not found.due(epoch_ended=True)


def test_auto_spends_a_hundredth_of_the_time(clock):
    found = Cadence(Every(0, "auto"))
    assert not found.due(epoch_ended=False)
    assert found.due(epoch_ended=True)  # the first at the end of an epoch, which shows what it costs
    found.restart()
    found.cost(0.5)
    clock[0] += 49.9
    assert not found.due(epoch_ended=True)
    clock[0] += 0.2
    assert found.due(epoch_ended=False)
    late = Cadence(Every(0, "auto"))
    clock[0] += 61
    assert late.due(epoch_ended=False)  # or after a minute, where epochs are long
