"""EMA, which epoch is kept and why, early stopping, collapse, held-out data."""

import logging

import numpy as np
import pytest
import torch

from art_lbgat import BGATTrainer, FastATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, StepSchedule
from art_lbgat.data import Images, MixedData
from art_lbgat.losses import Term, mse
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS, TRAINERS, another, pgd

EVERY = pytest.mark.parametrize("name", TRAINERS)
X, Y = make_data(32)
HELD = make_data(16, seed=9)


class Recording:
    """Notes the weights at the end of each epoch, as a scheduler."""

    def __init__(self, classifier):
        self.classifier, self.states = classifier, []

    def step(self):
        self.states.append(copied_state(self.classifier.model))


@EVERY
def test_ema_is_kept_validated_and_changes_no_training_step(name):
    states, trainers = {}, {}
    for decay in (None, 0.5):
        classifier = make_classifier()
        trainer = TRAINERS[name](classifier, ema_decay=decay, keep="last")
        trainer.fit(X, Y, validation_data=HELD, batch_size=16, nb_epochs=3)
        states[decay], trainers[decay] = copied_state(classifier.model), trainer
    raw = trainers[0.5].kept_weights["raw"]["classifier"]
    assert states_equal(states[None], raw)
    assert not states_equal(states[None], states[0.5])
    assert trainers[None].kept_weights == {}
    # the validated numbers are those of the averaged weights
    classifier = trainers[0.5].get_classifier()
    accuracy = (classifier.predict(HELD[0]).argmax(axis=1) == HELD[1]).mean()
    assert trainers[0.5].history.validation_natural_accuracy.iloc[-1] == pytest.approx(accuracy)


@pytest.mark.parametrize("clip_values", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_validation_images_come_in_the_range_of_the_classifier(clip_values):
    x, y = make_data(48)
    images = Images((x * 255).astype(np.uint8), y)
    low, high = clip_values
    for kwargs in ({"validation_data": images.subset(range(16))}, {"validation_split": 0.25}):
        classifier = make_classifier(clip_values=clip_values, lr=0.05)
        trainer = NaturalTrainer(classifier, keep="last", **OPTIONS)
        trainer.fit(images, batch_size=12, nb_epochs=6, **kwargs)
        values = images.arrays()[0] * np.float32(high - low) + np.float32(low)
        accuracy = (classifier.predict(values).argmax(axis=1) == y).mean()
        assert trainer.history.validation_natural_accuracy.iloc[-1] == pytest.approx(accuracy, abs=0.15)
        assert accuracy > 0.7


def test_ema_selects_and_restores_averaged_weights():
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), ema_decay=0.7, **OPTIONS)
    trainer.fit(X, Y, validation_data=HELD, batch_size=8, nb_epochs=4)
    history = trainer.history
    accuracy = (classifier.predict(HELD[0]).argmax(axis=1) == HELD[1]).mean()
    assert history.validation_natural_accuracy[history.kept].item() == pytest.approx(accuracy)
    plain = make_classifier()
    other = MadryTrainer(plain, pgd(plain), **OPTIONS)
    other.fit(X, Y, validation_data=HELD, batch_size=8, nb_epochs=4)
    assert history.loss.tolist() == other.history.loss.tolist()
    assert not states_equal(classifier.model.state_dict(), plain.model.state_dict())


def test_ema_is_the_recursion_over_steps():
    classifier = make_classifier()
    weights = []
    classifier.optimizer.register_step_post_hook(lambda *_: weights.append(copied_state(classifier.model)))
    NaturalTrainer(classifier, ema_decay=0.8, **OPTIONS).fit(X, Y, batch_size=8, nb_epochs=2)
    expected = weights[0]
    for state in weights[1:]:
        expected = {k: 0.8 * v + 0.2 * state[k] if v.is_floating_point() else state[k] for k, v in expected.items()}
    for name, value in classifier.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_keep_both_gives_best_and_last():
    classifier, guide = make_classifier(), make_classifier(seed=1)
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), keep="both", **OPTIONS)
    students, guides = Recording(classifier), Recording(guide)
    trainer.fit(X, Y, validation_data=HELD, batch_size=16, nb_epochs=4, scheduler=[students, guides])
    kept = trainer.history.set_index("epoch").kept
    best = int(kept[kept].index[0])
    assert set(trainer.kept_weights) == {"best", "last"}
    for name, recording in (("classifier", students), ("guide", guides)):
        assert states_equal(trainer.kept_weights["best"][name], recording.states[best - 1])
        assert states_equal(trainer.kept_weights["last"][name], recording.states[-1])
    assert states_equal(classifier.model.state_dict(), students.states[best - 1])
    reasons = trainer.history.kept_because
    assert reasons[best - 1].startswith("highest robust validation accuracy (")
    assert (reasons.drop(best - 1) == "").all()


