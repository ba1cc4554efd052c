"""The suite: what is counted, what is refused, and AutoAttack on any classifier."""

import logging
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from torch import nn

from art_lbgat.attacks import PGDAttack
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation import auto_attack, evaluate, verify
from tests.conftest import make_classifier, make_data

X, Y = make_data(24)
FAST = ["apgd-ce", "apgd-t"]


@pytest.fixture(scope="module")
def trained():
    classifier = make_classifier(lr=0.02)
    classifier.fit(*make_data(96, seed=5), batch_size=16, nb_epochs=6, verbose=False)
    return classifier


def test_rows_and_their_order_of_strength(trained):
    table = evaluate(trained, X, Y, eps=0.1, autoattack=FAST)
    assert table.attack.tolist() == ["natural", "pgd-20", "autoattack (custom)"]
    columns = ["attack", "norm", "eps", "steps", "restarts", "n", "accuracy", "low", "high", "seconds", "flags"]
    assert table.columns.tolist() == columns
    assert table.steps.fillna(-1).tolist() == [0, 20, -1]
    assert table.restarts.fillna(-1).tolist() == [0, 1, -1]
    natural, pgd, strongest = table.accuracy
    assert natural == (trained.predict(X).argmax(axis=1) == Y).mean()
    assert natural > 0.9
    assert strongest <= pgd + 1 / 24
    assert pgd < natural
    assert (table.n == 24).all()
    assert (table.seconds > 0).all()


def test_zero_eps_is_natural_and_a_huge_eps_leaves_nothing(trained):
    assert evaluate(trained, X, Y, eps=0, attacks=["natural", "pgd-5"]).accuracy.nunique() == 1
    assert evaluate(trained, X, Y, eps=0.9, attacks=["pgd-40"]).accuracy[0] == 0


@pytest.mark.parametrize("norm", [math.inf, "inf", 2])
def test_same_numbers_whatever_batch_size_mode_and_global_state(trained, norm):
    eps = 0.08 if norm != 2 else 0.5
    options = {"eps": eps, "norm": norm, "autoattack": ["apgd-ce"]}
    reference = evaluate(trained, X, Y, **options)
    for batch_size, training in ((1, False), (7, True), (24, True)):
        torch.manual_seed(batch_size)
        trained.model.train(training)
        before = torch.get_rng_state()
        attacks = ["natural", "pgd-20"] + ["autoattack"] * (batch_size == 24)
        table = evaluate(trained, X, Y, attacks=attacks, batch_size=batch_size, **options)
        assert table.accuracy.tolist() == reference.accuracy.tolist()[: len(attacks)]
        assert trained.model.training == training
        assert torch.equal(before, torch.get_rng_state())
    trained.model.eval()


def test_several_classifiers_and_an_art_attack(trained):
    other = make_classifier(seed=3)
    table = evaluate({"trained": trained, "fresh": other}, X, Y, eps=0.05, attacks=["natural", "pgd-3"])
    assert table.model.tolist() == ["trained"] * 2 + ["fresh"] * 2
    assert table.accuracy[0] > table.accuracy[2]
    attack = ProjectedGradientDescent(trained, eps=0.05, eps_step=0.01, max_iter=5, verbose=False)
    row = evaluate(trained, X, Y, eps=0.05, attacks=[attack]).iloc[0]
    x_adv = attack.generate(X, np.eye(4, dtype=np.float32)[Y])
    assert row.accuracy == (trained.predict(x_adv).argmax(axis=1) == Y).mean()
    assert row.attack == "ProjectedGradientDescent"


def test_an_attack_that_leaves_the_ball_does_not_count(trained):
    attack = ProjectedGradientDescent(trained, eps=0.2, eps_step=0.1, max_iter=3, verbose=False)
    with pytest.raises(ValueError, match=r"attack 'ProjectedGradientDescent': x_adv leaves the ball of eps=0.05"):
        evaluate(trained, X, Y, eps=0.05, attacks=[attack])


def broken(value, index=(2, 0, 1, 1)):
    x_adv = torch.full((4, 1, 2, 2), 0.5)
    x_adv[index] = value
    return x_adv


