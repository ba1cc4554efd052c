"""Models of other dtypes, and another default dtype: the numbers of float32, or an error that names the model."""

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import BGATTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate
from tests.conftest import conv_net, make_classifier, make_data
from tests.trainers.cases import OPTIONS, TRAINERS

X, Y = make_data(24)
SOFT = np.full((24, 4), 0.05, dtype=np.float32)
SOFT[np.arange(24), Y] = 0.85
DTYPES = [torch.float64, torch.float16, torch.bfloat16]


class Casting(nn.Module):
    """A net of another dtype that casts what it is given, or one in float32 that gives another dtype back."""

    def __init__(self, dtype, inside=True):
        super().__init__()
        self.net, self.dtype, self.inside = conv_net().to(dtype if inside else torch.float32), dtype, inside

    def forward(self, x):
        return self.net(x.to(self.dtype)) if self.inside else self.net(x).to(self.dtype)


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def judged(classifier):
    names = ["natural", "noise", "kl-2", "autoattack"]
    return evaluate(classifier, X, Y, eps=0.1, attacks=names, autoattack=["apgd-ce", "fab-t"]).accuracy.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", [TRAINERS["natural"], TRAINERS["trades"], TRAINERS["bgat"]])
def test_a_model_that_does_not_cast_is_refused_by_name(build, dtype):
    match = rf"classifier: its model fails on inputs of shape \(8, 1, 8, 8\), torch.float32; it has weights of {dtype}"
    with pytest.raises(RuntimeError, match=match):
        build(make_classifier(conv_net().to(dtype))).fit(X, Y, nb_epochs=1, batch_size=8)
    with pytest.raises(RuntimeError, match="guide: its model fails"):
        BGATTrainer(make_classifier(), make_classifier(conv_net().to(dtype)), **OPTIONS).fit(X, Y, nb_epochs=1)
    bad = make_classifier(conv_net().to(dtype))
    for call in (lambda: judged(bad), lambda: PGDAttack(bad).generate(X)):
        with pytest.raises(RuntimeError, match=r"(classifier|estimator): its model fails on .* weights of"):
            call()


@pytest.mark.parametrize("labels", [Y, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("build", TRAINERS.values(), ids=TRAINERS)
def test_logits_of_half_precision_are_judged_in_float32(build, labels):
    """The values of the output layer are rounded; what is computed of them is not."""
    guide = make_classifier(Casting(torch.float16, inside=False), lr=0.01)
    seen = []
    trainer = build(make_classifier(Casting(torch.bfloat16, inside=False), lr=0.01), guide=guide, on_step=seen.append)
    trainer.fit(X, labels, nb_epochs=1, batch_size=8)
    assert {value.dtype for step in seen for value in [step.loss, *step.logits.values()]} == {torch.float32}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_that_casts_trains_and_is_judged(dtype):
    classifier = make_classifier(Casting(dtype), lr=1e-3)
    TRAINERS["madry"](classifier).fit(X, Y, nb_epochs=1, batch_size=8)
    assert len(judged(classifier)) == 4


def test_guide_and_student_of_two_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"guide: its logits and those of the classifier must be of one dtype"):
        BGATTrainer(make_classifier(), make_classifier(Casting(torch.float64)), **OPTIONS).fit(X, Y, nb_epochs=1)


@pytest.mark.parametrize("name", TRAINERS)
def test_another_default_dtype_changes_no_bit(name, doubles):
    histories, tables = [], []
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(torch.float32)
        classifier = make_classifier(lr=0.01)
        trainer = TRAINERS[name](classifier, guide=make_classifier(seed=1))
        torch.set_default_dtype(dtype)
        trainer.fit(X, Y, nb_epochs=1, batch_size=8, validation_data=make_data(8, seed=1))
        tables.append(judged(classifier))
        assert torch.get_default_dtype() == dtype
        histories.append(trainer.history.loss.tolist())
    assert histories[0] == histories[1]
    assert tables[0] == tables[1]
