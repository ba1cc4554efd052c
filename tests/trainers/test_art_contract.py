"""What ART's own trainer tests ask of a trainer, rewritten, over all six trainers (and what ART users do next)."""

import pickle  # noqa: TID251 (what ART users do)

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent, SquareAttack
from art.data_generators import DataGenerator, PyTorchDataGenerator
from art.defences.trainer import Trainer
from art.evaluations.security_curve import SecurityCurve
from art.metrics import empirical_robustness, loss_sensitivity

from art_lbgat import LBGATTrainer
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import OPTIONS, TRAINERS, another

EVERY = pytest.mark.parametrize("build", TRAINERS.values(), ids=TRAINERS)


def accuracy(predictions, y):
    y = y.argmax(axis=1) if y.ndim == 2 else y
    return float((predictions.argmax(axis=1) == y).mean())


def one_hot(y):
    return np.eye(4, dtype=np.float32)[y]


@EVERY
@pytest.mark.parametrize("labels", [lambda y: y, one_hot, lambda y: y[:, None], lambda y: y.astype(np.float64)])
def test_fit_learns_with_any_label_format_and_leaves_data_alone(build, labels):
    x, y = make_data(64)
    x_test, y_test = make_data(32, seed=1)
    x_copy, x_test_copy, y_given = x.copy(), x_test.copy(), labels(y)
    y_copy = y_given.copy()
    trainer = build(make_classifier(lr=0.02))
    before = accuracy(trainer.predict(x_test), y_test)
    assert trainer.fit(x, y_given, nb_epochs=8, batch_size=16) is None
    predictions = trainer.predict(x_test)
    # BGAT's guide is untrained here, so that it has nothing to teach
    if trainer.title != "BGAT":
        assert accuracy(predictions, y_test) > max(before, 0.5)
    assert predictions.shape == (32, 4)
    assert predictions.dtype == np.float32
    np.testing.assert_array_equal(x, x_copy)
    np.testing.assert_array_equal(x_test, x_test_copy)
    np.testing.assert_array_equal(y_given, y_copy)


@EVERY
def test_is_an_art_trainer_around_the_same_classifier(build):
    classifier = make_classifier()
    module, optimizer = classifier.model, classifier.optimizer
    trainer = build(classifier)
    trainer.fit(*make_data(16), nb_epochs=1)
    assert isinstance(trainer, Trainer)
    assert trainer.get_classifier() is trainer.classifier is classifier
    assert classifier.model is module
    assert classifier.optimizer is optimizer
    if trainer.attack is not None:
        assert trainer.attack.estimator is classifier


@EVERY
def test_second_fit_with_validation_data_goes_on_and_adds_to_the_history(build):
    x, y = make_data(32)
    trainer = build(make_classifier(lr=0.02))
    trainer.fit(x, y, nb_epochs=2, batch_size=16)
    weights = trainer.get_classifier().model[0].weight.detach().clone()
    trainer.fit(x, y, validation_data=make_data(12, seed=1), nb_epochs=2, batch_size=16)
    history = trainer.history
    assert history[["fit", "epoch"]].to_numpy().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert history.validation_natural_accuracy.notna().tolist() == [False, False, True, True]
    assert not torch.equal(weights, trainer.get_classifier().model[0].weight)


class OnlyGetBatch(DataGenerator):
    """ART's test double: no iterator, only ``get_batch``."""

    def __init__(self, x, y, size, batch_size):
        super().__init__(size=size, batch_size=batch_size)
        self._x, self._y, self.calls = x, y, 0

    def get_batch(self):
        self.calls += 1
        ids = np.random.choice(len(self._x), size=self.batch_size, replace=False)
        return self._x[ids], self._y[ids]


@EVERY
def test_fit_generator_with_a_shuffled_pytorch_generator(build):
    x, y = make_data(64)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(one_hot(y))), batch_size=16, shuffle=True
    )
    trainer = build(make_classifier(lr=0.02))
    trainer.fit_generator(
        PyTorchDataGenerator(loader, size=64, batch_size=16), nb_epochs=3, validation_data=make_data(12, seed=1)
    )
    trainer.fit_generator(PyTorchDataGenerator(loader, size=64, batch_size=16), nb_epochs=1)
    assert len(trainer.history) == 4
    assert trainer.history.loss.notna().all()


