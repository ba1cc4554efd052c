"""``trainer.cost`` is what really happens, counted with hooks, and is the floor of unavoidable passes."""

import pytest
from art.attacks.evasion import DeepFool

from art_lbgat import MadryTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.trainers import METHODS
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


AWP = {"awp_gamma": 5e-3, "awp_start_epoch": 1}
TRADES_0 = {"regularizer": "trades", "regularizer_weight": 0}

# name: (method, options, number of guides, student F, guide Fg) with K = 10 as published
CASES = {
    "natural": ("natural", {}, 0, 3, 0),
    "madry": ("madry", {}, 0, 23, 0),
    "alp": ("alp", {}, 0, 26, 0),
    "alp weight 0": ("alp", {"alp_weight": 0}, 0, 24, 0),
    "trades": ("trades", {}, 0, 27, 0),
    "mart": ("mart", {}, 0, 26, 0),
    "n-fgsm": ("n-fgsm", {}, 0, 5, 0),
    "fast-at": ("fast-at", {}, 0, 5, 0),
    "bgat": ("bgat", {}, 1, 23, 1),
    "bgat ensemble": ("bgat", {}, 2, 23, 2),
    # The helper: a graph more, and the guide on x_adv.
    "hat": ("hat", {}, 1, 30, 1),
    "hat ensemble awp": ("hat", AWP, 2, 39, 2),
    "bgat helper": ("bgat", {"helper_weight": 0.5}, 1, 26, 2),
    "rslad": ("bgat", {"guidance": "rslad"}, 1, 26, 1),
    "rslad trades awp": ("bgat", {"guidance": "rslad", "regularizer": "trades", **AWP}, 1, 33, 1),
    "rslad trades 0": ("bgat", {"guidance": "rslad", **TRADES_0}, 1, 27, 1),
    # The model's own average is one more forward of it for each input.
    "adr": ("adr", {}, 0, 24, 0),
    "adr rebat awp": ("adr", {"rebat_weight": 1.0, **AWP}, 0, 28, 0),
    "rebat": ("adr", {"rebat_weight": 1.0, "interpolation": (0, 0)}, 0, 24, 0),
    # AWP: one more forward and full backward for each graph of the student; the guide runs once.
    "madry awp": ("madry", AWP, 0, 26, 0),
    "trades awp": ("trades", AWP, 0, 33, 0),
    "bgat ensemble awp": ("bgat", AWP, 2, 26, 2),
}
for _method, _fg in (("bgat", 1), ("lbgat", 3)):
    _floors = {"plain": ({}, 23, 26), "alp": ({"regularizer": "alp"}, 26, 32), "trades 0": (TRADES_0, 25, 28)}
    for _name, (_options, _f, _f_awp) in {
        **_floors,
        "trades 6": ({"regularizer": "trades"}, 27, 33),
        "ikl": ({"regularizer": "ikl"}, 27, 33),
    }.items():
        CASES[f"{_method} {_name}"] = (_method, _options, 1, _f, _fg)
        CASES[f"{_method} {_name} awp"] = (_method, {**_options, **AWP}, 1, _f_awp, _fg)
    # Neither the guidance loss nor the norm changes a pass.
    for _guidance in ("mse+ce", "kd", "kl", "ikl", "gkl", "nuclear"):
        CASES[f"{_method} {_guidance}"] = (_method, {"guidance": _guidance}, 1, 23, _fg)
    CASES[f"{_method} L2"] = (_method, {"attack": lambda c: pgd(c, norm=2, max_iter=10)}, 1, 23, _fg)


@pytest.mark.parametrize("name", CASES)
def test_cost_is_counted_and_is_the_floor(name):
    method, options, n_guides, student_floor, guide_floor = CASES[name]
    classifier, guides = make_classifier(), [make_classifier(seed=1 + i) for i in range(n_guides)]
    options = {key: value(classifier) if key == "attack" else value for key, value in options.items()}
    given = [guides if n_guides > 1 else guides[0]] if guides else []
    trainer = METHODS[method](classifier, *given, **options, **OPTIONS)
    student, *others = (Passes(c.model) for c in (classifier, *guides))
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
