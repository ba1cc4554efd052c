"""EMA, which epoch is kept and why, early stopping, collapse, held-out data."""

import logging

import numpy as np
import pytest
import torch
from art.data_generators import NumpyDataGenerator

from art_lbgat import FastATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, StepSchedule
from art_lbgat.data import Images, MixedData
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS, TRAINERS, pgd

X, Y = make_data(32)
HELD = make_data(16, seed=9)


@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "adr"])  # whose steps need the average
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
    x, y = make_data(40)
    images, soft = Images((x * 255).astype(np.uint8), y), np.eye(4, dtype=np.float32)[y]
    found = []
    for data in ((x, y), (x, y), (x, soft), (images, None)):
        steps = []
        trainer = NaturalTrainer(make_classifier(), on_step=steps.append, **OPTIONS)
        trainer.fit(*data, batch_size=16, nb_epochs=1, validation_split=0.25)
        assert "validation_natural_accuracy" in trainer.history
        labels = torch.cat([step.y if step.y.ndim == 1 else step.y.argmax(dim=1) for step in steps])
        assert sorted(np.bincount(labels, minlength=4)) == [7, 7, 8, 8]  # of ten each
        found.append({row.numpy().tobytes() for step in steps for row in step.x})
        assert len(found[-1]) == 30
    assert found[0] == found[1] == found[2]


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


def pairs(y=HELD[1], **kwargs):
    return torch.utils.data.DataLoader(dataset(y), **{"batch_size": 3, **kwargs})


def dataset(y=HELD[1]):
    return torch.utils.data.TensorDataset(torch.from_numpy(HELD[0]), torch.from_numpy(y))


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        return zip(*HELD, strict=True)


SOFT = np.eye(4, dtype=np.float32)[HELD[1]] * 0.9 + 0.025
# what is given as validation_data, whether its order is that of the arrays, and the arrays that it holds
HELD_AS = {
    "a loader": (pairs, True, HELD),
    "a shuffling loader": (lambda: pairs(shuffle=True), False, HELD),
    "a loader with a generator": (lambda: pairs(shuffle=True, generator=torch.Generator().manual_seed(4)), False, HELD),
    "a loader of soft labels": (lambda: pairs(SOFT), True, (HELD[0], SOFT)),
    "a loader with workers": (lambda: pairs(num_workers=1), True, HELD),
    "a data set": (dataset, False, HELD),
    "a part of a data set": (lambda: torch.utils.data.Subset(dataset(), range(5)), False, (HELD[0][:5], HELD[1][:5])),
    "an iterable data set": (Endless, True, HELD),
    "a generator of ART": (lambda: NumpyDataGenerator(*HELD, batch_size=4, shuffle=False), True, HELD),
}


@pytest.mark.parametrize(("make", "in_order", "arrays"), HELD_AS.values(), ids=HELD_AS)
def test_validation_data_of_a_loader_are_those_of_arrays(make, in_order, arrays, tmp_path):
    columns = ["validation_natural_accuracy", "validation_robust_accuracy"]
    given, found = make(), []
    own = getattr(given, "generator", None)
    state = own.get_state() if isinstance(own, torch.Generator) else None
    for data in (given, given, arrays):
        classifier = make_classifier(lr=0.02)
        trainer = MadryTrainer(classifier, pgd(classifier), **OPTIONS)
        trainer.fit(X, Y, validation_data=data, batch_size=16, nb_epochs=3)
        found.append(trainer.history[columns])
    assert found[0].equals(found[1])
    columns = columns if in_order else columns[:1]  # random starts follow the order
    assert found[0][columns].equals(found[2][columns])
    assert state is None or torch.equal(state, own.get_state())
    for epochs in (1, 2):  # the second goes on from the first: the data are known again
        classifier = make_classifier(lr=0.02)
        trainer = MadryTrainer(classifier, pgd(classifier), checkpoint_dir=tmp_path, **OPTIONS)
        trainer.fit(X, Y, validation_data=make(), batch_size=16, nb_epochs=epochs)
    assert trainer.history.epoch.tolist() == [1, 2]


BAD_HELD = {
    "three of a kind": (torch.utils.data.TensorDataset(*[torch.zeros(2, 1, 8, 8)] * 3), "every batch must be a pair"),
    "another shape": (torch.utils.data.TensorDataset(torch.zeros(2, 8, 8), torch.zeros(2)), r"expected shape \(N, 1, 8, 8\)"),
    "another class": (pairs(HELD[1] + 9), "expected class indices"),
    "nothing": (torch.utils.data.DataLoader([]), "no batch came"),
    "NaN": (torch.utils.data.TensorDataset(torch.full((2, 1, 8, 8), np.nan), torch.zeros(2)), "expected finite values"),
    "a list": ([1, 2, 3], "expected a pair .*, a DataLoader or a Dataset, got list"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "match"), BAD_HELD.values(), ids=BAD_HELD)
def test_validation_data_that_are_wrong_are_refused_by_name(data, match):
    with pytest.raises(ValueError, match=f"^validation_data.*{match}"):
        NaturalTrainer(make_classifier(), **OPTIONS).fit(X, Y, validation_data=data, nb_epochs=1)


def test_overlap_is_seen_in_a_loader_too(caplog):
    held = torch.utils.data.TensorDataset(torch.from_numpy(X[:3]), torch.from_numpy(Y[:3]))
    NaturalTrainer(make_classifier(), **OPTIONS).fit(X, Y, validation_data=held, nb_epochs=1, batch_size=16)
    assert "3 of its 3 different samples are in the training data too" in caplog.text
