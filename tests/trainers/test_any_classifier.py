"""Any legal ``PyTorchClassifier`` works, in every trainer, and is trained on what ART would give the model."""

import numpy as np
import pytest
import torch
from art.defences.postprocessor import Rounded
from art.defences.preprocessor import (
    CutoutPyTorch,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    MixupPyTorch,
    SpatialSmoothing,
)
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from torch import nn

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, TRADESTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.classifier import TensorView
from tests.conftest import conv_net, copied_state, make_classifier, make_data, mlp, states_equal
from tests.trainers.cases import ADVERSARIAL, OPTIONS, TRAINERS, pgd

EVERY = pytest.mark.parametrize("build", TRAINERS.values(), ids=TRAINERS)

CLASSIFIERS = {
    "preprocessing mean and std": lambda: make_classifier(preprocessing=(0.4, 0.3)),
    "preprocessing None": lambda: make_classifier(preprocessing=None),
    "torch defence": lambda: make_classifier(preprocessing_defences=Square(), preprocessing=(0.4, 0.3)),
    "numpy defence": lambda: make_classifier(
        preprocessing_defences=SpatialSmoothing(window_size=3, channels_first=True), preprocessing=(0.4, 0.3)
    ),
    "numpy defence at prediction only": lambda: make_classifier(
        preprocessing_defences=JpegCompression(clip_values=(0, 1), channels_first=True, apply_fit=False, verbose=False)
    ),
    "clip_values per feature": lambda: make_classifier(clip_values=(np.zeros((1, 8, 8)), np.ones((1, 8, 8)))),
    "no clip_values": lambda: make_classifier(clip_values=None),
    "adam": lambda: make_classifier(optimizer="adam"),
    "loss with label smoothing": lambda: make_classifier(loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
    "loss with sum reduction": lambda: make_classifier(loss=nn.CrossEntropyLoss(reduction="sum")),
    "not a sequential": lambda: make_classifier(Wrapped()),
    "dropout": lambda: make_classifier(nn.Sequential(nn.Dropout(0.5), *conv_net())),
    "no batch norm": lambda: make_classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 4))),
    "postprocessing": lambda: make_classifier(postprocessing_defences=Rounded(decimals=2)),
    "two classes": lambda: make_classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), classes=2),
}


class Square(PreprocessorPyTorch):
    """A deterministic defence written in PyTorch: x -> x^2."""

    def __init__(self):
        super().__init__(device_type="cpu", is_fitted=True, apply_fit=True, apply_predict=True)

    def forward(self, x, y=None):
        return x**2, y


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_every_trainer_trains_it_and_predict_stays_what_art_says(make):
    for build in TRAINERS.values():
        classifier = make()
        x, y = make_data(20, classes=classifier.nb_classes)
        before = copied_state(classifier.model)
        trainer = build(classifier)
        trainer.fit(
            x, y, nb_epochs=1, batch_size=8, validation_data=make_data(8, classes=classifier.nb_classes, seed=1)
        )
        assert not states_equal(before, classifier.model.state_dict())
        assert np.isfinite(trainer.history.loss).all()
        assert classifier.predict(x).shape == (20, classifier.nb_classes)
        assert classifier.loss.reduction == make().loss.reduction


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_tensor_logits_are_arts_predictions(make):
    classifier = make()
    x, _ = make_data(12)
    classifier.model.eval()
    logits = TensorView(classifier).logits(torch.from_numpy(x)).detach().numpy()
    raw = classifier.postprocessing_defences
    classifier.postprocessing_defences = None  # acts in predict only, by ART's design
    np.testing.assert_allclose(logits, classifier.predict(x), rtol=1e-5, atol=1e-6)
    classifier.postprocessing_defences = raw


@pytest.mark.parametrize("clip", [(-1.0, 1.0), (0.0, 255.0)])
@EVERY
def test_other_ranges_with_the_papers_attack_scaled_to_them(build, clip):
    low, high = clip
    x, y = make_data(20)
    x = x * (high - low) + low
    classifier = make_classifier(clip_values=clip, preprocessing=(low, high - low))
    trainer = build(
        classifier, guide=make_classifier(seed=1, lr=0.02, clip_values=clip, preprocessing=(low, high - low))
    )
    trainer.fit(x, y, nb_epochs=1, batch_size=8)
    assert np.isfinite(trainer.history.loss).all()
    default = MadryTrainer(classifier, **OPTIONS).attack
    assert default.eps == pytest.approx(0.031 * (high - low))
    x_adv = default.generate(x, y)
    assert x_adv.min() >= low
    assert x_adv.max() <= high
    assert 0.02 * (high - low) < np.abs(x_adv - x).max() <= 0.031 * (high - low) * (1 + 1e-5)
    assert TRADESTrainer(classifier, **OPTIONS).attack.start_std == pytest.approx(0.001 * (high - low))


@EVERY
def test_inputs_that_are_no_images(build):
    classifier = make_classifier(mlp(), shape=(12,))
    x, y = make_data(20, shape=(12,))
    trainer = build(classifier, guide=make_classifier(mlp(), shape=(12,)))
    trainer.fit(x, y, nb_epochs=2, batch_size=8)
    assert len(trainer.history) == 2