def test_patience_ends_the_training_and_says_so(caplog):
    classifier = make_classifier(lr=1e-9)  # nothing improves
    trainer = MadryTrainer(classifier, pgd(classifier), patience=2, **OPTIONS)
    trainer.fit(X, Y, validation_data=HELD, batch_size=16, nb_epochs=10)
    assert trainer.history.epoch.tolist() == [1, 2, 3]
    assert trainer.history.kept.tolist() == [True, False, False]
    assert "stopped early: no better validation accuracy for 2" in trainer.history.kept_because[0]
    assert "PGD-AT stops after epoch 3 of 10" in caplog.text


class Ruin:
    """A scheduler that destroys the weights at the end of one epoch."""

    def __init__(self, classifier, epoch):
        self.classifier, self.epoch, self.count = classifier, epoch, 0

    def step(self):
        self.count += 1
        if self.count == self.epoch:
            with torch.no_grad():
                self.classifier.model[7].bias.copy_(torch.tensor([100.0, 0, 0, 0]))
                self.classifier.model[7].weight.zero_()


@pytest.mark.parametrize("on_collapse", ["warn", "stop"])
def test_fast_at_reports_a_collapse_and_stops_where_asked(on_collapse, caplog):
    """The last layer is ruined after a good epoch: robust validation accuracy falls to a quarter (one class of four)."""
    x, y = make_data(64)
    classifier = make_classifier(lr=0.05)
    MadryTrainer(classifier, pgd(classifier), **OPTIONS).fit(x, y, batch_size=16, nb_epochs=8)
    for group in classifier.optimizer.param_groups:
        group["lr"] = 1e-6
    trainer = FastATTrainer(classifier, on_collapse=on_collapse, **OPTIONS)
    trainer.fit(x, y, validation_data=HELD, batch_size=16, nb_epochs=4, scheduler=Ruin(classifier, 2))
    history = trainer.history
    assert history.validation_robust_accuracy[0] > 0.75
    assert history.collapsed[2]
    assert "robust accuracy collapsed in epoch 3" in caplog.text
    assert len(history) == (3 if on_collapse == "stop" else 4)
    assert history.kept[0]
    assert (classifier.predict(HELD[0]).argmax(axis=1) == HELD[1]).mean() > 0.75  # the good weights are back


def test_fast_at_without_validation_data_warns_and_attacks_once(caplog):
    classifier = make_classifier()
    trainer = FastATTrainer(classifier, **OPTIONS)
    assert (trainer.attack.eps, trainer.attack.eps_step) == (pytest.approx(8 / 255), pytest.approx(10 / 255))
    assert str(trainer.cost) == "5 F"
    trainer.fit(X, Y, batch_size=16, nb_epochs=1)
    assert "catastrophic overfitting would go unnoticed" in caplog.text


def test_validation_split_is_held_out_stratified_and_repeatable():
    class Spy(NaturalTrainer):
        def _fit(self, stream, nb_epochs, validation_data, batch_size, scheduler):
            seen.append((stream, validation_data))
            super()._fit(stream, nb_epochs, validation_data, batch_size, scheduler)

    seen = []
    x, y = make_data(40)
    for data in ((x, y), (x, y), (x, np.eye(4, dtype=np.float32)[y]), (Images((x * 255).astype(np.uint8), y), None)):
        trainer = Spy(make_classifier(), **OPTIONS)
        trainer.fit(*data, batch_size=16, nb_epochs=1, validation_split=0.25)
        assert "validation_natural_accuracy" in trainer.history
    held = [data.arrays() if isinstance(data, Images) else data for _, data in seen]
    for _, labels in held:
        assert np.bincount(labels, minlength=4).tolist() == [3, 3, 2, 2] or len(labels) == 10
    assert np.array_equal(held[0][0], held[1][0])
    rows = {row.tobytes() for row in held[0][0]}
    trained = {row.numpy().tobytes() for batch in seen[0][0].epoch(_key()) for row in batch.x}
    assert len(rows) == 10
    assert len(trained) == 30
    assert not rows & trained


