"""Models that end in softmax: objectives on probabilities see their logarithm, those on logits refuse them."""

import logging

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from torch import nn

from art_lbgat import ALPTrainer, BGATTrainer, LBGATTrainer, MadryTrainer
from art_lbgat.losses import Term
from tests.conftest import conv_net, make_classifier, make_data
from tests.trainers.cases import HELD, OPTIONS, TRAINERS, pgd

X, Y = make_data(24)


class EvalOnly(nn.Module):
    """Logits in training, probabilities afterwards."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) if self.training else self.net(x).softmax(dim=1)


ENDS = {
    "softmax": lambda net: nn.Sequential(*net, nn.Softmax(dim=1)),
    "log-softmax": lambda net: nn.Sequential(*net, nn.LogSoftmax(dim=1)),
    "softmax in eval mode": EvalOnly,
}
NAMES = ["natural", "madry", "trades", "mart", "fast-at"]


def net(seed=0):
    torch.manual_seed(seed)
    return conv_net()


def history(build, *ends, **fit):
    models = [make_classifier(end(net(seed)), lr=0.01) for seed, end in enumerate(ends)]
    trainer = build(*models)
    trainer.fit(X, Y, nb_epochs=2, batch_size=8, validation_data=HELD, **fit)
    return trainer.history.drop(columns=["seconds", "images_per_second"]).select_dtypes("number")


def difference(build, *ends):
    """Of the histories of models with these ends and of those without, in units of the tolerance."""
    found, expected = history(build, *ends), history(build, *[lambda net: net for _ in ends])
    assert list(found.columns) == list(expected.columns)
    assert found.isna().equals(expected.isna())
    return float(((found - expected).abs() / (1e-4 + 1e-2 * expected.abs())).max(axis=None))


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("name", NAMES)
def test_training_is_that_of_the_logits(name, end, caplog):
    with caplog.at_level(logging.WARNING):
        assert difference(TRAINERS[name], end) <= 1
    said = [r.getMessage() for r in caplog.records if "logarithm" in r.getMessage()]
    assert 1 <= len(said) <= 2  # once for each mode of the model
    assert "The classifier gives" in said[0]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("options", [{"guidance": "kl"}, {"guidance": "kd", "regularizer": "trades"}],
                         ids=["kl", "kd"])  # fmt: skip
@pytest.mark.parametrize("trainer", [BGATTrainer, LBGATTrainer])
def test_guidance_on_probabilities(trainer, options, end):
    def build(student, guide):
        return trainer(student, guide, pgd(student), **options, **OPTIONS)

    assert difference(build, end, end) <= 1
    assert difference(build, end, lambda net: net) <= 1
    assert difference(build, lambda net: net, end) <= 1


REFUSING = {
    "alp": lambda c: ALPTrainer(c, pgd(c), **OPTIONS),
    "mse": lambda c: BGATTrainer(c, make_classifier(seed=1), pgd(c), **OPTIONS),
    "mse+ce": lambda c: LBGATTrainer(c, make_classifier(seed=1), pgd(c), guidance="mse+ce", **OPTIONS),
    "kl and alp": lambda c: BGATTrainer(
        c, make_classifier(seed=1), pgd(c), guidance="kl", regularizer="alp", **OPTIONS
    ),
    "own": lambda c: BGATTrainer(
        c, make_classifier(seed=1), pgd(c), guidance=lambda a, g, y: {"a": Term((a - g).abs().mean())}, **OPTIONS
    ),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("build", REFUSING.values(), ids=REFUSING)
def test_objectives_on_logits_refuse_them_and_say_why(build, end):
    with pytest.raises(
        ValueError, match=r"classifier: its outputs are (log-)?probabilities, and the objective compares"
    ):
        build(make_classifier(end(net()))).fit(X, Y, nb_epochs=1, batch_size=8)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_guide_of_probabilities_is_refused_by_mse(end):
    student, guide = make_classifier(), make_classifier(end(net(1)))
    with pytest.raises(ValueError, match=r"guide: its outputs are (log-)?probabilities"):
        BGATTrainer(student, guide, pgd(student), **OPTIONS).fit(X, Y, nb_epochs=1, batch_size=8)


def test_probabilities_in_bf16_and_those_that_are_0_are_noticed():
    same_kind = history(lambda c: MadryTrainer(c, pgd(c), precision="bf16", **OPTIONS), ENDS["softmax"])
    assert np.isfinite(same_kind.loss).all()
    torch.manual_seed(0)
    sharp = conv_net()
    sharp[-1].weight.data *= 1000
    classifier = make_classifier(nn.Sequential(*sharp, nn.Softmax(dim=1)), lr=1e-6)
    attack = ProjectedGradientDescent(classifier, eps=0.03, eps_step=0.01, max_iter=2, verbose=False)
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    trainer.fit(X, Y, nb_epochs=1, batch_size=8)
    assert np.isfinite(trainer.history.loss).all()
    assert trainer.history.loss[0] > 1