@EVERY
def test_fit_generator_without_an_iterator_draws_ceil_of_size_over_batch_size(build):
    x, y = make_data(40)
    generator = OnlyGetBatch(x, y, size=40, batch_size=16)
    assert generator.iterator is None
    build(make_classifier()).fit_generator(generator, nb_epochs=2)
    assert generator.calls == 2 * 3


@EVERY
def test_loader_and_dataset_are_taken_in_place_of_arrays(build):
    x, y = make_data(40)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    for source in (torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True), dataset):
        trainer = build(make_classifier(lr=0.02))
        trainer.fit(source, batch_size=8, nb_epochs=1)
        assert trainer.history.images_per_second[0] > 0
        assert int(trainer.get_classifier().model[1].num_batches_tracked) >= 5


def test_trained_classifier_goes_on_in_art():
    x, y = make_data(64)
    x_test, y_test = make_data(16, seed=1)
    classifier = make_classifier()
    guide = another(classifier)
    trainer = LBGATTrainer(classifier, guide, **OPTIONS)
    trainer.fit(x, y, nb_epochs=8, batch_size=16)
    natural = accuracy(classifier.predict(x_test), y_test)
    for attack in (
        ProjectedGradientDescent(classifier, eps=0.3, eps_step=0.1, max_iter=5, verbose=False),
        FastGradientMethod(classifier, eps=0.3),
        SquareAttack(classifier, eps=0.3, max_iter=50, verbose=False),
    ):
        x_adv = attack.generate(x_test, one_hot(y_test))
        assert np.abs(x_adv - x_test).max() <= 0.3 + 1e-6
        assert accuracy(classifier.predict(x_adv), y_test) <= natural
    assert empirical_robustness(classifier, x_test, "fgsm", {"eps": 0.1, "minimal": True}) >= 0
    assert loss_sensitivity(classifier, x_test, one_hot(y_test)) > 0
    curve = SecurityCurve(eps=2)
    curve.evaluate(classifier, x_test, one_hot(y_test), max_iter=2, verbose=False)
    assert len(curve.eps_list) == 2
    assert trainer.get_guide() is guide
    assert accuracy(guide.predict(x_test), y_test) > 0.5


def test_nothing_is_written_to_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("art.config.ART_DATA_PATH", str(tmp_path))
    for build in TRAINERS.values():
        build(make_classifier()).fit(*make_data(16), validation_data=make_data(8, seed=1), nb_epochs=1)
    assert list(tmp_path.iterdir()) == []


@EVERY
def test_everything_art_does_with_a_classifier_works_after_training(build, tmp_path, monkeypatch):
    monkeypatch.setattr("art.config.ART_DATA_PATH", str(tmp_path))
    monkeypatch.setattr("art.estimators.classification.pytorch.config.ART_DATA_PATH", str(tmp_path))
    x, y = make_data(16)
    classifier = make_classifier()
    build(classifier).fit(x, y, nb_epochs=1)
    predictions = classifier.predict(x)
    assert classifier.class_gradient(x).shape == (16, 4, 1, 8, 8)
    assert classifier.loss_gradient(x, one_hot(y)).shape == x.shape
    assert classifier.compute_loss(x, one_hot(y)).shape == (16,)
    assert classifier.get_activations(x, layer=0, batch_size=16).shape == (16, 6, 8, 8)
    assert "PyTorchClassifier" in repr(classifier)
    classifier.save("trained", path=str(tmp_path))
    fresh = make_classifier(seed=9)
    fresh.model.load_state_dict(torch.load(tmp_path / "trained.model", weights_only=True))  # noqa: TID251
    np.testing.assert_array_equal(fresh.predict(x), predictions)
    clone = fresh.clone_for_refitting()
    clone.fit(x, y, nb_epochs=1, verbose=False)
    assert clone.predict(x).shape == (16, 4)
    copied = pickle.loads(pickle.dumps(fresh))
    np.testing.assert_array_equal(copied.predict(x), predictions)
