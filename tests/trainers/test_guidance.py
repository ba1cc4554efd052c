"""Methods after LBGAT take the steps of their equations: slow transcriptions in float64, from the same random numbers."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from art_lbgat import ADRTrainer, BGATTrainer, HATTrainer, LBGATTrainer, NFGSMTrainer
from art_lbgat.attacks import NFGSMAttack
from art_lbgat.preserve import Key
from tests import reference_lbgat as reference
from tests.conftest import conv_net, make_classifier, make_data
from tests.trainers.cases import OPTIONS, pgd, trades

N, EPOCHS = 24, 3
X, Y = make_data(N)


class Double(nn.Module):
    """A network in float64, so that rounding flips no step of an attack."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = conv_net().double()

    def forward(self, x):
        return self.net(x.double())


def uniform(x, generator):
    return torch.rand(x.shape, generator=generator) * 2 - 1


def normal(x, generator):
    return torch.randn(x.shape, generator=generator)


def by_pgd(models, x, y, generator, epoch):
    return reference.pgd_attack(models[0], x, y, uniform(x, generator), 0.03, 0.015, 2)


def by_trades(models, x, y, generator, epoch):
    return reference.trades_attack(models[0], x, normal(x, generator), 0.03, 0.015, 2)


def classifiers(number):
    return [make_classifier(Double(seed)) for seed in range(number)]


def assert_same_steps(
    trainer, made, learn, attack, equation, after=lambda models: None, kept=lambda models: models, rtol=1e-9
):
    """Fit, one step an epoch, and take the same steps with copies of the models, of which the first ``learn`` learn.

    ``equation(models, x, y, x_adv, epoch)`` is the loss; ``after(models)`` is called after each step, and
    ``kept(models)`` are those that the classifiers have to hold in the end.
    """
    models = [copy.deepcopy(each.model) for each in made]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4) for m in models[:learn]]
    trainer.fit(X, Y, batch_size=N, nb_epochs=EPOCHS)
    seen = []
    for epoch in range(1, EPOCHS + 1):
        key = Key(OPTIONS["seed"], 1, epoch)
        order = torch.randperm(N, generator=key.generator("order"))
        x, y = torch.from_numpy(X)[order], torch.from_numpy(Y)[order]
        x_adv = attack(models, x, y, key.generator("attack"), epoch)
        assert not torch.equal(x_adv, x)
        for number, model in enumerate(models):
            model.train(number < learn)
            model.zero_grad()
        loss = equation(models, x, y, x_adv, epoch)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        seen.append(loss.item())
        after(models)
    assert trainer.history.loss.tolist() == pytest.approx(seen, rel=1e-6)  # the history is in fp32
    for classifier, model in zip(made, kept(models), strict=True):
        for name, value in classifier.model.state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=rtol, atol=rtol / 100)


class ClassWeights:
    """The weights of IKL (gamma 1, T 4) or GKL (0.2, 1) by the loop of their authors, and their loss."""

    def __init__(self, temperature, gamma):
        self.temperature, self.gamma = temperature, gamma
        self.weights = torch.full((4, 4), 0.25, dtype=torch.float64)

    def __call__(self, a, n, y):
        w = self.weights[y] ** self.gamma
        self.logits, self.y = n.detach(), y
        both = w[:, :, None] * w[:, None, :]
        delta = (n[:, :, None] - n[:, None, :]) - (a[:, :, None] - a[:, None, :])
        sce = -(F.softmax(n.detach(), dim=1) * F.log_softmax(a, dim=1)).sum(dim=1).mean()
        return 20 * 0.25 * (delta**2 * both).sum() / both.sum() + 4 * sce

    def after(self, models):
        sums = F.one_hot(self.y, 4).double().T @ F.softmax(self.logits / self.temperature, dim=1)
        self.weights = sums / sums.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("name", "temperature", "gamma"), [("ikl", 4.0, 1.0), ("gkl", 1.0, 0.2)])
