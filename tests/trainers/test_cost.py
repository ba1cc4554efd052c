"""``trainer.cost`` is what really happens, counted with hooks, and is the floor of unavoidable passes."""

import pytest

from art_lbgat import (
    ALPTrainer,
    BGATTrainer,
    FastATTrainer,
    LBGATTrainer,
    MadryTrainer,
    MARTTrainer,
    NaturalTrainer,
    TRADESTrainer,
)
from art_lbgat.attacks import PGDAttack
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import OPTIONS, pgd


class Passes:
    """Counts forwards and backwards of one model; a backward with frozen parameters is one to the input only."""

    def __init__(self, module):
        self.forwards = self.input_backwards = self.full_backwards = 0
        self._parameter = next(module.parameters())
        module.register_forward_hook(self._forward)
        module.register_full_backward_hook(self._backward)

    def _forward(self, *_):
        self.forwards += 1

    def _backward(self, *_):
        if self._parameter.requires_grad:
            self.full_backwards += 1
        else:
            self.input_backwards += 1


def lbgat(c, g, **kwargs):
    return LBGATTrainer(c, g[0], **kwargs, **OPTIONS)


def bgat(c, g, **kwargs):
    return BGATTrainer(c, g, **kwargs, **OPTIONS)


AWP = {"awp_gamma": 5e-3, "awp_start_epoch": 1}

# name: (trainer, number of guides, student F, guide Fg) with K = 10 as published
CASES = {
    "natural": (lambda c, g: NaturalTrainer(c, **OPTIONS), 0, 3, 0),
    "madry": (lambda c, g: MadryTrainer(c, **OPTIONS), 0, 23, 0),
    "alp": (lambda c, g: ALPTrainer(c, **OPTIONS), 0, 26, 0),
    "alp weight 0": (lambda c, g: ALPTrainer(c, alp_weight=0, **OPTIONS), 0, 24, 0),
    "trades": (lambda c, g: TRADESTrainer(c, **OPTIONS), 0, 27, 0),
    "bgat": (lambda c, g: bgat(c, g[:1]), 1, 23, 1),
    "bgat ensemble": (lambda c, g: bgat(c, g), 2, 23, 2),
    "bgat trades 6": (lambda c, g: bgat(c, g[:1], regularizer="trades"), 1, 27, 1),
    "lbgat": (lbgat, 1, 23, 3),
    "lbgat alp": (lambda c, g: lbgat(c, g, regularizer="alp"), 1, 26, 3),
    "lbgat trades 0": (lambda c, g: lbgat(c, g, regularizer="trades", regularizer_weight=0), 1, 25, 3),
    "lbgat trades 6": (lambda c, g: lbgat(c, g, regularizer="trades"), 1, 27, 3),
    "bgat alp": (lambda c, g: bgat(c, g[:1], regularizer="alp"), 1, 26, 1),
    "bgat trades 0": (lambda c, g: bgat(c, g[:1], regularizer="trades", regularizer_weight=0), 1, 25, 1),
    "mart": (lambda c, g: MARTTrainer(c, **OPTIONS), 0, 26, 0),
    "fast-at": (lambda c, g: FastATTrainer(c, **OPTIONS), 0, 5, 0),
    # AWP: one more forward and full backward for each graph of the student; the guide runs once.
    "madry awp": (lambda c, g: MadryTrainer(c, **AWP, **OPTIONS), 0, 26, 0),
    "trades awp": (lambda c, g: TRADESTrainer(c, **AWP, **OPTIONS), 0, 33, 0),
    "bgat awp": (lambda c, g: bgat(c, g[:1], **AWP), 1, 26, 1),
    "bgat alp awp": (lambda c, g: bgat(c, g[:1], regularizer="alp", **AWP), 1, 32, 1),
    "bgat trades 0 awp": (lambda c, g: bgat(c, g[:1], regularizer="trades", regularizer_weight=0, **AWP), 1, 28, 1),
    "bgat trades 6 awp": (lambda c, g: bgat(c, g[:1], regularizer="trades", **AWP), 1, 33, 1),
    "bgat ensemble awp": (lambda c, g: bgat(c, g, **AWP), 2, 26, 2),
    "lbgat awp": (lambda c, g: lbgat(c, g, **AWP), 1, 26, 3),
    "lbgat alp awp": (lambda c, g: lbgat(c, g, regularizer="alp", **AWP), 1, 32, 3),
    "lbgat trades 0 awp": (lambda c, g: lbgat(c, g, regularizer="trades", regularizer_weight=0, **AWP), 1, 28, 3),
    "lbgat trades 6 awp": (lambda c, g: lbgat(c, g, regularizer="trades", **AWP), 1, 33, 3),
}
# Neither the guidance loss nor the norm changes a pass.
for _name in ("bgat", "lbgat"):
    for _guidance in ("mse+ce", "kd", "kl"):
        CASES[f"{_name} {_guidance}"] = (
            lambda c, g, n=_name, k=_guidance: (bgat if n == "bgat" else lbgat)(c, g[:1], guidance=k),
            1,
            23,
            CASES[_name][3],
        )
    CASES[f"{_name} L2"] = (
        lambda c, g, n=_name: (bgat if n == "bgat" else lbgat)(c, g[:1], attack=pgd(c, norm=2, max_iter=10)),
        1,
        23,
        CASES[_name][3],
    )


