"""What ART's published tests of PGD and FGSM ask of an attack, asked of ours: 38 of 46 hold, the rest is refused by name.

The eight: ``minimal`` (2), which is another attack (the smallest radius that flips); ``eps`` of each value, sample shape, picture or
row (4), weighted balls that no number of a table could name; TypeError for negative arrays (2), which ART raises since their kind
differs from that of the other radius, and which are ValueError here as negative numbers are.

FGSM is ``PGDAttack`` with one step of ``eps`` from ``x``. What ART runs on other frameworks, or skips for PyTorch, is left out.
"""

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_numpy import (
    ProjectedGradientDescentNumpy,
)
from art.defences.preprocessor import JpegCompression
from art.estimators.estimator import BaseEstimator, LossGradientsMixin
from art.exceptions import EstimatorError
from art.utils import random_sphere

from art_lbgat import MadryTrainer
from art_lbgat.attacks import PGDAttack, TRADESAttack, projections
from tests.conftest import make_classifier, make_data, mlp

X, Y = make_data(20)
TARGETS = (Y + 1) % 4
GENERATOR = np.random.default_rng(0)
MASK = GENERATOR.integers(0, 2, X.shape).astype(np.float32)
BOTH = pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])


def one_step(classifier, **kwargs):
    """FGSM."""
    eps = kwargs.pop("eps", 0.1)
    return PGDAttack(classifier, **{"eps": eps, "eps_step": eps, "max_iter": 1, "num_random_init": 0, **kwargs})


@BOTH
def test_another_object_is_refused_as_art_does(kind):
    with pytest.raises(EstimatorError) as found:
        kind(object())
    assert {BaseEstimator, LossGradientsMixin} <= set(found.value.class_expected_list)


# argument, value and ART's error; max_iter=1.5 is from its FGSM and other tests
PARAMETERS = [
    ("norm", -1, ValueError), ("eps", "1", TypeError), ("eps", -1, ValueError), ("eps_step", -1, ValueError),
    ("targeted", "False", ValueError), ("num_random_init", "1", TypeError), ("num_random_init", -1, ValueError),
    ("batch_size", -1, ValueError), ("max_iter", -1, ValueError), ("verbose", "False", ValueError),
    ("max_iter", 1.5, ValueError), ("batch_size", 1.5, ValueError), ("num_random_init", 1.5, ValueError),
    ("random_eps", "no", ValueError),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("name", "value", "error"), PARAMETERS)
def test_wrong_parameters_raise_what_art_raises(kind, name, value, error):
    if kind is TRADESAttack and name in ("targeted", "random_eps"):
        pytest.skip("PGDAttack alone has it")
    with pytest.raises(error, match=f"^{name}: expected"):
        kind(make_classifier(), **{name: value})
    with pytest.raises(error, match=f"^{name}: expected"):
        kind(make_classifier()).set_params(**{name: value})


CLIPS = {
    "numbers": (0, 1),
    "of a sample": (np.zeros((1, 8, 8)), np.ones((1, 8, 8))),
    "of a picture": (np.zeros((8, 8)), np.ones((8, 8))),
    "of a row": (np.zeros(8), np.ones(8)),
}


@pytest.mark.parametrize("clip_values", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize("starts", [0, 1, 3])
def test_changes_data_and_predictions_and_leaves_its_input(clip_values, starts):
    classifier, before = make_classifier(clip_values=clip_values), X.copy()
    found = PGDAttack(classifier, eps=0.3, eps_step=0.1, num_random_init=starts).generate(X)
    assert np.array_equal(X, before)
    assert (found != X).any()
    assert 0 <= found.min() <= found.max() <= 1
    assert (classifier.predict(found).argmax(axis=1) != classifier.predict(X).argmax(axis=1)).any()


MASKS = {"of each": MASK, "of a sample": MASK[0], "of a picture": MASK[0, 0] == 1, "of a row": np.array([1, 0] * 4)}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("norm", [np.inf, 2])
@pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack, one_step])
def test_a_mask_keeps_what_it_covers_and_only_that(kind, norm, mask):
    classifier = make_classifier()
    attack = kind(classifier, norm=norm, eps=0.3 if norm == 2 else 0.1, eps_step=0.05, max_iter=3, batch_size=7)
    changed = attack.generate(X, Y, mask=mask) != X
    covered = np.broadcast_to(mask, X.shape) == 0
    assert not changed[covered].any()
    assert changed[~covered].mean() > 0.7


