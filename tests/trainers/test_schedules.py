"""Schedules of a fit: learning rates, steps and radius of the attack, averaging; each by its step in the run."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as lr
from torch.utils.data import DataLoader, IterableDataset

from art_lbgat import MadryTrainer, NaturalTrainer
from art_lbgat.data import load_digits
from art_lbgat.engine.schedule import Cosine, OneCycle
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS, TRAINERS, another, pgd

X, Y = make_data(32)  # four batches of eight
EPOCHS, STEPS = 3, 12
FIT = {"batch_size": 8, "nb_epochs": EPOCHS}


def rates_of(scheduler, classifier=None, **fit):
    """The learning rate of every step, and the trainer."""
    classifier, rates = classifier or make_classifier(lr=0.02), []
    trainer = NaturalTrainer(
        classifier, on_step=lambda _: rates.append(classifier.optimizer.param_groups[0]["lr"]), **OPTIONS
    )
    trainer.fit(X, Y, **{**FIT, **fit}, scheduler=scheduler(classifier.optimizer) if callable(scheduler) else scheduler)
    return rates, trainer


@pytest.mark.parametrize(
    ("given", "schedule"), [("one-cycle", OneCycle()), ("cosine", Cosine()), (Cosine(0.1, 0.2),) * 2]
)
def test_a_curve_over_the_run_sets_the_rate_of_every_step(given, schedule):
    rates, trainer = rates_of(given)
    assert rates == pytest.approx([0.02 * schedule.factor((t + 0.5) / STEPS) for t in range(STEPS)])
    assert trainer.history.learning_rate.tolist() == pytest.approx(rates[3::4])
    again = []
    trainer.get_classifier().optimizer.register_step_pre_hook(lambda o, *_: again.append(o.param_groups[0]["lr"]))
    trainer.fit(X, Y, **FIT, scheduler=given)
    assert again == pytest.approx(rates[:STEPS])  # the peak is that of the optimizer when it was first used


def test_step_by_name_falls_after_three_quarters():
    rates, _ = rates_of("step", nb_epochs=4)
    assert rates == pytest.approx([0.02] * 12 + [0.002] * 4)


@pytest.mark.parametrize("name", ["lbgat", "bgat"])
def test_every_trained_model_follows_its_own_peak(name):
    classifier = make_classifier(lr=0.02)
    guide = another(classifier)
    guide.optimizer.param_groups[0]["lr"] = 0.01
    trainer = TRAINERS[name](classifier, guide)
    trainer.fit(X, Y, **FIT, scheduler="one-cycle")
    last = OneCycle().factor((STEPS - 0.5) / STEPS)
    assert classifier.optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * last)
    assert guide.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (last if name == "lbgat" else 1))


def by_hand(make, count):
    """The rates that torch's own loop has, one step of the scheduler after each of the optimizer."""
    optimizer, rates = make_classifier(lr=0.02).optimizer, []
    scheduler = make(optimizer)
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


PER_BATCH = {
    "OneCycleLR": (lambda o: lr.OneCycleLR(o, 0.1, total_steps=STEPS), {}),
    "OneCycleLR by epochs and steps": (lambda o: lr.OneCycleLR(o, 0.1, epochs=EPOCHS, steps_per_epoch=4), {}),
    "a cosine of all steps": (lambda o: lr.CosineAnnealingLR(o, T_max=STEPS), {}),
    "asked for": (lambda o: lr.ExponentialLR(o, 0.9), {"scheduler_interval": "batch"}),
    "longer than the run": (lambda o: lr.OneCycleLR(o, 0.1, total_steps=99), {"scheduler_interval": "batch"}),
}
PER_EPOCH = {
    "OneCycleLR": (lambda o: lr.OneCycleLR(o, 0.1, total_steps=EPOCHS), {}),
    "a cosine": (lambda o: lr.CosineAnnealingLR(o, T_max=EPOCHS), {}),
    "without a length": (lambda o: lr.ExponentialLR(o, 0.9), {}),
    "asked for": (lambda o: lr.OneCycleLR(o, 0.1, total_steps=STEPS), {"scheduler_interval": "epoch"}),
}


@pytest.mark.parametrize(("make", "how"), PER_BATCH.values(), ids=PER_BATCH)
def test_a_scheduler_of_torch_steps_after_each_batch(make, how):
    assert rates_of(make, **how)[0] == pytest.approx(by_hand(make, STEPS))


@pytest.mark.parametrize(("make", "how"), PER_EPOCH.values(), ids=PER_EPOCH)
def test_a_scheduler_of_torch_steps_after_each_epoch(make, how):
    assert rates_of(make, **how)[0] == pytest.approx(np.repeat(by_hand(make, EPOCHS), 4))