@pytest.mark.parametrize("name", CASES)
def test_cost_is_counted_and_is_the_floor(name):
    build, n_guides, student_floor, guide_floor = CASES[name]
    classifier, guides = make_classifier(), [make_classifier(seed=1), make_classifier(seed=2)]
    trainer = build(classifier, guides)
    student, *others = (Passes(c.model) for c in (classifier, *guides[:n_guides]))
    trainer.fit(*make_data(8), batch_size=8, nb_epochs=1)
    cost = trainer.cost
    assert student.forwards == cost.student_forwards
    assert student.input_backwards == cost.student_input_backwards
    assert student.full_backwards == cost.student_full_backwards
    assert sum(g.forwards for g in others) == cost.guide_forwards
    assert sum(g.full_backwards for g in others) == cost.guide_full_backwards
    assert sum(g.input_backwards for g in others) == 0
    assert (cost.student, cost.guide) == (student_floor, guide_floor)
    assert str(cost) == f"{student_floor} F" + (f" + {guide_floor} Fg" if guide_floor else "")


def test_restarts_cost_a_choice_each():
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier, max_iter=3, num_random_init=2), **OPTIONS)
    student = Passes(classifier.model)
    trainer.fit(*make_data(8), batch_size=8, nb_epochs=1)
    assert student.forwards == trainer.cost.student_forwards == 2 * 3 + 2 + 1


def test_cost_is_unknown_for_an_attack_that_goes_through_generate():
    classifier = make_classifier()

    class Other(PGDAttack):
        calls = 0

        def generate(self, x, y=None, **kwargs):
            Other.calls += 1
            return super().generate(x, y)

    trainer = MadryTrainer(classifier, Other(classifier), **OPTIONS)
    assert trainer.cost is None
    trainer.fit(*make_data(8), nb_epochs=1)
    assert Other.calls == 1  # a subclass may change anything, so it is called

    from art.attacks.evasion import DeepFool

    assert MadryTrainer(classifier, DeepFool(classifier, verbose=False), **OPTIONS).cost is None


def test_awp_costs_nothing_before_its_first_epoch():
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), awp_gamma=0.01, awp_start_epoch=2, **OPTIONS)
    student, passes = Passes(classifier.model), []
    trainer.fit(*make_data(8), batch_size=8, nb_epochs=3, scheduler=Counting(student, passes))
    assert passes == [3, 3 + 4, 3 + 4 + 4]
    assert trainer.cost.student_forwards == 4


class Counting:
    """A scheduler that notes, at the end of each epoch, the forwards so far."""

    def __init__(self, passes, seen):
        self.passes, self.seen = passes, seen

    def step(self):
        self.seen.append(self.passes.forwards)