def test_lbgat_with_ikl_as_guidance(name, temperature, gamma):
    made, divergence = classifiers(2), ClassWeights(temperature, gamma)
    trainer = LBGATTrainer(*made, pgd(made[0]), guidance=name, preset="paper", **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        guide = models[1](x)
        return divergence(models[0](x_adv), guide, y) + F.cross_entropy(guide, y)

    assert_same_steps(trainer, made, 2, by_pgd, equation, divergence.after)


@pytest.mark.parametrize(("name", "temperature", "gamma"), [("ikl", 4.0, 1.0), ("gkl", 1.0, 0.2)])
def test_bgat_with_ikl_as_regularizer(name, temperature, gamma):
    made, divergence = classifiers(2), ClassWeights(temperature, gamma)
    weight = {"regularizer": name, "regularizer_weight": 0.1}
    trainer = BGATTrainer(*made, trades(made[0]), **weight, preset="paper", **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        student, guide = models
        adversarial, natural = student(x_adv), student(x)
        return ((adversarial - guide(x).detach()) ** 2).mean() + 0.1 * divergence(adversarial, natural, y)

    assert_same_steps(trainer, made, 1, by_trades, equation, divergence.after)


def helper(student, guide, x, x_adv, h=2.0):
    """HAT's helper term, as its authors write it."""
    guide.eval()
    return F.cross_entropy(student(x + h * (x_adv - x)), guide(x_adv).argmax(dim=1))


def test_hat():
    made = classifiers(2)
    trainer = HATTrainer(*made, trades(made[0]), beta=3.0, helper_weight=0.7, helper_step=1.5, **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        student = models[0]
        adversarial, natural = student(x_adv), student(x)
        divergence = F.kl_div(F.log_softmax(adversarial, 1), F.softmax(natural, 1), reduction="sum") / N
        return F.cross_entropy(natural, y) + 3.0 * divergence + 0.7 * helper(*models, x, x_adv, 1.5)

    assert_same_steps(trainer, made, 1, by_trades, equation)
    published = HATTrainer(*made, **OPTIONS)
    assert (published.beta, published.helper_weight, published.helper_step) == (2.5, 0.5, 2.0)


def test_bgat_with_the_helper_of_hat():
    made = classifiers(2)
    trainer = BGATTrainer(*made, pgd(made[0]), helper_weight=0.5, preset="paper", **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        student, guide = models
        return ((student(x_adv) - guide(x).detach()) ** 2).mean() + 0.5 * helper(student, guide, x, x_adv)

    assert_same_steps(trainer, made, 1, by_pgd, equation)


class OwnAverage:
    """The moving average of a model, of its weights and statistics, starting at those after the first step."""

    def __init__(self, model, decay):
        self.decay, self.steps, self.model = decay, 0, copy.deepcopy(model).eval()

    def after(self, models):
        for kept, new in zip(self.model.state_dict().values(), models[0].state_dict().values(), strict=True):
            if self.steps and new.is_floating_point():
                kept.mul_(self.decay).add_((1 - self.decay) * new)
            else:
                kept.copy_(new)
        self.steps += 1


@pytest.mark.parametrize("rebat", [0.0, 0.5])
@pytest.mark.parametrize("interpolation", [(0.7, 0.95), (0.0, 0.0)])
def test_adr_and_rebat(interpolation, rebat):
    made = classifiers(1)
    average = OwnAverage(made[0].model, 0.6)
    trainer = ADRTrainer(
        made[0], pgd(made[0]), interpolation=interpolation, rebat_weight=rebat, ema_decay=0.6, **OPTIONS
    )

    def labels(x, y, epoch):
        """As the authors write it, with the schedules of a run of one step an epoch."""
        low, high = interpolation
        cosine = np.cos(np.pi * (epoch - 0.5) / EPOCHS)
        lam, temperature = high + 0.5 * (low - high) * (1 + cosine), 2.0 + 0.5 * (2.5 - 2.0) * (1 + cosine)
        p = F.softmax(average.model(x).detach() / temperature, dim=1)
        own = torch.clamp(lam - (p.max(1)[0] - torch.gather(p, 1, y.unsqueeze(1)).squeeze()), 0.0, 1.0).unsqueeze(1)
        return own * p + (1 - own) * F.one_hot(y, 4)

    def attack(models, x, y, generator, epoch):
        return by_pgd(models, x, labels(x, y, epoch), generator, epoch)

    def equation(models, x, y, x_adv, epoch):
        adversarial = models[0](x_adv)
        p = F.softmax(average.model(x_adv).detach(), dim=1)
        divergence = F.kl_div(F.log_softmax(adversarial, dim=1), p, reduction="sum") / N
        return F.cross_entropy(adversarial, labels(x, y, epoch)) + rebat * divergence

    last = {}

    def after(models):
        average.after(models)
        last["raw"], last["averaged"] = models[0], average.model

    def kept(models):  # what a run leaves in the classifier is the average
        return [average.model]

    assert_same_steps(trainer, made, 1, attack, equation, after, kept)
    for name, value in last["raw"].state_dict().items():
        torch.testing.assert_close(trainer.kept_weights["raw"]["classifier"][name], value, rtol=1e-9, atol=1e-11)


def test_adr_has_an_average_and_the_accuracies_are_of_the_true_labels():
    made = classifiers(1)
    trainer = ADRTrainer(made[0], pgd(made[0]), **OPTIONS)
    assert trainer.options.ema_decay == 0.995
    seen = []
    trainer = ADRTrainer(made[0], pgd(made[0]), ema_decay=0.9, on_step=seen.append, **OPTIONS)
    trainer.fit(X, Y, batch_size=N, nb_epochs=1)
    right = (seen[0].logits["adversarial"].argmax(dim=1) == seen[0].y).double().mean().item()
    assert trainer.history.train_robust_accuracy[0] == pytest.approx(right)
    assert not seen[0].logits["average"].requires_grad


def by_rslad(models, x, y, generator, epoch):
    """PGD on ``KL(t(x) || s(x'))``, the teacher fixed on x."""
    student, teacher = (model.eval() for model in models)
    p = F.softmax(teacher(x).detach(), dim=1)
    x_adv = torch.clamp(x + 0.03 * uniform(x, generator), 0.0, 1.0)
    for _ in range(2):
        x_adv = x_adv.detach().requires_grad_(True)
        F.kl_div(F.log_softmax(student(x_adv), dim=1), p, reduction="none").sum().backward()
        x_adv = reference.ascend(x_adv.detach(), x, x_adv.grad, 0.03, 0.015, "inf")
    return x_adv.detach()


@pytest.mark.parametrize("regularizer", [None, "alp"])
def test_rslad(regularizer):
    made = classifiers(2)
    trainer = BGATTrainer(*made, pgd(made[0]), guidance="rslad", regularizer=regularizer, preset="paper", **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        student, teacher = models
        p = F.softmax(teacher(x).detach(), dim=1)
        adversarial, natural = student(x_adv), student(x)
        kl = [(p * (p.log() - F.log_softmax(logits, dim=1))).mean() for logits in (adversarial, natural)]
        return 5 / 6 * kl[0] + 1 / 6 * kl[1] + (regularizer == "alp") * ((adversarial - natural) ** 2).mean()

    assert_same_steps(trainer, made, 1, by_rslad, equation)


def test_a_natural_guide_on_x_and_a_robust_one_on_x_adv():
    made = classifiers(4)
    robust = {"robust_guide": made[3], "robust_weight": 0.6}
    trainer = BGATTrainer(made[0], made[1:3], pgd(made[0]), helper_weight=0.5, **robust, preset="paper", **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        student, first, second, teacher = models
        adversarial = student(x_adv)
        guide, says, t = (
            v.detach() for v in ((first(x) + second(x)) / 2, first(x_adv) + second(x_adv), teacher(x_adv))
        )
        helped = F.cross_entropy(student(x + 2 * (x_adv - x)), says.argmax(dim=1))
        pulled = F.kl_div(F.log_softmax(adversarial, 1), F.softmax(t, 1), reduction="sum") / N
        return ((adversarial - guide) ** 2).mean() + 0.5 * helped + 0.6 * pulled

    assert_same_steps(trainer, made, 1, by_pgd, equation)
    assert str(trainer.cost) == "10 F + 5 Fg"


def test_rslad_needs_a_frozen_guide_and_a_robust_guide_is_named():
    made = classifiers(2)
    with pytest.raises(ValueError, match="guidance: 'rslad' expects a frozen, robust guide"):
        LBGATTrainer(*made, guidance="rslad")
    with pytest.raises(ValueError, match="robust_guide: it is, or shares parameters with, the classifier"):
        BGATTrainer(*made, robust_guide=made[0])


def by_n_fgsm(models, x, y, generator, epoch):
    """As its authors' loop, with delta in place of x_adv; eps 0.03, noise of 2 eps, range [0, 1]."""
    delta = 2.0 * 0.03 * uniform(x, generator)
    delta = torch.max(torch.min(delta, 1 - x), 0 - x).requires_grad_(True)
    F.cross_entropy(models[0].eval()(x + delta), y).backward()
    delta = delta.detach() + 0.03 * delta.grad.sign()
    return x + torch.max(torch.min(delta, 1 - x), 0 - x)


def test_n_fgsm():
    made = classifiers(1)
    seen = []
    trainer = NFGSMTrainer(made[0], NFGSMAttack(made[0], eps=0.03), on_step=seen.append, **OPTIONS)
    assert_same_steps(trainer, made, 1, by_n_fgsm, lambda m, x, y, x_adv, _: F.cross_entropy(m[0](x_adv), y), rtol=1e-4)
    far = (seen[0].x_adv - seen[0].x).abs().max()
    assert 0.06 < far <= 0.0901
    assert (seen[0].x_adv.min(), seen[0].x_adv.max()) >= (0, 0)
    assert seen[0].x_adv.max() <= 1
    assert trainer.history.eps.tolist() == [0.03] * EPOCHS
    assert NFGSMTrainer(made[0], **OPTIONS).attack.noise == 2.0


def test_bgat_with_the_nuclear_norm():
    made = classifiers(2)
    trainer = BGATTrainer(*made, pgd(made[0]), guidance="nuclear", preset="paper", **OPTIONS)

    def equation(models, x, y, x_adv, epoch):
        difference = models[0](x_adv) - models[1](x).detach()
        return torch.linalg.svd(difference, full_matrices=False)[1].sum() / N

    assert_same_steps(trainer, made, 1, by_pgd, equation)