def in_numpy(classifier, **kwargs):
    return ProjectedGradientDescentNumpy(classifier, verbose=False, **{"num_random_init": 0, **kwargs})


def in_torch(classifier, **kwargs):
    return ProjectedGradientDescent(classifier, verbose=False, **{"num_random_init": 0, **kwargs})


SAME = {
    "linf": ({}, {}),
    "l2": ({"norm": 2, "eps": 0.8, "eps_step": 0.2}, {}),
    "l1": ({"norm": 1, "eps": 0.8, "eps_step": 0.3}, {}),
    "l1 with mask": ({"norm": 1, "eps": 0.8, "eps_step": 0.3}, {"mask": MASK}),
    "targeted l1": ({"targeted": True, "norm": 1, "eps": 0.8, "eps_step": 0.3}, {}),
    "targeted": ({"targeted": True}, {}),
    "targeted l2": ({"targeted": True, "norm": 2, "eps": 0.8, "eps_step": 0.2}, {}),
    "mask of each": ({}, {"mask": MASK}),
    "mask of a sample": ({}, {"mask": MASK[0]}),
    "masked and targeted": ({"targeted": True}, {"mask": MASK}),
}


@pytest.mark.parametrize("art", [in_numpy, in_torch])
@pytest.mark.parametrize(("settings", "given"), SAME.values(), ids=SAME)
def test_gives_what_arts_pgd_gives(art, settings, given):
    # in L1 and L2 ART clips before it projects, the published code after
    classifier = make_classifier(clip_values=None if "norm" in settings else (0, 1))
    settings = {"eps": 0.1, "eps_step": 0.03, "max_iter": 5, "batch_size": 3, **settings}
    expected = art(classifier, **settings).generate(X, TARGETS, **given)
    found = PGDAttack(classifier, num_random_init=0, **settings).generate(X, TARGETS, **given)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found != X).any()


def test_random_eps_draws_a_share_of_the_ball_for_each_call():
    """ART: a normal number around 0 of eps / 2, truncated to [0, eps], with the step in proportion; mean 0.37 eps."""
    classifier = make_classifier(clip_values=None)
    attack = PGDAttack(classifier, eps=0.1, eps_step=0.05, max_iter=4, random_eps=True)
    sizes = []
    for seed in range(300):
        torch.manual_seed(seed)
        sizes.append(np.abs(attack.generate(X[:2], Y[:2]) - X[:2]).max() / 0.1)
    assert max(sizes) <= 1 + 1e-5
    reference = (
        ProjectedGradientDescent(classifier, eps=0.1, random_eps=True)._attack.norm_dist.rvs(4000, random_state=0) / 0.1
    )
    assert np.mean(sizes) == pytest.approx(reference.mean(), abs=0.05)
    assert np.std(sizes) == pytest.approx(reference.std(), abs=0.05)
    assert attack.eps == 0.1


def test_random_eps_trains_with_another_ball_in_every_step(caplog, classifier):
    attack, found = PGDAttack(classifier, eps=0.1, eps_step=0.1, max_iter=2, random_eps=True), []
    trainer = MadryTrainer(
        classifier, attack, seed=0, verbose=False, on_step=lambda s: found.append(float((s.x_adv - s.x).abs().max()))
    )
    trainer.fit(X, Y, batch_size=5, nb_epochs=2)
    assert len({round(size, 4) for size in found}) == len(found) == 8
    assert max(found) <= 0.1 + 1e-6
    assert "random_eps is set" in caplog.text