def test_a_length_that_fits_nothing_is_refused():
    for total in (5, 655, 2):
        with pytest.raises(
            ValueError, match=f"scheduler: OneCycleLR has total_steps={total}; expected 3, the epochs, or 12"
        ):
            rates_of(lambda o, total=total: lr.OneCycleLR(o, 0.1, total_steps=total))
    with pytest.raises(ValueError, match="scheduler: OneCycleLR has total_steps=5; expected 3, the epochs, or 12"):
        rates_of(lambda o: lr.OneCycleLR(o, 0.1, total_steps=5), scheduler_interval="batch")  # it would fail at step 6
    with pytest.raises(ValueError, match=r"scheduler_interval: expected one of .*'batch'.*, got 'step'"):
        rates_of(None, scheduler_interval="step")
    with pytest.raises(ValueError, match=r"scheduler_interval: expected None, as Cosine.* got 'epoch'"):
        rates_of("cosine", scheduler_interval="epoch")
    with pytest.raises(ValueError, match=r"scheduler: expected one of .*did you mean 'one-cycle'"):
        rates_of("onecycle")
    with pytest.raises(TypeError, match="scheduler: expected an object with a step"):
        rates_of([OneCycle()])


def test_a_plateau_is_given_validation_errors_whatever_is_asked_for():
    rates, _ = rates_of(lambda o: lr.ReduceLROnPlateau(o, patience=0, threshold=9.0), scheduler_interval="batch")
    assert rates == pytest.approx([0.02] * 4 + [0.002] * 4 + [0.0002] * 4)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.from_numpy(X), torch.from_numpy(Y), strict=True))


@pytest.mark.parametrize(
    ("options", "scheduler"), [({}, "one-cycle"), ({"eps_warmup": 0.5}, None), ({"ema_start": 0.5}, None)]
)
def test_the_share_of_a_run_without_a_length_is_not_known(options, scheduler):
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), **options, **OPTIONS)
    with pytest.raises(ValueError, match="x: its length is not known"):
        trainer.fit(DataLoader(Endless(), batch_size=8), nb_epochs=1, scheduler=scheduler)


def test_steps_and_radius_of_the_attack_follow_the_run():
    """Images away from the bounds of the range, which would hide how far an attack can go."""
    classifier, reach, calls = make_classifier(), [], []
    options = {"max_iter_schedule": ((0.0, 2, 0.1), (0.5, 4, 0.2)), "eps_warmup": 0.75}
    trainer = MadryTrainer(
        classifier, pgd(classifier, eps=0.1, num_random_init=0), **options, **OPTIONS,
        on_step=lambda step: (reach.append(float((step.x_adv - step.x).abs().max())), calls.append("step")),
    )  # fmt: skip
    classifier.model.register_forward_hook(lambda m, *_: None if m.training else calls.append("attack"))
    trainer.fit(0.2 + 0.6 * X, Y, **FIT)
    passes = [len(part.split()) for part in " ".join(calls).split("step")[:-1]]
    assert passes == [2] * 6 + [4] * 6
    ramp = [min(1.0, (t + 0.5) / STEPS / 0.75) for t in range(STEPS)]
    gone = [
        0.1 * factor * (0.2 if t < 6 else 0.8) for t, factor in enumerate(ramp)
    ]  # number of steps times their length
    assert reach == pytest.approx(gone, rel=1e-4)
    assert trainer.history.eps.tolist() == pytest.approx([0.1 * ramp[t] for t in (3, 7, 11)])
    assert trainer.cost.student_input_backwards == 4  # that of the most steps


def test_averaging_starts_late_and_warms_up():
    classifier = make_classifier()
    weights = []
    classifier.optimizer.register_step_post_hook(lambda *_: weights.append(copied_state(classifier.model)))
    options = {"ema_decay": 0.3, "ema_start": 0.5, "ema_warmup": True}
    NaturalTrainer(classifier, **options, **OPTIONS).fit(X, Y, **FIT)
    expected = weights[6]  # step 6 of 12 is the first whose middle is in the second half
    for t, state in enumerate(weights[7:], 1):
        decay = min(0.3, (1 + t) / (10 + t))
        expected = {
            k: decay * v + (1 - decay) * state[k] if v.is_floating_point() else state[k] for k, v in expected.items()
        }
    for name, value in classifier.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_before_it_starts_the_average_is_the_weights():
    states = []
    for options in ({}, {"ema_decay": 0.9, "ema_start": 0.99}):
        classifier = make_classifier()
        NaturalTrainer(classifier, **options, **OPTIONS).fit(X, Y, **FIT)
        states.append(classifier.model.state_dict())
    assert states_equal(*states)


def test_digits_are_learnt_by_one_cycle():
    data = load_digits()
    classifier = make_classifier(lr=0.2, shape=(1, 8, 8), classes=10)
    NaturalTrainer(classifier, **OPTIONS).fit(*data.train, batch_size=64, nb_epochs=3, scheduler="one-cycle")
    assert (classifier.predict(data.test[0]).argmax(axis=1) == data.test[1]).mean() > 0.85