def _key():
    from art_lbgat.preserve import Key

    return Key(0)


def test_overlapping_validation_data_are_warned_of(caplog):
    trainer = NaturalTrainer(make_classifier(), **OPTIONS)
    images = Images((X * 255).astype(np.uint8), Y)
    for x, held, shared in (
        (X, (X[:5], Y[:5]), 5),
        (X, HELD, 0),
        (images, images.subset(range(7)), 7),
        (torch.from_numpy(X), (X[:2].astype(np.float64), Y[:2]), 2),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            trainer.fit(x, None if x is images else Y, validation_data=held, nb_epochs=1, batch_size=16)
        found = f"{shared} of its {shared} different samples are in the training data too" in caplog.text
        assert found == bool(shared)
        assert ("samples are in the training data" in caplog.text) == bool(shared)


def test_extra_data_that_hold_validation_samples_are_warned_of(caplog):
    mixed = MixedData((X, Y), (HELD[0][:6], HELD[1][:6]), extra_fraction=0.25)
    NaturalTrainer(make_classifier(), **OPTIONS).fit(mixed, validation_data=HELD, nb_epochs=1, batch_size=16)
    assert "6 of its 16 different samples are in the training data too" in caplog.text


def test_a_schedule_is_made_for_every_trained_optimizer():
    classifier, guide = make_classifier(lr=0.1), make_classifier(seed=1, lr=0.05)
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), **OPTIONS)
    trainer.fit(X, Y, batch_size=16, nb_epochs=4, scheduler=StepSchedule((2,), first_epoch_factor=0.2))
    assert trainer.history.learning_rate.tolist() == pytest.approx([0.02, 0.1, 0.01, 0.01])
    assert trainer.history.guide_learning_rate.tolist() == pytest.approx([0.01, 0.05, 0.005, 0.005])


def test_a_learnable_guide_may_start_from_trained_weights():
    trained = make_classifier(seed=1, lr=0.05)
    NaturalTrainer(trained, **OPTIONS).fit(X, Y, batch_size=16, nb_epochs=6)
    losses = []
    for guide in (trained, make_classifier(seed=1)):
        before = copied_state(guide.model)
        classifier = make_classifier()
        trainer = LBGATTrainer(classifier, guide, pgd(classifier), **OPTIONS)
        trainer.fit(X, Y, batch_size=32, nb_epochs=1)
        losses.append(trainer.history.guide_ce[0])
        assert not states_equal(before, guide.model.state_dict())
    assert losses[0] < 0.5 * losses[1]


def test_a_cached_guide_gives_the_same_training():
    states = []
    for cache_guide in (False, True):
        classifier = make_classifier()
        trainer = BGATTrainer(
            classifier, make_classifier(seed=1), pgd(classifier), cache_guide=cache_guide, awp_gamma=0.01,
            awp_start_epoch=2, **OPTIONS,
        )  # fmt: skip
        trainer.fit(X, Y, batch_size=12, nb_epochs=3)
        states.append(copied_state(classifier.model))
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-5)


def test_a_guidance_callable_is_used():
    def halved(adversarial, guide, y):
        return {name: Term(value, 0.5) for name, (value, _) in mse(adversarial, guide).items()}

    losses = {}
    for guidance in ("mse", halved):
        classifier = make_classifier()
        trainer = BGATTrainer(classifier, another(classifier), pgd(classifier), guidance=guidance, **OPTIONS)
        trainer.fit(X, Y, batch_size=32, nb_epochs=1)
        losses[guidance] = trainer.history.loss[0]
    assert losses[halved] == pytest.approx(losses["mse"] / 2)