def test_iris_untargeted_targeted_and_unbounded():
    """Tabular data: four numbers of three classes."""
    x, y = GENERATOR.random((30, 4)).astype(np.float32), np.arange(30) % 3
    for clip_values in ((0, 1), None):
        classifier = make_classifier(mlp(4, 3), shape=(4,), classes=3, clip_values=clip_values)
        for build in (PGDAttack, one_step):
            found = build(classifier, eps=0.9, eps_step=0.2).generate(x)
            assert ((found < 0) | (found > 1)).any() == (clip_values is None)
            own = np.eye(3, dtype=np.float32)[classifier.predict(x).argmax(axis=1)]
            assert (classifier.compute_loss(found, own) > classifier.compute_loss(x, own)).mean() > 0.8
            aimed = build(classifier, eps=0.9, eps_step=0.2, targeted=True).generate(x, y)
            away, near = (classifier.compute_loss(each, np.eye(3, dtype=np.float32)[y]) for each in (x, aimed))
            assert (near < away).mean() > 0.8


@pytest.mark.parametrize("objective", ["ce", "cw"])
def test_a_targeted_attack_reaches_its_labels_and_keeps_the_best_start(objective):
    classifier = make_classifier()
    attack = PGDAttack(classifier, eps=0.5, eps_step=0.1, max_iter=20, objective=objective, targeted=True)
    success = []
    for starts in (1, 4):
        torch.manual_seed(0)
        attack.set_params(num_random_init=starts)
        success.append((classifier.predict(attack.generate(X, TARGETS)).argmax(axis=1) == TARGETS).mean())
    away = PGDAttack(classifier, eps=0.5, eps_step=0.1, max_iter=20, objective=objective).generate(X, TARGETS)
    assert success[1] >= success[0] > 0.6 > (classifier.predict(away).argmax(axis=1) == TARGETS).mean()


def test_a_defended_classifier_is_attacked_through_its_defence():
    classifier = make_classifier(
        preprocessing_defences=JpegCompression(clip_values=(0, 1), channels_first=True, verbose=False)
    )
    found = one_step(classifier).generate(X, Y)
    assert (found != X).any()
    assert (classifier.predict(found)[range(20), Y] < classifier.predict(X)[range(20), Y]).mean() > 0.5


