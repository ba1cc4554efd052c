"""Attack objects in the tensor loop: bit-equal to ``attack.generate`` where they are read, else refused with a reason."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    AdversarialPatch,
    AutoAttack,
    AutoConjugateGradient,
    AutoProjectedGradientDescent,
    BasicIterativeMethod,
    CarliniL2Method,
    DeepFool,
    FastGradientMethod,
    MomentumIterativeMethod,
    ProjectedGradientDescent,
    RescalingAutoConjugateGradient,
)
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)
from art.defences.preprocessor import CutoutPyTorch, JpegCompression
from torch import nn

from art_lbgat import MadryTrainer
from art_lbgat.attacks import PGDAttack, TensorAttack, TRADESAttack, read_attack
from art_lbgat.classifier import TensorView
from art_lbgat.engine.adversary import Adversary
from art_lbgat.evaluation import evaluate
from art_lbgat.preserve import Key, evaluating
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS


def pgd(classifier, **kwargs):
    return ProjectedGradientDescent(
        classifier, **{"eps": 0.1, "eps_step": 0.03, "max_iter": 5, "verbose": False, "batch_size": 7, **kwargs}
    )


def l2(classifier, **kwargs):
    return pgd(classifier, **{"norm": 2, "eps": 0.8, "eps_step": 0.3, "batch_size": 32, **kwargs})


def read(attack):
    return read_attack(attack, TensorView(attack.estimator))


def in_the_loop(attack, x, y):
    """The examples that a trainer makes with the attack, without ``generate``."""
    adversary = Adversary(attack, TensorView(attack.estimator))
    assert adversary.ascent is not None, adversary.reason
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    with evaluating(attack.estimator.model):
        return adversary.examples(x, y, Key(0), adversary.starts(x, Key(0))).numpy()


WEIGHTED = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 2.0, 1.0, 5.0]))
EXACT = {
    "pgd linf": (make_classifier, pgd),
    "pgd linf 'inf'": (make_classifier, lambda c: pgd(c, norm="inf")),
    "pgd l2": (make_classifier, l2),
    "pgd worker": (make_classifier, lambda c: ProjectedGradientDescentPyTorch(c, eps=0.1, eps_step=0.03, max_iter=5, verbose=False)),
    "bim": (make_classifier, lambda c: BasicIterativeMethod(c, eps=0.1, eps_step=0.03, max_iter=5, verbose=False)),
    "fgsm": (make_classifier, lambda c: FastGradientMethod(c, eps=0.1)),
    "pgd max_iter 0": (make_classifier, lambda c: pgd(c, max_iter=0, num_random_init=1)),
    "standardisation": (lambda: make_classifier(preprocessing=(0.4, 0.3)), pgd),
    "no clip_values": (lambda: make_classifier(clip_values=None), l2),
    "pixels 0-255": (lambda: make_classifier(clip_values=(0, 255), preprocessing=(0, 255)), lambda c: pgd(c, eps=8.0, eps_step=2.0)),
    "label smoothing": (lambda: make_classifier(loss=nn.CrossEntropyLoss(label_smoothing=0.3)), pgd),
    "class weights": (lambda: make_classifier(loss=WEIGHTED), l2),
    "multi-margin loss": (lambda: make_classifier(loss=nn.MultiMarginLoss()), pgd),
}  # fmt: skip


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("make", "build"), EXACT.values(), ids=EXACT)
def test_bitwise_equal_to_generate(make, build, soft):
    classifier = make()
    x, y = make_data(20)
    if classifier.clip_values is not None:
        x = x * classifier.clip_values[1]
    labels = np.eye(4, dtype=np.float32)[y]
    if soft and isinstance(classifier.loss, nn.CrossEntropyLoss):
        y = labels = labels * 0.75 + 0.0625  # exact in binary, so that ART's renormalisation in FGSM changes nothing
    attack = build(classifier)
    expected = attack.generate(x, labels)
    assert np.array_equal(in_the_loop(attack, x, y), expected)
    assert build is EXACT["pgd max_iter 0"][1] or not np.array_equal(expected, x)


def test_random_start_of_a_read_attack_is_in_the_ball_and_uniform():
    attack = pgd(make_classifier(clip_values=None), num_random_init=1, eps_step=1e-9, max_iter=1)
    x, y = make_data(400)
    delta = (in_the_loop(attack, x, y) - x) / 0.1
    assert np.abs(delta).max() <= 1 + 1e-5
    assert delta.mean() == pytest.approx(0, abs=0.02)
    assert delta.std() == pytest.approx(1 / np.sqrt(3), abs=0.01)


Mine = type("Mine", (ProjectedGradientDescent,), {})
OwnGenerate = type("OwnGenerate", (PGDAttack,), {"generate": lambda self, x, y=None, **kwargs: x})
OwnPerturb = type("OwnPerturb", (TRADESAttack,), {"perturb": lambda self, x, y=None, generator=None: x})


def patched(classifier):
    attack = PGDAttack(classifier, max_iter=1)
    attack.generate = lambda x, y=None: x
    return attack


def watched(classifier):
    attack = pgd(classifier)
    attack._attack._summary_writer = object()
    return attack


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.rnn(x.flatten(1, 2))[0][:, -1])


def made(**kwargs):
    return lambda _: pgd(make_classifier(**kwargs))


JPEG = JpegCompression(clip_values=(0, 1), channels_first=True, verbose=False)
CUTOUT = CutoutPyTorch(length=2, channels_first=True, apply_predict=True)
NOT_READ = {
    "subclass": (lambda c: Mine(c, verbose=False), "Mine is not an attack that the tensor loop knows"),
    "momentum": (lambda c: MomentumIterativeMethod(c, verbose=False), "MomentumIterativeMethod is not an attack"),
    "decay": (lambda c: pgd(c, decay=0.9), "decay"),
    "random_eps": (lambda c: pgd(c, random_eps=True), "random_eps"),
    "norm 1": (lambda c: pgd(c, norm=1), "norm 1"),
    "restarts": (lambda c: pgd(c, num_random_init=2), "num_random_init > 1"),
    "minimal": (lambda c: FastGradientMethod(c, minimal=True), "minimal"),
    "fgsm l2": (lambda c: FastGradientMethod(c, norm=2), "norm inf only"),
    "generate of a subclass": (lambda c: OwnGenerate(c, max_iter=1), "OwnGenerate has a generate of its own"),
    "perturb of a subclass": (lambda c: OwnPerturb(c, max_iter=1), "OwnPerturb has a perturb of its own"),
    "generate of an object": (patched, "PGDAttack has a generate of its own"),
    "eps per sample": (lambda c: pgd(c, eps=np.array([0.1]), eps_step=np.array([0.1])), "eps is an array"),
    "targeted": (lambda c: pgd(c, targeted=True), "it is targeted"),
    "writer": (watched, "a summary_writer is attached"),
    "numpy defence": (made(preprocessing_defences=JPEG), "a preprocessing defence is written in numpy"),
    "random defence": (made(preprocessing_defences=CUTOUT), "CutoutPyTorch acts at prediction"),
    "loss of other labels": (made(loss=nn.MSELoss()), "takes labels in a form of its own"),
    "loss of rows": (made(loss=nn.CrossEntropyLoss(reduction="none")), "does not reduce to a scalar"),
    "recurrent": (made(model=Recurrent()), "the model is recurrent"),
}


@pytest.mark.parametrize(("build", "reason"), NOT_READ.values(), ids=NOT_READ)
def test_what_art_treats_in_its_own_way_is_not_read_and_says_why(build, reason):
    ascent, why = read(build(make_classifier()))
    assert ascent is None
    assert reason in why


@pytest.mark.parametrize("build", [OwnGenerate, patched, lambda c: DeepFool(c, verbose=False)])
def test_what_is_not_read_trains_through_generate_and_says_why(build, caplog, classifier):
    attack = build(classifier)
    trainer, before = MadryTrainer(classifier, attack, **OPTIONS), copied_state(classifier.model)
    trainer.fit(*make_data(8), nb_epochs=1)
    assert not states_equal(before, classifier.model.state_dict())
    assert trainer.cost is None
    assert f"{type(attack).__name__} runs through attack.generate: {read(attack)[1]}" in caplog.text


def test_parameters_come_from_the_worker_which_is_left_alone():
    attack = pgd(make_classifier())
    before = copy.copy(attack._attack.__dict__)
    attack.eps = 0.9  # changes only the shell; ART runs the worker
    assert read(attack)[0].eps == 0.1
    assert before == attack._attack.__dict__
    attack.set_params(eps=0.2)
    assert read(attack)[0].eps == 0.2


class Twice(TensorAttack):
    """An attack of a user: the margin from two starts."""

    def __init__(self, estimator, eps, restarts=2):
        super().__init__(estimator, "inf", eps, eps / 4, 3)
        self.restarts = restarts
        self._check_params()

    def ascent(self):
        return replace(super().ascent(), objective="cw", restarts=self.restarts)


class Half(PGDAttack):
    """A subclass that changes what is run and nothing else."""

    def ascent(self):
        return super().ascent().scaled(0.5)


@pytest.mark.parametrize("build", [PGDAttack, TRADESAttack, lambda c: Twice(c, 0.1), Half])
def test_any_tensor_attack_trains_in_the_loop_as_its_ascent_says(build, classifier):
    attack = build(classifier)
    assert read(attack) == (attack.ascent(), "")
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    trainer.fit(*make_data(8), nb_epochs=1)
    ascent = attack.ascent()
    assert trainer.cost.student_forwards == ascent.forwards() + 1
    assert trainer.history.eps[0] == ascent.eps
    assert (ascent.eps == 0.0155) == (build is Half)


def test_an_attack_of_a_user_generates_what_it_trains_on():
    attack = Twice(make_classifier(clip_values=None), 0.1, restarts=1)
    x, y = make_data(8)
    torch.manual_seed(0)
    expected = attack.generate(x, y)
    starts = torch.Generator().manual_seed(0)
    assert np.array_equal(attack.perturb(torch.from_numpy(x), torch.from_numpy(y), starts).numpy(), expected)
    assert np.abs(expected - x).max() == pytest.approx(0.1)
    attack.ascent = lambda: {"eps": 0.1}
    with pytest.raises(TypeError, match=r"ascent\(\): expected an Ascent, got dict"):
        read(attack)


def test_an_attack_bound_to_another_object_on_the_same_module_is_generated(classifier):
    twin, view = make_classifier(classifier.model), TensorView(classifier)
    for build in (PGDAttack, pgd):
        assert "bound to another object" in read_attack(build(twin), view)[1]
    options = {"eps": 0.1, "eps_step": 0.05, "max_iter": 2, "nb_random_init": 1, "verbose": False}
    attack = AutoProjectedGradientDescent(classifier, loss_type="cross_entropy", **options)
    assert attack.estimator is not classifier
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    trainer.fit(*make_data(8), nb_epochs=1)
    assert np.isfinite(trainer.history.loss[0])


def radii(*shape):
    value = np.linspace(0.01, 0.1, int(np.prod(shape))).reshape(shape)
    return {"eps": value, "eps_step": value}


def auto(classifier, attack, **kwargs):
    return AutoAttack(classifier, eps=0.1, eps_step=0.05, attacks=[attack], **kwargs)


def patch(classifier):
    return AdversarialPatch(classifier, max_iter=1, batch_size=2, patch_shape=(1, 8, 8), verbose=False)


PER_SAMPLE = "attack: its eps is given per sample, but training draws its batches in random order"
NO_EXAMPLES = "generate returned a tuple of 2 for inputs of shape .*; expected one adversarial example for each"
NOT_TRAINED = {
    "pgd, a radius per sample": (lambda c: pgd(c, **radii(8, 1, 1, 1)), 8, PER_SAMPLE),
    "bim, per sample and pixel": (lambda c: BasicIterativeMethod(c, **radii(8, 1, 8, 8), verbose=False), 8, PER_SAMPLE),
    "fgsm, of another batch size": (lambda c: FastGradientMethod(c, **radii(4, 1, 1, 1)), 8, PER_SAMPLE),
    "pgd, flat": (lambda c: pgd(c, **radii(4)), 4, PER_SAMPLE),
    "pgd in a list": (lambda c: auto(c, pgd(c, **radii(8, 1, 1, 1))), 8, PER_SAMPLE),
    "a subclass of ours": (lambda c: OwnGenerate(c, **radii(8), max_iter=1), 8, PER_SAMPLE),
    "patch and mask of two": (patch, 2, NO_EXAMPLES),
    "patch and mask of four": (patch, 4, NO_EXAMPLES),
    "pool": (lambda c: auto(c, pgd(c), parallel_pool_size=2), 8, "parallel_pool_size of AutoAttack .* expected 0, got 2"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "batch_size", "match"), NOT_TRAINED.values(), ids=NOT_TRAINED)
def test_what_makes_no_example_of_each_shuffled_sample_is_refused_before_the_first_step(build, batch_size, match):
    classifier = make_classifier()
    before, optimizer = copied_state(classifier.model), classifier.optimizer
    with pytest.raises(ValueError, match=match):
        MadryTrainer(classifier, build(classifier), **OPTIONS).fit(*make_data(8), batch_size=batch_size, nb_epochs=1)
    assert states_equal(before, classifier.model.state_dict())
    assert classifier.optimizer is optimizer


@pytest.mark.parametrize("shape", [(1,), (8,), (1, 8, 8), (1, 1, 8, 8)])
def test_a_radius_for_each_feature_trains_as_art_attacks(shape):
    """Equal radii give the weights of one number; the width of the image decides what ``(8,)`` means, as in ART."""
    found = []
    for value in (0.1, np.full(shape, 0.1)):
        classifier = make_classifier(lr=0.02)
        MadryTrainer(classifier, pgd(classifier, eps=value, eps_step=value), **OPTIONS).fit(*make_data(16), nb_epochs=1)
        found.append(copied_state(classifier.model))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


AUTO = {"eps": 0.001, "eps_step": 0.001, "max_iter": 2, "nb_random_init": 1, "verbose": False}
UNFLIPPED = {
    "APGD": (lambda c: AutoProjectedGradientDescent(c, **AUTO), "returns samples that it did not flip unattacked"),
    "ACG": (lambda c: AutoConjugateGradient(c, **AUTO), "returns samples that it did not flip unattacked"),
    "RACG": (lambda c: RescalingAutoConjugateGradient(c, **AUTO), "returns samples that it did not flip unattacked"),
    "AutoAttack": (lambda c: auto(c, pgd(c)), "returns samples that it did not flip unattacked"),
    "CW": (lambda c: CarliniL2Method(c, max_iter=1, binary_search_steps=1, verbose=False), "of the 8 samples of a batch"),
    "FGSM": (lambda c: FastGradientMethod(c, eps=1e-6, num_random_init=2), "of the 8 samples of a batch unattacked"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "message"), UNFLIPPED.values(), ids=UNFLIPPED)
def test_samples_that_stay_unattacked_are_said_once(build, message, caplog, classifier):
    MadryTrainer(classifier, build(classifier), **OPTIONS).fit(*make_data(16), batch_size=8, nb_epochs=2)
    assert caplog.text.count(message) == 1
    assert caplog.text.count("unattacked") == 1


def test_evaluation_takes_no_patch_and_leaves_the_optimizer(classifier):
    class Taking(FastGradientMethod):
        def generate(self, x, y=None, **kwargs):
            self.estimator._optimizer = None
            return super().generate(x, y)

    optimizer = classifier.optimizer
    evaluate(classifier, *make_data(8), eps=0.1, attacks=Taking(classifier, eps=0.1))
    assert classifier.optimizer is optimizer
    with pytest.raises(ValueError, match=r"attacks: AdversarialPatch.generate returned a tuple"):
        evaluate(classifier, *make_data(2), eps=0.1, attacks=patch(classifier))
