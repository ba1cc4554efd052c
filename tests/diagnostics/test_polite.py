"""A look changes nothing: modes, flags, hooks, weights, buffers, generators; also after an exception, in any mode."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import diagnostics as dg
from tests.conftest import make_classifier, make_data
from tests.diagnostics.cases import state
from tests.evaluation.nets import Wrapped

X, Y = make_data(48)
LOOKS = {
    "agreement": lambda a, b: dg.agreement(a, b, X, Y, X[::-1]),
    "margins": lambda a, b: dg.margins({"a": a, "b": b}, X, Y),
    "calibration": lambda a, b: dg.calibration({"a": a, "b": b}, X, Y),
    "slices": lambda a, b: dg.decision_slices({"a": a, "b": b}, X[:3], resolution=5),
    "distance": lambda a, b: dg.boundary_distance(
        {"a": a, "b": b}, X[:4], dg.directions(X[:4], Y[:4], seed=0), steps=3
    ),
    "shift": lambda a, b: dg.boundary_shift(a, b, X[:4], dg.directions(X[:4], Y[:4]), steps=3),
    "discrepancy": lambda a, b: dg.transferred_discrepancy({"a": a, "b": b}, {"t": (X, Y)}, head="logistic"),
}
EVERY = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


@EVERY
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_changed(look, training, fails, classifier, guide):
    def hook(module, args):
        if fails and not module.training:
            raise RuntimeError("boom")

    guide.model.register_forward_pre_hook(hook)
    for each in (classifier, guide):
        each.model.train(training)
    classifier.model[1].eval()
    next(guide.model.parameters()).requires_grad_(False)
    images, before = X.copy(), (state(classifier), state(guide))
    with pytest.raises(RuntimeError, match="boom") if fails else nullcontext():
        look(classifier, guide)
    assert (state(classifier), state(guide)) == before
    np.testing.assert_array_equal(X, images)


@EVERY
def test_results_do_not_depend_on_modes_around(look, classifier, guide):
    expected = look(classifier, guide)
    classifier.model.train()
    with torch.inference_mode(), torch.autocast("cpu"):
        found = look(classifier, guide)
    assert found.equals(expected)


@EVERY
def test_a_model_that_draws_at_random_gives_the_same_twice(look):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    noisy = make_classifier(Wrapped(net, before=lambda x: x + torch.randn(1)))
    before = state(noisy)
    assert look(noisy, noisy).equals(look(noisy, noisy))
    assert state(noisy) == before


def test_preprocessing_is_part_of_the_model():
    plain = make_classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    scaled = make_classifier(plain.model, preprocessing=(0.5, 2.0))
    by_hand = make_classifier(plain.model, clip_values=(-0.25, 0.25))
    expected = dg.margins(by_hand, (X - 0.5) / 2, Y)["margin"]
    np.testing.assert_allclose(dg.margins(scaled, X, Y)["margin"], expected, atol=1e-5)
    assert not np.allclose(dg.margins(plain, X, Y)["margin"], expected)
    tasks = {"t": (X, Y)}
    pair = {"scaled": scaled, "plain": plain}
    seen = []
    dg.transferred_discrepancy(pair, tasks, features=lambda m, i: seen.append(float(i.min())) or i.mean(3))
    assert seen[0] < 0 <= seen[1]