# what ART takes and this package does not: each is refused, by the name of the argument
REFUSED = {
    "norm 1.5": (lambda c: PGDAttack(c, norm=1.5), ValueError, "norm: expected np.inf, 'inf' or 1 or 2, got 1.5"),
    "norm True": (lambda c: PGDAttack(c, norm=True), ValueError, "norm: expected"),
    "decay": (lambda c: PGDAttack(c, decay=0.9), TypeError, "decay"),
    "summary_writer": (lambda c: PGDAttack(c, summary_writer=True), TypeError, "summary_writer"),
    "minimal": (lambda c: PGDAttack(c, minimal=True), TypeError, "minimal"),
    "eps of every value": (lambda c: PGDAttack(c, eps=np.ones(X.shape)), ValueError, "eps: expected one number"),
    "eps of a sample": (lambda c: PGDAttack(c, eps=np.ones((1, 8, 8))), ValueError, "eps: expected one number"),
    "eps of a picture": (lambda c: PGDAttack(c, eps=np.ones((8, 8))), ValueError, "eps: expected one number"),
    "eps of a row": (lambda c: PGDAttack(c, eps=np.full(8, 0.1)).generate(X), ValueError, "eps: expected one number"),
    "arrays of two lengths": (
        lambda c: PGDAttack(c, eps=np.full(20, 0.1), eps_step=np.full(3, 0.1)), ValueError, "eps_step: expected as many .* as eps, 20, got 3"),
    "negative arrays": (lambda c: PGDAttack(c, eps=np.array([-1])), ValueError, "eps: expected a finite number"),
    "random_eps of TRADES": (lambda c: TRADESAttack(c, random_eps=True), TypeError, "random_eps"),
    "targeted TRADES": (lambda c: TRADESAttack(c, targeted=True), TypeError, "targeted"),
    "targeted TRADES, later": (lambda c: TRADESAttack(c).set_params(targeted=True), ValueError, "targeted. cannot be set"),
    "targeted KL": (lambda c: PGDAttack(c, objective="kl", targeted=True), ValueError, "targeted: expected False"),
    "targeted without labels": (lambda c: PGDAttack(c, targeted=True).generate(X), ValueError, "y: expected the labels"),
    "targeted training": (
        lambda c: MadryTrainer(c, PGDAttack(c, targeted=True)), NotImplementedError, "attack: PGDAttack is targeted"),
    "mask of another shape": (lambda c: PGDAttack(c).generate(X, mask=np.ones((3, 8, 8))), ValueError, "mask: expected zeros and ones .*shape"),
    "mask of shares": (lambda c: PGDAttack(c).generate(X, mask=MASK / 2), ValueError, "mask: expected zeros and ones"),
    "mask of text": (lambda c: PGDAttack(c).generate(X, mask="all"), TypeError, "mask: expected an array"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_arts_alone_is_refused_by_name(call, error, match):
    with pytest.raises(error, match=match):
        call(make_classifier())


@pytest.mark.parametrize("clip_values", [(0, 1), None])
@pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
def test_norm_1_stays_in_the_ball_and_uses_it(kind, clip_values):
    classifier = make_classifier(clip_values=clip_values)
    found = kind(classifier, norm=1, eps=1.5, eps_step=0.5, max_iter=8).generate(X, Y)
    sizes = np.abs(found - X).sum(axis=(1, 2, 3))
    assert sizes.max() <= 1.5 * (1 + 1e-5)
    assert np.median(sizes) > (1.4 if clip_values is None else 0.3)
    assert clip_values is None or 0 <= found.min() <= found.max() <= 1
    assert (np.abs(found - X) > 0.1).sum(axis=(1, 2, 3)).max() <= 8  # a few pixels alone


def test_random_starts_of_norm_1_are_uniform_in_the_ball():
    """As ART's random_sphere: the size is Beta(d, 1), which is u ** (1 / d), and a share of it Beta(1, d - 1) of each value."""
    x = torch.zeros(4000, 5)
    unit = projections.unit_uniform(x, 1, torch.Generator().manual_seed(0))
    sizes = unit.abs().sum(dim=1)
    assert float(sizes.max()) <= 1 + 1e-6
    assert float(sizes.mean()) == pytest.approx(5 / 6, abs=0.01)
    np.random.seed(0)
    theirs = np.abs(random_sphere(4000, 5, 1.0, 1))
    assert unit.abs().mean(dim=0).numpy() == pytest.approx(theirs.mean(axis=0), abs=0.01)
    assert (unit**2).mean(dim=0).numpy() == pytest.approx((theirs**2).mean(axis=0), abs=0.01)
    assert (unit > 0).double().mean(dim=0).numpy() == pytest.approx(0.5, abs=0.03)


def test_trains_and_validates_in_norm_1(classifier):
    found = []
    attack = PGDAttack(classifier, norm=1, eps=1.0, eps_step=0.5, max_iter=3)
    trainer = MadryTrainer(classifier, attack, seed=0, verbose=False, on_step=lambda s: found.append(s.x_adv - s.x))
    trainer.fit(X, Y, batch_size=10, nb_epochs=1, validation_data=(X[:8], Y[:8]))
    assert 0.3 < max(float(each.abs().flatten(1).sum(dim=1).max()) for each in found) <= 1 + 1e-5
    assert 0 <= trainer.history.validation_robust_accuracy[0] <= trainer.history.validation_natural_accuracy[0]
    with pytest.raises(ValueError, match=r"eps: 100 is larger than the whole range of inputs \(64 for"):
        PGDAttack(classifier, norm=1, eps=100)
