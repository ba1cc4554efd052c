"""Models whose first operation writes into their input train, attack and are judged as their twins that do not."""

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import BGATTrainer, LBGATTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate, sanity_checks
from tests.conftest import conv_net, make_classifier, make_data, states_equal
from tests.trainers.cases import HELD, OPTIONS, TRAINERS, pgd

X, Y = make_data(24)


def blank(x):
    x[:, :, 0] = 0
    return x


FIRST = {  # in place, and not
    "standardise": (lambda x: x.sub_(0.4).div_(0.3), lambda x: x.sub(0.4).div(0.3)),
    "clamp": (lambda x: x.clamp_(0.2, 0.8), lambda x: x.clamp(0.2, 0.8)),
    "rows": (blank, lambda x: blank(x.clone())),
    "relu": (nn.ReLU(inplace=True), nn.ReLU()),
}


class First(nn.Module):
    def __init__(self, first, net):
        super().__init__()
        self.first, self.net = first, net

    def forward(self, x):
        return self.net(self.first(x))


def twins(name, seed=0, **kwargs):
    made = []
    for first in FIRST[name]:
        torch.manual_seed(seed)
        made.append(make_classifier(First(first, conv_net()), lr=0.02, **kwargs))
    return made


def fitted(build, pairs, **fit):
    """The histories of two runs, one with the models that write and one with the others."""
    histories = []
    for models in zip(*pairs, strict=True):
        trainer = build(*models)
        trainer.fit(X.copy(), Y, nb_epochs=2, batch_size=8, **fit)
        histories.append(trainer.history.drop(columns=["seconds", "images_per_second"]).to_csv())
    return histories


def same_weights(pairs):
    return [states_equal(writes.model.state_dict(), plain.model.state_dict()) for writes, plain in pairs]


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("build", TRAINERS.values(), ids=TRAINERS)
def test_every_trainer_with_validation_and_a_guide_of_the_same_kind(build, first):
    pairs, held = [twins(first), twins(first, seed=1)], (HELD[0].copy(), HELD[1])
    writes, plain = fitted(lambda student, guide: build(student, guide=guide), pairs, validation_data=held)
    assert writes == plain
    assert same_weights(pairs) == [True, True]


@pytest.mark.parametrize("options", [{"awp_gamma": 0.01}, {"ema_decay": 0.8}, {"channels_last": True}],
                         ids=["awp", "ema", "channels_last"])  # fmt: skip
@pytest.mark.parametrize("kwargs", [{}, {"preprocessing": None}, {"clip_values": None}, {"preprocessing": (0.1, 0.9)}],
                         ids=["default", "no preprocessing", "no clip_values", "preprocessing"])  # fmt: skip
def test_options_and_preprocessing(options, kwargs):
    pairs = [twins("standardise", **kwargs), twins("standardise", 1, **kwargs)]
    writes, plain = fitted(lambda s, g: LBGATTrainer(s, g, pgd(s), regularizer="alp", **options, **OPTIONS), pairs)
    assert writes == plain
    assert same_weights(pairs) == [True, True]


def test_an_ensemble_of_guides():
    pairs = [twins("standardise"), twins("standardise", 1), twins("standardise", 2)]
    writes, plain = fitted(lambda student, *guides: BGATTrainer(student, list(guides), pgd(student), **OPTIONS), pairs)
    assert writes == plain
    assert same_weights(pairs) == [True, True, True]


def test_attacks_and_evaluation(few_queries):
    writes, plain = twins("standardise")
    before, tensor = X.copy(), torch.from_numpy(X.copy())
    made = [
        PGDAttack(c, eps=0.05, eps_step=0.02, max_iter=3, num_random_init=2, objective="kl") for c in (writes, plain)
    ]
    found = []
    for attack in made:
        torch.manual_seed(0)
        found += [attack.generate(X, Y), attack.perturb(tensor, torch.from_numpy(Y)).numpy()]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    names = ["natural", "fgsm", "kl-2", "transfer", "quantised-8", "autoattack"]
    tables = [
        evaluate(each, X, Y, eps=0.1, attacks=names, sources={"s": each}).accuracy.tolist() for each in (writes, plain)
    ]
    assert tables[0] == tables[1]
    checks = [sanity_checks(c, X, Y, eps=0.1, autoattack=()).observed.tolist() for c in (writes, plain)]
    assert checks[0] == checks[1]
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(tensor.numpy(), before)
