"""Modes, flags, generators and the user's objects are as before, also after an exception in mid-step."""

import random

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from torch import nn

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import ADVERSARIAL, OPTIONS, TRAINERS, another, pgd

EVERY = pytest.mark.parametrize("build", TRAINERS.values(), ids=TRAINERS)


def flags(classifier):
    module = classifier._model
    return [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]


def generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


class Boom(Exception):
    pass


def explode_in_attack(trainer, classifier):
    calls = []

    def hook(module, args):
        calls.append(module.training)
        if len(calls) > 3:
            raise Boom

    return classifier.model.register_forward_pre_hook(hook)


def explode_in_training(trainer, classifier):
    def hook(module, args):
        if module.training:
            raise Boom

    return classifier.model.register_forward_pre_hook(hook)


def explode_in_step(trainer, classifier):
    def hook(optimizer, args, kwargs):
        raise Boom

    return classifier.optimizer.register_step_pre_hook(hook)


@EVERY
@pytest.mark.parametrize("explode", [None, explode_in_attack, explode_in_training, explode_in_step])
@pytest.mark.parametrize("training", [True, False])
def test_modes_flags_and_generators_are_left_as_found(build, explode, training):
    classifier = make_classifier()
    guide = another(classifier)
    for each in (classifier, guide):
        each.model.train(training)
        each.model[3].weight.requires_grad_(False)  # a layer that the user froze
    classifier.model[1].eval()
    frozen = classifier.model[3].weight.detach().clone()
    trainer = build(classifier, guide=guide)
    before = flags(classifier), flags(guide), generators()
    if explode is None:
        trainer.fit(*make_data(16), nb_epochs=2, batch_size=8, validation_data=make_data(8, seed=1))
    else:
        handle = explode(trainer, classifier)
        with pytest.raises(Boom):
            trainer.fit(*make_data(16), nb_epochs=3, batch_size=4)
        handle.remove()
    assert (flags(classifier), flags(guide), generators()) == before
    assert torch.equal(frozen, classifier.model[3].weight)
    assert all(p.grad is None for p in classifier.model.parameters())
    if training:  # BatchNorm that the user froze in an otherwise training model stays frozen
        assert int(classifier.model[1].num_batches_tracked) == 0


@EVERY
def test_same_seed_same_bits_whatever_the_global_generators_hold(build):
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        classifier = make_classifier(nn.Sequential(nn.Dropout(0.3), *make_classifier().model))
        trainer = build(classifier, guide=make_classifier(seed=1, lr=0.02))
        trainer.fit(*make_data(16), nb_epochs=2, batch_size=8)
        results.append(copied_state(classifier.model))
    assert states_equal(*results)
    other = make_classifier(nn.Sequential(nn.Dropout(0.3), *make_classifier().model))
    build(other, guide=make_classifier(seed=1, lr=0.02), seed=4).fit(*make_data(16), nb_epochs=2, batch_size=8)
    assert not states_equal(results[0], other.model.state_dict())


def test_without_a_seed_one_is_drawn_once_from_torch_and_recorded():
    torch.manual_seed(5)
    expected = int(torch.randint(2**31, ()).item())
    after = torch.get_rng_state()
    torch.manual_seed(5)
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), verbose=False)
    torch.manual_seed(5)
    trainer.fit(*make_data(8), nb_epochs=1)
    assert trainer.seed == expected
    assert torch.equal(torch.get_rng_state(), after)
    trainer.fit(*make_data(8), nb_epochs=1)
    assert trainer.seed != expected


@pytest.mark.parametrize("build", ADVERSARIAL.values(), ids=ADVERSARIAL)
@pytest.mark.parametrize(
    "ambient", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)]
)
def test_ambient_contexts_change_nothing(build, ambient):
    results = []
    for context in (torch.enable_grad, ambient):
        classifier = make_classifier()
        trainer = build(classifier)
        x, y = make_data(8)
        with context():
            trainer.fit(x, y, nb_epochs=1)
        results.append(copied_state(classifier.model))
    assert states_equal(*results)


@pytest.mark.parametrize("ensemble", [1, 2])
def test_bgat_leaves_its_guides_untouched(ensemble):
    classifier = make_classifier()
    guides = [make_classifier(seed=1 + i) for i in range(ensemble)]
    guides[0].model.train()
    states, before = [copied_state(g.model) for g in guides], [flags(g) for g in guides]
    BGATTrainer(classifier, guides, pgd(classifier), **OPTIONS).fit(*make_data(16), nb_epochs=2, batch_size=8)
    assert all(states_equal(s, g.model.state_dict()) for s, g in zip(states, guides, strict=True))
    assert [flags(g) for g in guides] == before
    assert all(p.grad is None for g in guides for p in g.model.parameters())


def test_lbgat_trains_both_with_their_own_optimizers():
    classifier, guide = make_classifier(), make_classifier(seed=1, optimizer="adam")
    states = copied_state(classifier.model), copied_state(guide.model)
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), **OPTIONS)
    trainer.fit(*make_data(16), nb_epochs=1, batch_size=8)
    assert not states_equal(states[0], classifier.model.state_dict())
    assert not states_equal(states[1], guide.model.state_dict())
    assert len(guide.optimizer.state) == len(list(guide.model.parameters()))
    assert trainer.history.guide_learning_rate[0] == 1e-3


def test_art_attack_keeps_its_settings_and_its_junk_gradients_are_not_added():
    """An attack through ``generate`` calls backward on the classifier's loss; the step must not see that."""
    x, y = make_data(16)
    classifier = make_classifier()
    attack = ProjectedGradientDescent(
        classifier, eps=0.03, eps_step=0.015, max_iter=2, num_random_init=2, batch_size=16, verbose=True
    )
    gradients, steps = [], []
    classifier.optimizer.register_step_pre_hook(
        lambda o, a, k: gradients.extend(p.grad.clone() for p in o.param_groups[0]["params"])
    )
    MadryTrainer(classifier, attack, on_step=steps.append, **OPTIONS).fit(x, y, nb_epochs=1, batch_size=16)
    assert attack.verbose is True
    fresh = make_classifier()
    nn.functional.cross_entropy(fresh.model.train()(steps[0].x_adv), steps[0].y).backward()
    for ours, expected in zip(gradients, fresh.model.parameters(), strict=True):
        assert torch.equal(ours, expected.grad)


def test_progress_bar_shows_losses_and_robust_accuracy(capsys):
    classifier = make_classifier()
    MadryTrainer(classifier, pgd(classifier), seed=0).fit(*make_data(16), nb_epochs=1, batch_size=8)
    shown = capsys.readouterr().err
    assert "PGD-AT" in shown
    assert "robust_accuracy=" in shown
    assert "loss=" in shown
    MadryTrainer(classifier, pgd(classifier), seed=0, verbose=False).fit(*make_data(16), nb_epochs=1)
    assert capsys.readouterr().err == ""