@pytest.mark.parametrize(
    ("x_adv", "norm", "match"),
    [
        (broken(float("nan")), math.inf, "has NaN or Inf in 1 samples, first in 2"),
        (broken(1.1), math.inf, "leaves clip_values in 1 samples, first in 2"),
        (broken(0.61), math.inf, "leaves the ball of eps=0.1 in 1 samples, first in 2"),
        (broken(0.5)[:3], math.inf, "has shape"),
        (torch.full((4, 1, 2, 2), 0.56), 2.0, "leaves the ball of eps=0.1 in 4 samples"),
    ],
)
def test_verify_refuses(x_adv, norm, match):
    x = torch.full((4, 1, 2, 2), 0.5)
    bounds = (torch.tensor(0.0), torch.tensor(1.0))
    with pytest.raises(ValueError, match=match):
        verify(x, x_adv, 0.1, norm, bounds, 1.0, "attack")


def test_verify_accepts_the_edge_of_the_ball_and_of_the_range():
    x = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    bounds = (torch.tensor(0.0), torch.tensor(1.0))
    verify(x, (x + 0.1).clamp(0, 1), 0.1, math.inf, bounds, 1.0, "attack")
    verify(x * 255, x * 255 + 8, 8, math.inf, None, 255.0, "attack")


def test_verify_allows_the_rounding_of_large_values_where_no_range_is_known():
    x = 200 + 50 * torch.rand(64, 30, generator=torch.Generator().manual_seed(0))
    x_adv = x + 0.031
    assert float((x_adv.double() - x.double()).abs().max()) > 0.031 + 2e-6  # float32 keeps no closer
    verify(x, x_adv, 0.031, math.inf, None, 1.0, "attack")
    with pytest.raises(ValueError, match=r"leaves the ball of eps=0\.031"):
        verify(x, x + 0.032, 0.031, math.inf, None, 1.0, "attack")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"clip_values": (-1.0, 1.0), "preprocessing": (0.0, 2.0)},
        {"clip_values": (0.0, 255.0), "preprocessing": (0, 255)},
    ],
)
def test_autoattack_in_other_ranges_equals_the_unit_range(kwargs):
    low, high = kwargs["clip_values"]
    mean, std = kwargs["preprocessing"]
    unit = make_classifier(lr=0.02)
    unit.fit(*make_data(64, seed=5), batch_size=16, nb_epochs=5, verbose=False)
    scaled_model = nn.Sequential(Affine(std / (high - low), (mean - low) / (high - low)), *unit.model)
    other = make_classifier(scaled_model, **kwargs)
    result = [
        evaluate(c, x, Y, eps=eps, attacks=["natural", "pgd-5", "autoattack"], autoattack=FAST).accuracy.tolist()
        for c, x, eps in ((unit, X, 0.1), (other, X * (high - low) + low, 0.1 * (high - low)))
    ]
    assert result[0] == pytest.approx(result[1], abs=1.5 / 24)
    assert result[1][2] < result[1][0]


class Affine(nn.Module):
    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x):
        return x * self.scale + self.shift


def test_autoattack_standard_runs_with_fewer_than_ten_classes_and_is_named_custom(trained):
    row = evaluate(trained, X[:6], Y[:6], eps=0.3, attacks=["autoattack"]).iloc[0]
    assert row.attack == "autoattack (custom)"
    assert 0 <= row.accuracy <= 1


def test_autoattack_standard_on_ten_classes_is_upstreams_result():
    from pyautoattack import AutoAttack

    classifier = make_classifier(classes=10)
    x, y = make_data(20, classes=10)
    classifier.fit(x, y, batch_size=10, nb_epochs=8, verbose=False)
    table = evaluate(classifier, x, y, eps=0.3, attacks=["autoattack"])
    classifier.model.eval()
    upstream = AutoAttack(classifier.model, norm="Linf", eps=0.3, seed=0, device="cpu", version="standard")
    inputs = torch.from_numpy(x), torch.from_numpy(y)
    with ThreadPoolExecutor(max_workers=1) as thread:  # it ends with sys.settrace(None), which would end a coverage run
        x_adv, _ = thread.submit(upstream.run_standard_evaluation, *inputs, batch_size=250).result()
    assert table.attack[0] == "autoattack (standard)"
    assert table.accuracy[0] == (classifier.predict(x_adv.numpy()).argmax(axis=1) == y).mean()
    ours = auto_attack(TensorView(classifier), torch.from_numpy(x), torch.from_numpy(y), 0.3)
    assert torch.equal(ours.x_adv, x_adv)


