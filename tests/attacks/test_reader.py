"""ART attacks in the tensor loop: bit-equal to ``attack.generate`` where they are read, refused with a reason otherwise."""

import copy

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    BasicIterativeMethod,
    DeepFool,
    FastGradientMethod,
    MomentumIterativeMethod,
    ProjectedGradientDescent,
)
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)
from art.defences.preprocessor import JpegCompression
from torch import nn

from art_lbgat import LBGATTrainer, MadryTrainer
from art_lbgat.attacks import PGDAttack, TRADESAttack, read_attack
from art_lbgat.classifier import TensorView
from art_lbgat.engine.adversary import Adversary
from art_lbgat.preserve import Key, evaluating
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS, another


def pgd(classifier, **kwargs):
    return ProjectedGradientDescent(
        classifier, **{"eps": 0.1, "eps_step": 0.03, "max_iter": 5, "verbose": False, "batch_size": 7, **kwargs}
    )


EXACT = {
    "pgd linf": (make_classifier, pgd),
    "pgd linf 'inf'": (make_classifier, lambda c: pgd(c, norm="inf")),
    "pgd l2": (make_classifier, lambda c: pgd(c, norm=2, eps=0.8, eps_step=0.3, batch_size=32)),
    "pgd worker": (
        make_classifier,
        lambda c: ProjectedGradientDescentPyTorch(c, eps=0.1, eps_step=0.03, max_iter=5, verbose=False),
    ),
    "bim": (make_classifier, lambda c: BasicIterativeMethod(c, eps=0.1, eps_step=0.03, max_iter=5, verbose=False)),
    "fgsm": (make_classifier, lambda c: FastGradientMethod(c, eps=0.1)),
    "pgd max_iter 0": (make_classifier, lambda c: pgd(c, max_iter=0, num_random_init=1)),
    "standardisation": (lambda: make_classifier(preprocessing=(0.4, 0.3)), pgd),
    "no clip_values": (
        lambda: make_classifier(clip_values=None),
        lambda c: pgd(c, norm=2, eps=0.8, eps_step=0.3, batch_size=32),
    ),
    "pixels 0-255": (
        lambda: make_classifier(clip_values=(0, 255), preprocessing=(0, 255)),
        lambda c: pgd(c, eps=8.0, eps_step=2.0),
    ),
    "label smoothing": (lambda: make_classifier(loss=nn.CrossEntropyLoss(label_smoothing=0.3)), pgd),
    "class weights": (
        lambda: make_classifier(loss=nn.CrossEntropyLoss(weight=torch.tensor([0.1, 2.0, 1.0, 5.0]))),
        lambda c: pgd(c, norm=2, eps=0.8, eps_step=0.3, batch_size=32),
    ),
    "multi-margin loss": (lambda: make_classifier(loss=nn.MultiMarginLoss()), pgd),
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("make", "build"), EXACT.values(), ids=EXACT)
def test_bitwise_equal_to_generate(make, build, soft):
    classifier = make()
    x, y = make_data(20)
    if classifier.clip_values is not None:
        x = x * classifier.clip_values[1]
    labels = np.eye(4, dtype=np.float32)[y]
    if soft and isinstance(classifier.loss, nn.CrossEntropyLoss):
        labels = labels * 0.75 + 0.0625  # exact in binary, so that ART's renormalisation in FGSM changes nothing
    attack = build(classifier)
    expected = attack.generate(x, labels)
    adversary = Adversary(attack, TensorView(classifier))
    assert adversary.ascent is not None, adversary.reason
    target = (
        torch.from_numpy(labels) if soft and isinstance(classifier.loss, nn.CrossEntropyLoss) else torch.from_numpy(y)
    )
    with evaluating(classifier.model):
        ours = adversary.examples(torch.from_numpy(x), target, Key(0))
    assert np.array_equal(ours.numpy(), expected)
    assert build is EXACT["pgd max_iter 0"][1] or not np.array_equal(expected, x)


def test_l2_in_smaller_chunks_is_equal_up_to_rounding():
    classifier = make_classifier()
    x, y = make_data(20)
    attack = pgd(classifier, norm=2, eps=0.8, eps_step=0.3, batch_size=7)
    with evaluating(classifier.model):
        ours = Adversary(attack, TensorView(classifier)).examples(torch.from_numpy(x), torch.from_numpy(y), Key(0))
    np.testing.assert_allclose(ours.numpy(), attack.generate(x, np.eye(4, dtype=np.float32)[y]), atol=1e-4)


class Mine(ProjectedGradientDescent):
    pass