@pytest.mark.parametrize("trainer_class", [BGATTrainer, LBGATTrainer])
def test_guide_of_another_architecture_optimizer_and_preprocessing(trainer_class):
    student = make_classifier(preprocessing=(0.5, 0.5))
    guide = make_classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)),
        optimizer="adam",
        preprocessing=(0.1, 0.9),
    )
    trainer = trainer_class(student, guide, pgd(student), **OPTIONS)
    seen = {}
    student.model.register_forward_pre_hook(
        lambda m, args: seen.update(student=args[0].clone()) if m.training else None
    )
    guide.model.register_forward_pre_hook(lambda m, args: seen.update(guide=args[0].clone()))
    x, y = make_data(8)
    trainer.fit(x, y, nb_epochs=1, batch_size=8)
    raw = seen["guide"] * 0.9 + 0.1
    assert torch.allclose(raw.sum(), torch.from_numpy(x).sum(), rtol=1e-5)  # same images, any order
    assert 0.01 < (seen["student"] * 0.5 + 0.5 - raw).abs().max() <= 0.03 + 1e-6  # x_adv, around the same images


def test_attack_follows_the_gradient_through_preprocessing():
    """One step by hand: the sign of the gradient that ART computes through standardisation and a torch defence."""
    x, y = make_data(8)
    for make in (CLASSIFIERS["preprocessing mean and std"], CLASSIFIERS["torch defence"], CLASSIFIERS["numpy defence"]):
        classifier = make()
        attack = PGDAttack(classifier, eps=0.1, eps_step=0.05, max_iter=1, num_random_init=0)
        gradient = classifier.loss_gradient(x, np.eye(4, dtype=np.float32)[y])
        expected = np.clip(x + 0.05 * np.sign(gradient), 0, 1)
        np.testing.assert_allclose(attack.generate(x, y), expected, atol=1e-7)


@pytest.mark.parametrize("build", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_random_defence_is_drawn_once_for_both_halves_of_a_pair(build):
    defence = CutoutPyTorch(length=4, channels_first=True, device_type="cpu")
    classifier = make_classifier(preprocessing_defences=defence)
    guide = make_classifier(
        seed=1, preprocessing_defences=CutoutPyTorch(length=4, channels_first=True, device_type="cpu")
    )
    trainer = build(classifier, guide=guide)
    student, teacher = [], []
    for net, cuts in ((classifier.model, student), (guide.model, teacher)):
        net.register_forward_pre_hook(lambda m, args, cuts=cuts: cuts.append(args[0] == 0) if m.training else None)
    x, y = make_data(16)
    trainer.fit(np.maximum(x, 0.1), y, nb_epochs=2, batch_size=16)
    steps = [student[: len(student) // 2], student[len(student) // 2 :]]
    for i, cuts in enumerate(steps):
        pair = [*cuts, teacher[i]] if trainer.title == "LBGAT" else cuts
        assert pair[0].any()
        assert all(torch.equal(pair[0], other) for other in pair)
    assert not torch.equal(steps[0][0], steps[1][0])  # but drawn anew at every step


def test_label_smoothing_defence_reaches_the_loss_and_soft_labels_stay_soft():
    x, y = make_data(16)
    losses = {}
    for name, kwargs in {"hard": {}, "smooth": {"preprocessing_defences": LabelSmoothing(max_value=0.7)}}.items():
        classifier = make_classifier(**kwargs)
        trainer = NaturalTrainer(classifier, **OPTIONS)
        trainer.fit(x, y, nb_epochs=1, batch_size=16)
        losses[name] = trainer.history.loss[0]
    soft = np.full((16, 4), 0.1, dtype=np.float32)
    soft[np.arange(16), y] = 0.7
    trainer = NaturalTrainer(make_classifier(), **OPTIONS)
    trainer.fit(x, soft, nb_epochs=1, batch_size=16)
    losses["soft"] = trainer.history.loss[0]
    assert losses["smooth"] == pytest.approx(losses["soft"], rel=1e-5)
    assert losses["soft"] != pytest.approx(losses["hard"], rel=1e-3)


@pytest.mark.parametrize("trainer_class", [BGATTrainer, LBGATTrainer])
def test_defences_that_mix_samples_are_refused_with_a_guide(trainer_class):
    mixing = make_classifier(preprocessing_defences=MixupPyTorch(num_classes=4, device_type="cpu"))
    with pytest.raises(ValueError, match="classifier: its preprocessing defences mix samples"):
        trainer_class(mixing, make_classifier(seed=1))
    with pytest.raises(ValueError, match="guide: its preprocessing defences mix samples"):
        trainer_class(make_classifier(), mixing)
    trainer = MadryTrainer(mixing, **OPTIONS)  # no guide: the pair is mixed alike
    trainer.fit(*make_data(8), nb_epochs=1)
    assert np.isfinite(trainer.history.loss[0])


def test_a_defence_that_adds_samples_is_refused():
    adding = make_classifier(preprocessing_defences=GaussianAugmentation(sigma=0.1, augmentation=True, ratio=0.5))
    with pytest.raises(ValueError, match="16 samples gave 24 adversarial outputs"):
        MadryTrainer(adding, **OPTIONS).fit(*make_data(16), nb_epochs=1)


def test_integer_uint8_float64_read_only_and_list_inputs():
    x, y = make_data(16)
    reference = make_classifier()
    MadryTrainer(reference, pgd(reference), **OPTIONS).fit(x, y, nb_epochs=1)
    read_only = x.copy()
    read_only.setflags(write=False)
    for given in (x.astype(np.float64), read_only, x.tolist()):
        classifier = make_classifier()
        MadryTrainer(classifier, pgd(classifier), **OPTIONS).fit(given, y.tolist(), nb_epochs=1)
        assert states_equal(classifier.model.state_dict(), reference.model.state_dict())
    pixels = make_classifier(clip_values=(0, 255), preprocessing=(0, 255))
    trainer = MadryTrainer(pixels, **OPTIONS)
    trainer.fit((x * 255).astype(np.uint8), y, nb_epochs=1)
    assert np.isfinite(trainer.history.loss[0])
