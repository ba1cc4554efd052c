"""Models that torch has made of others (TorchScript, FX) give the bits of what they were made of."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import BGATTrainer, TRADESTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate
from tests.conftest import conv_net, make_classifier, make_data
from tests.trainers.cases import HELD, OPTIONS, TRAINERS, pgd, trades

X, Y = make_data(24)


def loaded(model):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)  # noqa: TID251 (its own)


KINDS = {
    "script": torch.jit.script,
    "load": loaded,
    "fx": torch.fx.symbolic_trace,
    "wrapped": lambda model: nn.Sequential(torch.jit.script(model)),
}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Dropout(0.2), *conv_net())


def fitted(name, kind, directory):
    classifier, guide = (make_classifier(kind(net(seed)), lr=0.01) for seed in (0, 1))
    trainer = TRAINERS[name](classifier, guide=guide, ema_decay=0.8, awp_gamma=0.01, checkpoint_dir=directory)
    trainer.fit(X, Y, nb_epochs=2, batch_size=8, validation_data=HELD)
    return trainer.history.drop(columns=["seconds", "images_per_second"]).to_csv(), classifier


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["trades", "lbgat"])
def test_training_and_evaluation_are_those_of_the_model_it_was_made_of(name, kind, tmp_path):
    history, classifier = fitted(name, kind, tmp_path / "a")
    expected, plain = fitted(name, lambda model: model, tmp_path / "b")
    assert history == expected
    tables = [
        evaluate(c, X, Y, eps=0.1, attacks=["natural", "pgd-3", "autoattack"], autoattack=["apgd-ce"]).accuracy.tolist()
        for c in (classifier, plain)
    ]
    assert tables[0] == tables[1]
    np.testing.assert_array_equal(*(PGDAttack(c, num_random_init=0).generate(X, Y) for c in (classifier, plain)))


def test_a_traced_model_keeps_the_mode_it_was_traced_in():
    still = conv_net().eval()
    buffers = [buffer.clone() for buffer in still.buffers()]
    classifier = make_classifier(torch.jit.trace(still, torch.rand(2, 1, 8, 8)), lr=0.01)
    TRADESTrainer(classifier, trades(classifier), **OPTIONS).fit(X, Y, nb_epochs=1, batch_size=8)
    assert all(torch.equal(a, b) for a, b in zip(buffers, classifier.model.buffers(), strict=True))


def test_a_frozen_script_without_parameters_is_a_guide():
    guide = net(1).eval()
    losses = []
    for each in (copy.deepcopy(guide), torch.jit.freeze(torch.jit.script(guide))):
        student = make_classifier(net(), lr=0.01)
        trainer = BGATTrainer(student, make_classifier(each, optimizer=None), pgd(student), **OPTIONS)
        trainer.fit(X, Y, nb_epochs=1, batch_size=8)
        losses.append(trainer.history.loss[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
