"""AWP in every trainer: what it moves, what it leaves alone, and that it is the authors' code up to rounding."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from art_lbgat import MadryTrainer, TRADESTrainer
from art_lbgat.preserve import Key
from tests import reference_lbgat as reference
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import OPTIONS, TRAINERS, pgd, trades

EVERY = pytest.mark.parametrize("name", TRAINERS)
AWP = {"awp_gamma": 0.05, "awp_start_epoch": 1}


@EVERY
def test_awp_changes_training_and_starts_when_asked(name):
    x, y = make_data(16)
    states = []
    for options in ({}, AWP, {"awp_gamma": 0.05, "awp_start_epoch": 2}):
        classifier = make_classifier()
        TRAINERS[name](classifier, **options).fit(x, y, batch_size=8, nb_epochs=1)
        states.append(copied_state(classifier.model))
    assert states_equal(states[0], states[2])
    assert not states_equal(states[0], states[1])
    assert all(np.isfinite(v).all() for v in states[1].values())


@EVERY
def test_batch_norm_moves_as_often_as_without_awp(name):
    x, y = make_data(16)
    moved = []
    for options in ({}, AWP):
        classifier, guide = make_classifier(), make_classifier(seed=1)
        TRAINERS[name](classifier, guide, **options).fit(x, y, batch_size=8, nb_epochs=1)
        moved.append([int(c.model[1].num_batches_tracked) for c in (classifier, guide)])
    assert moved[0] == moved[1]


def test_weights_are_put_back_when_a_step_fails():
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), **AWP, **OPTIONS)
    before = copied_state(classifier.model)

    def fail(*_):
        raise RuntimeError("full")

    classifier.optimizer.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="full"):
        trainer.fit(*make_data(8), batch_size=8, nb_epochs=1)
    for name, value in classifier.model.named_parameters():
        torch.testing.assert_close(value.detach(), before[name], rtol=1e-6, atol=1e-7)


def test_trades_awp_is_the_authors_code_up_to_rounding():
    """Their proxy takes one SGD step on -loss; the difference of its weights, scaled to gamma * ||w||, is added."""
    x, y = make_data(24)
    classifier = make_classifier()
    model = copy.deepcopy(classifier.model)
    attack = trades(classifier)
    trainer = TRADESTrainer(classifier, attack, awp_gamma=5e-3, awp_start_epoch=1, **OPTIONS)
    trainer.fit(x, y, batch_size=24, nb_epochs=1)

    key = Key(OPTIONS["seed"], 1, 1)
    order = torch.randperm(24, generator=key.generator("order"))
    xb, yb = torch.from_numpy(x)[order], torch.from_numpy(y)[order]
    noise = torch.randn(xb.shape, generator=key.generator("attack"))
    x_adv = reference.trades_attack(model, xb, noise, attack.eps, attack.eps_step, attack.max_iter)

    def loss_of(net):
        dtype = next(net.parameters()).dtype
        adversarial, natural = net(x_adv.to(dtype)), net(xb.to(dtype))
        kl = F.kl_div(F.log_softmax(adversarial, dim=1), F.softmax(natural, dim=1), reduction="batchmean")
        return F.cross_entropy(natural, yb) + 6.0 * kl

    model.train()
    model.zero_grad()  # the reference attack fills gradients of parameters
    proxy = copy.deepcopy(model).double()  # in fp32 the difference of the weights would lose most of its digits
    proxy_optimizer = torch.optim.SGD(proxy.parameters(), lr=0.01)
    (-loss_of(proxy)).backward()
    proxy_optimizer.step()
    diff = {}
    for (name, old), new in zip(model.state_dict().items(), proxy.state_dict().values(), strict=True):
        if len(old.size()) > 1 and "weight" in name:
            step = (new - old.double()).float()
            diff[name] = old.norm() / (step.norm() + 1e-20) * step
    with torch.no_grad():
        for name, w in model.named_parameters():
            if name in diff:
                w.add_(5e-3 * diff[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    loss_of(model).backward()
    optimizer.step()
    with torch.no_grad():
        for name, w in model.named_parameters():
            if name in diff:
                w.sub_(5e-3 * diff[name])
    for name, value in classifier.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-7)


def test_the_attack_sees_the_unperturbed_weights():
    classifier = make_classifier()
    seen = []
    attack = pgd(classifier)
    trainer = MadryTrainer(classifier, attack, **AWP, **OPTIONS)
    before = classifier.model[0].weight.detach().clone()
    handle = classifier.model.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, torch.equal(module[0].weight, before)))
    )
    trainer.fit(*make_data(8), batch_size=8, nb_epochs=1)
    handle.remove()
    # Two attack steps and the pass that finds the direction at the weights; the training pass at perturbed ones.
    assert seen == [(False, True), (False, True), (True, True), (True, False)]


def test_awp_moves_only_what_the_optimizer_trains():
    model = make_classifier().model
    classifier = make_classifier(model, optimizer=torch.optim.SGD(model[7].parameters(), lr=0.1))
    before = copied_state(model)
    MadryTrainer(classifier, pgd(classifier), **AWP, **OPTIONS).fit(*make_data(16), batch_size=8, nb_epochs=2)
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[7].weight, before["7.weight"])
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    classifier = make_classifier(model)
    with pytest.raises(ValueError, match="awp_gamma: expected a model of which the optimizer trains a tensor"):
        MadryTrainer(classifier, pgd(classifier), **AWP, **OPTIONS).fit(*make_data(16), nb_epochs=1)
