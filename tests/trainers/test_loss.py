"""A method's cross-entropy is the classifier's own, with its weights, smoothing, ignored class and reduction."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import (
    ALPTrainer,
    BGATTrainer,
    LBGATTrainer,
    MARTTrainer,
    NaturalTrainer,
    TRADESTrainer,
)
from art_lbgat.classifier import TensorView
from art_lbgat.processes import Processes
from art_lbgat.trainers.inputs import check_loss
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import OPTIONS, TRAINERS

X, Y = make_data(24)
SOFT = np.full((24, 4), 0.05, dtype=np.float32)
SOFT[np.arange(24), Y] = 0.85
LOSSES = {
    "weight": {"weight": torch.tensor([5.0, 1.0, 0.5, 0.1])},
    "float64 weight": {"weight": torch.tensor([5.0, 1.0, 0.5, 0.1], dtype=torch.float64)},
    "label_smoothing": {"label_smoothing": 0.2},
    "ignore_index": {"ignore_index": 2},
    "sum": {"reduction": "sum"},
    "all": {"weight": torch.tensor([2.0, 1.0, 0.5, 1.0]), "label_smoothing": 0.1, "ignore_index": 1, "reduction": "sum"},
    "plain": {},
}  # fmt: skip
TAKEN = {"natural": ("natural_ce", "natural"), "madry": ("adversarial_ce", "adversarial"), "alp": ("adversarial_ce", "adversarial"),
         "trades": ("natural_ce", "natural"), "bgat": ("adversarial_ce", "adversarial"),
         "fast-at": ("adversarial_ce", "adversarial"), "lbgat": ("guide_ce", "guide")}  # fmt: skip


def loss_of(**kwargs):
    return nn.CrossEntropyLoss(**{k: v.float() if k == "weight" else v for k, v in kwargs.items()})


@pytest.mark.parametrize("kwargs", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("name", TAKEN)
def test_the_term_is_the_classifiers_loss(name, kwargs):
    term, logits = TAKEN[name]
    seen = []
    classifier, guide = (make_classifier(seed=s, lr=1e-3, loss=nn.CrossEntropyLoss(**kwargs)) for s in (0, 1))
    own = {"preset": "default"} if name == "bgat" else {}
    trainer = TRAINERS[name](classifier, guide=guide, **own, on_step=lambda step: seen.append(
        (float(step.terms[term].value.detach()), float(loss_of(**kwargs)(step.logits[logits], step.y)))))  # fmt: skip
    trainer.fit(X, Y, nb_epochs=2, batch_size=8)
    assert len(seen) == 6
    assert [first for first, _ in seen] == [second for _, second in seen]


@pytest.mark.parametrize("kwargs", LOSSES.values(), ids=LOSSES)
def test_natural_training_is_arts(kwargs):
    """Batches of all samples, so that the order counts for nothing but rounding."""
    if "float64" in str(kwargs):
        kwargs = {k: v.float() for k, v in kwargs.items()}
    ours, arts = (make_classifier(lr=0.01, loss=nn.CrossEntropyLoss(**kwargs)) for _ in range(2))
    NaturalTrainer(ours, **OPTIONS).fit(X, Y, nb_epochs=3, batch_size=24)
    arts.fit(X, Y, nb_epochs=3, batch_size=24, verbose=False)
    np.testing.assert_allclose(ours.predict(X), arts.predict(X), rtol=1e-3, atol=1e-4)


def test_soft_labels_with_smoothing_weights_and_an_ignored_class():
    classifier = make_classifier(
        loss=nn.CrossEntropyLoss(**{k: LOSSES["all"][k] for k in ("weight", "label_smoothing")})
    )
    seen = []
    trainer = NaturalTrainer(
        classifier,
        on_step=lambda s: seen.append((float(s.loss), float(classifier.loss(s.logits["natural"], s.y)))),
        **OPTIONS,
    )
    trainer.fit(X, SOFT, nb_epochs=1, batch_size=8)
    assert len(seen) == 3
    assert all(first == second for first, second in seen)
    ignoring = make_classifier(loss=nn.CrossEntropyLoss(ignore_index=2))
    with pytest.raises(
        RuntimeError,
        match=r"classifier: its loss does not fit its logits and labels of shape \(24, 4\).*ignore_index",
    ):
        NaturalTrainer(ignoring, **OPTIONS).fit(X, SOFT, nb_epochs=1)


class Focal(nn.CrossEntropyLoss):
    def forward(self, logits, y):
        return super().forward(logits, y) ** 2


@pytest.mark.parametrize(
    ("build", "loss", "said"),
    [
        (
            partial(BGATTrainer, preset="paper"),
            nn.CrossEntropyLoss(label_smoothing=0.1),
            "not use the loss of the classifier (CrossEntropyLoss with label_smoothing)",
        ),
        (BGATTrainer, nn.CrossEntropyLoss(), ""),
        (
            MARTTrainer,
            nn.CrossEntropyLoss(reduction="sum"),
            "not use the loss of the classifier (CrossEntropyLoss with reduction)",
        ),
        (NaturalTrainer, nn.MultiMarginLoss(), "not use the loss of the classifier (MultiMarginLoss)"),
        (NaturalTrainer, Focal(), "not use the loss of the classifier (Focal)"),
        (NaturalTrainer, nn.CrossEntropyLoss(reduction="sum"), ""),
        (
            TRADESTrainer,
            nn.CrossEntropyLoss(reduction="sum"),
            "is a sum over the batch, and the other terms",
        ),
        (ALPTrainer, nn.CrossEntropyLoss(weight=torch.ones(4)), ""),
        (BGATTrainer, nn.CrossEntropyLoss(label_smoothing=0.1), ""),
        (BGATTrainer, nn.CrossEntropyLoss(reduction="sum"), "is a sum over the batch, and the other terms"),
        (
            partial(LBGATTrainer, preset="paper"),
            nn.CrossEntropyLoss(label_smoothing=0.1),
            "not use the loss of the classifier (CrossEntropyLoss with label_smoothing)",
        ),
    ],
)
def test_what_is_not_followed_is_said(build, loss, said, caplog):
    classifier = make_classifier(loss=loss)
    guides = [make_classifier(seed=1)] if getattr(build, "func", build) in (BGATTrainer, LBGATTrainer) else []
    with caplog.at_level(logging.WARNING):
        build(classifier, *guides, **OPTIONS).fit(X, Y, nb_epochs=1, batch_size=12)
    messages = [r.getMessage() for r in caplog.records if "loss of the" in r.getMessage()]
    assert said in " ".join(messages)
    assert len(messages) == bool(said)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"reduction": "none"}, r"classifier: the objective cannot use the loss .*expected reduction='mean' or 'sum'"),
        (
            {"weight": torch.ones(3)},
            r"classifier: .*its loss does not fit its logits and labels of shape \(24,\).*weight tensor",
        ),
    ],
)
def test_refused_by_name(kwargs, match):
    with pytest.raises((ValueError, RuntimeError), match=match):
        NaturalTrainer(make_classifier(loss=nn.CrossEntropyLoss(**kwargs)), **OPTIONS).fit(X, Y, nb_epochs=1)


@pytest.mark.parametrize("name", ["weight", "ignore_index", "sum"])
def test_several_processes_cannot_share_what_divides_by_the_batch(name):
    view = TensorView(make_classifier(loss=nn.CrossEntropyLoss(**LOSSES[name])))
    several = Processes(world=2)
    with pytest.raises(ValueError, match=r"classifier: .* whole batch holds, of which each process sees a part"):
        check_loss(view, True, True, several)