def test_autoattack_on_inputs_that_are_no_images_and_in_l2():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    classifier = make_classifier(model, shape=(12,))
    x, y = make_data(12, shape=(12,))
    for norm, attacks in ((math.inf, ["apgd-ce", "square"]), (2, ["apgd-ce", "fab-t"])):
        table = evaluate(classifier, x, y, eps=0.5, norm=norm, attacks=["natural", "autoattack"], autoattack=attacks)
        assert table.accuracy[1] <= table.accuracy[0]
    with pytest.raises(ValueError, match=r"Square in L2 needs images of at least 5x5 values, got \(3, 4\)"):
        evaluate(classifier, x, y, eps=0.2, norm=2, attacks=["autoattack"])


def test_autoattack_flags_reach_the_table_and_are_not_left_over():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.linear = nn.Flatten(), nn.Linear(64, 4)

        def forward(self, x):
            return self.linear(self.flatten(x)) + torch.randn(len(x), 4)

    noisy = evaluate(make_classifier(Noisy()), X[:8], Y[:8], eps=0.1, attacks=["autoattack"], autoattack=["apgd-ce"])
    assert re.search("randomi[sz]ed", noisy["flags"][0])
    clean = evaluate(make_classifier(), X[:8], Y[:8], eps=0.1, attacks=["autoattack"], autoattack=["apgd-ce"])
    assert clean["flags"][0] == ""
    assert logging.getLogger("auto-attack").handlers == []


def test_a_dynamic_defence_is_flagged():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 4)

        def forward(self, x):
            if not x.requires_grad:
                with torch.enable_grad():
                    leaf = x.detach().clone().requires_grad_(True)
                    torch.autograd.grad(self.linear(leaf.flatten(1)).sum(), leaf)
            return self.linear(x.flatten(1))

    table = evaluate(make_classifier(Dynamic()), X[:4], Y[:4], eps=0.1, attacks="autoattack", autoattack="apgd-ce")
    assert "dynamic" in table["flags"][0]


def test_the_trace_function_survives():
    """In a thread, so that the trace function of a coverage run is left alone."""

    def trace(frame, event, arg):
        return None

    def traced():
        sys.settrace(trace)
        evaluate(make_classifier(), X[:4], Y[:4], eps=0.1, attacks="autoattack", autoattack="apgd-ce")
        return sys.gettrace()

    with ThreadPoolExecutor(max_workers=1) as thread:
        assert thread.submit(traced).result() is trace


BAD = {
    "eps": ({"eps": -1}, "eps: expected a finite number"),
    "norm": ({"norm": 1}, "norm: expected"),
    "batch_size": ({"batch_size": 0}, "batch_size: expected"),
    "seed": ({"seed": -1}, "seed: expected"),
    "attack name": ({"attacks": ["pgd"]}, "attacks: expected 'natural', 'pgd-K'"),
    "autoattack name": ({"attacks": ["autoattack"], "autoattack": ["apgd"]}, "autoattack: expected one of"),
    "soft labels": ({"y": np.full((24, 4), 0.25)}, "y: expected hard labels"),
    "no classifier": ({"classifier": {}}, "classifier: expected at least one classifier"),
    "no clip_values": (
        {"classifier": make_classifier(clip_values=None), "attacks": ["autoattack"]}, "AutoAttack needs bounded inputs",
    ),
    "ranges differ": (
        {
            "classifier": make_classifier(clip_values=(np.zeros((1, 8, 8)), np.arange(1, 65).reshape(1, 8, 8))),
            "attacks": ["autoattack"],
        },
        "AutoAttack needs one range for all features",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "match"), BAD.values(), ids=BAD)
def test_bad_arguments(change, match):
    arguments = {"classifier": make_classifier(), "x": X, "y": Y, "eps": 0.1, "attacks": ["natural", "pgd-2"], **change}
    classifier, x, y = (arguments.pop(name) for name in ("classifier", "x", "y"))
    with pytest.raises(ValueError, match=match):
        evaluate(classifier, x, y, **arguments)


def test_an_attack_on_another_model_is_refused(trained):
    with pytest.raises(ValueError, match="attacks: PGDAttack is bound to another model than classifier"):
        evaluate(trained, X, Y, eps=0.1, attacks=[PGDAttack(make_classifier())])


def test_a_sample_that_is_wrong_naturally_never_counts_as_robust(trained):
    """An attack that turns a misclassified image into one that is classified as labelled has broken nothing."""

    class Swap(PGDAttack):
        def generate(self, x, y=None, **kwargs):
            return X[1:2]

    predicted = trained.predict(X[:2]).argmax(axis=1)
    assert predicted[0] != predicted[1]
    table = evaluate(trained, X[:1], predicted[1:2], eps=1.0, attacks=["natural", Swap(trained)])
    assert table.accuracy.tolist() == [0, 0]