GENERATE = {
    "subclass": (lambda c: Mine(c, verbose=False), "Mine is not an attack that the tensor loop knows"),
    "another attack": (lambda c: DeepFool(c, verbose=False), "DeepFool is not an attack"),
    "momentum": (lambda c: MomentumIterativeMethod(c, verbose=False), "MomentumIterativeMethod is not an attack"),
    "decay": (lambda c: pgd(c, decay=0.9), "decay"),
    "random_eps": (lambda c: pgd(c, random_eps=True), "random_eps"),
    "norm 1": (lambda c: pgd(c, norm=1), "norm 1"),
    "array eps": (lambda c: pgd(c, eps=np.array([0.1]), eps_step=np.array([0.1])), "eps is an array"),
    "restarts": (lambda c: pgd(c, num_random_init=2), "num_random_init > 1"),
    "minimal": (lambda c: FastGradientMethod(c, minimal=True), "minimal"),
    "fgsm l2": (lambda c: FastGradientMethod(c, norm=2), "norm inf only"),
}


@pytest.mark.parametrize(("build", "reason"), GENERATE.values(), ids=GENERATE)
def test_anything_else_goes_through_generate_and_says_why(build, reason):
    classifier = make_classifier()
    attack = build(classifier)
    ascent, why = read_attack(attack, TensorView(classifier))
    assert ascent is None
    assert reason in why
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    if "array" not in reason:
        before = copied_state(classifier.model)
        trainer.fit(*make_data(8), nb_epochs=1)
        assert not states_equal(before, classifier.model.state_dict())
    assert trainer.cost is None


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"preprocessing_defences": JpegCompression(clip_values=(0, 1), channels_first=True, verbose=False)}, "numpy"),
        ({"loss": nn.MSELoss()}, "takes labels in a form of its own"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "does not reduce to a scalar"),
    ],
)
def test_classifiers_that_arts_pgd_treats_in_its_own_way_are_not_read(kwargs, reason):
    classifier = make_classifier(**kwargs)
    assert reason in read_attack(pgd(classifier), TensorView(classifier))[1]


def test_recurrent_nets_are_not_read():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.rnn(x.flatten(1, 2))[0][:, -1])

    classifier = make_classifier(Recurrent())
    assert "recurrent" in read_attack(pgd(classifier), TensorView(classifier))[1]
    MadryTrainer(classifier, **OPTIONS).fit(*make_data(8), nb_epochs=1)


def test_a_writer_is_not_read(tmp_path):
    classifier = make_classifier()
    attack = pgd(classifier)
    attack._attack._summary_writer = object()
    assert "summary_writer" in read_attack(attack, TensorView(classifier))[1]


def test_parameters_come_from_the_worker_not_from_the_shell():
    classifier = make_classifier()
    attack = pgd(classifier)
    attack.eps = 0.9  # changes only the shell; ART runs the worker
    assert read_attack(attack, TensorView(classifier))[0].eps == 0.1
    attack.set_params(eps=0.2)
    assert read_attack(attack, TensorView(classifier))[0].eps == 0.2


def test_random_start_of_a_read_attack_is_in_the_ball_and_uniform():
    classifier = make_classifier(clip_values=None)
    adversary = Adversary(pgd(classifier, num_random_init=1, eps_step=1e-9, max_iter=1), TensorView(classifier))
    x, y = make_data(400)
    with evaluating(classifier.model):
        x_adv = adversary.examples(torch.from_numpy(x), torch.from_numpy(y), Key(0))
    delta = (x_adv.numpy() - x) / 0.1
    assert np.abs(delta).max() <= 1 + 1e-5
    assert delta.mean() == pytest.approx(0, abs=0.02)
    assert delta.std() == pytest.approx(1 / np.sqrt(3), abs=0.01)


def test_own_attacks_are_read_and_an_attack_on_the_same_module_is_generated():
    classifier = make_classifier()
    view = TensorView(classifier)
    for attack in (PGDAttack(classifier), TRADESAttack(classifier)):
        assert read_attack(attack, view) == (attack.ascent(), "")
    twin = make_classifier(classifier.model)
    assert read_attack(PGDAttack(twin), view)[0] is None
    assert "bound to another object" in read_attack(pgd(twin), view)[1]


def test_auto_pgd_with_its_own_estimator_on_the_same_module_is_accepted():
    classifier = make_classifier()
    attack = AutoProjectedGradientDescent(
        classifier, eps=0.1, eps_step=0.05, max_iter=2, nb_random_init=1, loss_type="cross_entropy", verbose=False
    )
    assert attack.estimator is not classifier
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    trainer.fit(*make_data(8), nb_epochs=1)
    assert np.isfinite(trainer.history.loss[0])


def test_trades_objective_with_an_art_pgd_object_uses_its_ball():
    classifier = make_classifier()
    seen = []
    options = {**OPTIONS, "on_step": lambda step: seen.append((step.x_adv - step.x).abs().max())}
    trainer = LBGATTrainer(classifier, another(classifier), pgd(classifier), regularizer="trades", **options)
    trainer.fit(*make_data(8), nb_epochs=1)
    assert 0.09 < float(seen[0]) <= 0.1 + 1e-6
    assert trainer.cost.student_forwards == 5 + 2


def test_reading_leaves_the_attack_alone():
    classifier = make_classifier()
    attack = pgd(classifier)
    before = copy.copy(attack._attack.__dict__)
    read_attack(attack, TensorView(classifier))
    assert before == attack._attack.__dict__
