"""The rows of the suite: each equals the slow, obvious computation of what it is named after."""

import math

import numpy as np
import pytest
import torch
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from scipy.stats import binomtest
from torch import nn
from torch.nn import functional

from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import Accuracy, auto_attack, evaluate, verify, wilson_interval
from art_lbgat.evaluation.attacks import Plan, Threat, make_examples, plan_attacks
from art_lbgat.evaluation.subject import make_subjects
from art_lbgat.evaluation.suite import PAPER_SUITE, run_suite
from tests import reference_lbgat as reference
from tests.conftest import conv_net, copied_state, make_classifier, states_equal
from tests.evaluation.nets import EPS, Wrapped, digits, healthy, natural, wrapped

X, Y = digits()
TX, TY = torch.from_numpy(X), torch.from_numpy(Y)
RADII = {math.inf: 0.12, 2: 0.6}
FAST = ["apgd-ce"]


def logits(classifier, x):
    classifier.model.eval()
    return classifier.model(x)


def right(classifier, x, y=TY):
    with torch.no_grad():
        return logits(classifier, x).argmax(1) == y


def subject_of(classifier, x=X, y=Y, seed=0):
    (subject,) = make_subjects(classifier, x, y, 250, seed).values()
    return subject


def share(mask):
    return float(mask.double().mean())


def cross_entropy(z, y):
    return functional.cross_entropy(z, y, reduction="sum")


def margin(z, y):
    own = z[range(len(y)), y]
    return (z.scatter(1, y[:, None], -math.inf).max(1).values - own).sum()


def start(norm, eps, generator):
    """Uniform in the ball around every sample, then clipped to [0, 1]."""
    if norm == math.inf:
        return (TX + eps * (torch.rand(TX.shape, generator=generator) * 2 - 1)).clamp(0, 1)
    direction = torch.randn(TX.shape, generator=generator).flatten(1)
    radius = torch.rand(len(TX), 1, generator=generator) ** (1 / 64)
    unit = direction / direction.norm(dim=1, keepdim=True) * radius
    return (TX + eps * unit.reshape(TX.shape)).clamp(0, 1)


def ascend(classifier, x, y, x_adv, loss, norm, eps, step, steps):
    for _ in range(steps):
        x_adv = x_adv.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(logits(classifier, x_adv), y), x_adv)
        x_adv = reference.ascend(x_adv.detach(), x, gradient, eps, step, "inf" if norm == math.inf else "2")
    return x_adv


@pytest.mark.parametrize("norm", [math.inf, 2])
@pytest.mark.parametrize(
    ("name", "loss", "steps"), [("pgd-7", cross_entropy, 7), ("cw-7", margin, 7), ("fgsm", cross_entropy, 1)]
)
def test_gradient_rows_equal_the_equations_bit_for_bit(name, loss, steps, norm):
    classifier, eps = healthy(), RADII[norm]
    step = eps if name == "fgsm" else eps / 4
    ok = right(classifier, TX)
    assert 80 < ok.sum() < 100  # otherwise nothing is left out
    begin = TX if name == "fgsm" else start(norm, eps, torch.Generator().manual_seed(3))
    expected = TX.clone()
    expected[ok] = ascend(classifier, TX[ok], TY[ok], begin[ok], loss, norm, eps, step, steps)

    subject, threat = subject_of(classifier, seed=3), Threat(eps, norm, eps / 4)
    (plan,) = plan_attacks(name)
    assert torch.equal(make_examples(subject, plan, threat, subject.right).x_adv, expected)
    row = evaluate(classifier, X, Y, eps=eps, norm=norm, eps_step=eps / 4, attacks=name, seed=3).iloc[0]
    assert row.accuracy == share(ok & right(classifier, expected))
    assert (row.steps, row.restarts, row.attack) == (steps, 1, name)
    assert row.accuracy < share(ok) - 0.1


def test_restarts_keep_the_worst_case_per_sample_and_spare_what_is_broken():
    classifier, eps = healthy(), 0.12
    ok, generator = right(classifier, TX), torch.Generator().manual_seed(0)
    survivors, first = ok.clone(), None
    for _ in range(4):
        begin = start(math.inf, eps, generator)
        x_adv = ascend(classifier, TX, TY, begin, cross_entropy, math.inf, eps, eps / 2, 2)
        survivors &= right(classifier, x_adv)
        first = survivors.clone() if first is None else first
    assert survivors.sum() < first.sum()
    rows = evaluate(classifier, X, Y, eps=eps, eps_step=eps / 2, attacks="pgd-2", restarts=4).iloc[0]
    one = evaluate(classifier, X, Y, eps=eps, eps_step=eps / 2, attacks="pgd-2").iloc[0]
    assert (rows.accuracy, one.accuracy) == (share(survivors), share(first))
    assert (rows.restarts, one.restarts) == (4, 1)


def test_kl_rows_equal_the_attack_of_that_name():
    classifier = natural()  # which seeds the global generator itself
    torch.manual_seed(2)
    x_adv = PGDAttack(classifier, eps=0.1, eps_step=0.01, max_iter=5, objective="kl", batch_size=250).generate(X)
    expected = share(right(natural(), TX) & right(natural(), torch.from_numpy(x_adv)))
    assert evaluate(natural(), X, Y, eps=0.1, attacks="kl-5", seed=2).accuracy[0] == expected


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_noise_is_the_worst_of_ten_draws(norm):
    classifier, eps = natural(), {math.inf: 0.3, 2: 1.8}[norm]
    generator, expected = torch.Generator().manual_seed(0), right(classifier, TX)
    for _ in range(5):
        expected &= right(classifier, start(norm, eps, generator))
        corner = torch.randn(TX.shape, generator=generator)
        length = corner.flatten(1).norm(dim=1)[:, None, None, None]
        unit = corner.sign() if norm == math.inf else corner / length
        expected &= right(classifier, (TX + eps * unit).clamp(0, 1))
    row = evaluate(classifier, X, Y, eps=eps, norm=norm, attacks="noise").iloc[0]
    assert row.accuracy == share(expected) < share(right(classifier, TX)) - 0.05
    assert (row.steps, row.restarts) == (0, 10)


def test_transfer_shows_the_examples_of_each_source_on_each_classifier():
    sources = {"natural": natural(), "robust": healthy()}
    table = evaluate({"h": healthy(), "n": natural()}, X, Y, eps=EPS, attacks=["transfer", "worst"], sources=sources)
    assert table.attack.tolist() == ["transfer (natural)", "transfer (robust)", "worst"] * 2
    torch.manual_seed(0)
    x_adv = PGDAttack(natural(), eps=EPS, eps_step=EPS / 10, max_iter=20, batch_size=250).generate(X, Y)
    expected = right(healthy(), TX) & right(healthy(), torch.from_numpy(x_adv))
    assert table.accuracy[0] == share(expected)
    white = table["flags"].str.contains("white-box, no transfer").tolist()
    assert white == [False, True, False, True, False, False]
    assert table.accuracy[3] < table.accuracy[0]  # made on itself
    assert table.accuracy[2] <= table.accuracy[:2].min()
    assert (table[table.attack != "worst"].seconds > 1e-4).all()


def test_quantised_rounds_after_the_verification_and_stays_out_of_the_worst_case():
    def grid(x, levels=3):
        return torch.round(x * (levels - 1)) / (levels - 1)

    classifier = healthy()
    names = ["natural", "quantised-3", "worst"]
    table = evaluate(classifier, X, Y, eps=0.05, attacks=names)  # a rounding to 3 levels moves by up to 0.25
    ok = right(classifier, grid(TX))
    begin = start(math.inf, 0.05, torch.Generator().manual_seed(0))
    x_adv = TX.clone()
    x_adv[ok] = ascend(classifier, TX[ok], TY[ok], begin[ok], cross_entropy, math.inf, 0.05, 0.005, 20)
    expected = ok & right(classifier, grid(x_adv))
    assert table.accuracy[1] == share(expected)
    assert not torch.equal(ok, right(classifier, TX))
    assert table.accuracy[2] == table.accuracy[0] > table.accuracy[1]
    scaled = ten(Wrapped(classifier.model, before=lambda x: (x + 1) / 2), clip_values=(-1, 1))
    found = evaluate(scaled, 2 * X - 1, Y, eps=0.1, attacks=names)
    assert found.accuracy.tolist() == pytest.approx(table.accuracy.tolist(), abs=0.03)


class Halves(EvasionAttack):
    """Turns every second sample into one that is classified otherwise, and leaves the rest."""

    _estimator_requirements = ()

    def __init__(self, estimator, first):
        super().__init__(estimator=estimator)
        self.first = first

    def generate(self, x, y=None, **kwargs):
        predicted = self.estimator.predict(x).argmax(1)
        x_adv = x.copy()
        for i in range(self.first, len(x), 2):
            x_adv[i] = x[np.flatnonzero(predicted != y[i].argmax())[0]]
        return x_adv


def test_worst_is_the_per_sample_worst_case_wherever_it_stands():
    predicted = natural().predict(X).argmax(1)
    attacks = ["worst", lambda c: Halves(c, 0), lambda c: Halves(c, 1)]
    table = evaluate({"n": natural()}, X, predicted, eps=1.0, attacks=attacks)
    assert table.attack.tolist() == ["worst", "Halves", "Halves"]
    assert table.accuracy.tolist() == [0, 0.5, 0.5]

    names = ["natural", "pgd-5", "worst", "cw-5", "noise", "transfer"]
    rows = run_suite(healthy(), X, Y, Threat(EPS, math.inf), names, {"n": natural()})[1][None]
    masks = [row.right.numpy() for row in rows if row.attack != "worst"]
    assert np.array_equal(rows[2].right.numpy(), np.logical_and.reduce(masks))
    table = evaluate(healthy(), X, Y, eps=EPS, attacks=names, sources={"n": natural()})
    assert table.accuracy.tolist() == [share(row.right) for row in rows]


def test_columns_and_their_types():
    table = evaluate(healthy(), X, Y, eps=EPS, attacks=["natural", "pgd-20", "worst"])
    columns = ["attack", "norm", "eps", "steps", "restarts", "n", "accuracy", "low", "high", "seconds", "flags"]
    assert table.columns.tolist() == columns
    assert table.steps.fillna(-1).tolist() == [0, 20, -1]
    assert table.restarts.fillna(-1).tolist() == [0, 1, -1]
    assert table.norm.tolist() == ["", "inf", "inf"]
    assert table.accuracy[0] == (healthy().predict(X).argmax(axis=1) == Y).mean()
    assert (table.seconds[:2] > 0).all()


@pytest.mark.parametrize("n", [1, 7, 100])
def test_intervals_are_wilsons(n):
    """Bit for bit scipy's, which takes whole counts only."""
    for correct in range(n + 1):
        scipy = binomtest(correct, n).proportion_ci(0.95, method="wilson")
        assert Accuracy(correct, n).interval == wilson_interval(correct / n, n) == (scipy.low, scipy.high)
    mean = wilson_interval(0.5 / n, n)  # such as that of two seeds
    assert 0 == wilson_interval(0, n)[0] < mean[0] < 0.5 / n < mean[1]


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_one_accuracy_for_all_batch_sizes_modes_and_types(norm):
    attacks = ["natural", "noise", "fgsm", "pgd-10", "cw-5", "transfer", "quantised-4", "worst"]
    options = {"eps": RADII[norm], "norm": norm, "attacks": attacks, "sources": {"n": natural()}, "restarts": 2}
    x, y = X[:50], Y[:50]
    state = copied_state(healthy().model)
    reference = evaluate(healthy(), x, y, batch_size=100, **options)
    assert reference.accuracy.nunique() > 3
    wide = np.repeat(x, 2, axis=3)
    for batch_size, images, training in ((7, wide[..., ::2], True), (250, x.astype(float), False)):
        healthy().model.train(training)
        before = torch.get_rng_state()
        table = evaluate(healthy(), images, y, batch_size=batch_size, **options)
        assert table.accuracy.tolist() == reference.accuracy.tolist()
        assert (table["flags"] == "").all()
        assert healthy().model.training == training
        assert torch.equal(before, torch.get_rng_state())
    assert states_equal(state, healthy().model.state_dict())
    healthy().model.eval()


def test_channels_last_images_give_the_same_bits(few_queries):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    classifier = make_classifier(net, shape=(3, 8, 8))
    x, y = torch.rand(20, 3, 8, 8), torch.arange(20) % 4
    plan, rows, found = Plan("gradient", "pgd-5", 5), torch.ones(20, dtype=torch.bool), []
    for images in (x, x.to(memory_format=torch.channels_last)):
        subject = subject_of(classifier, images, y)
        made = make_examples(subject, plan, Threat(0.1, math.inf), rows).x_adv
        each = [auto_attack(subject.view, images, y, 0.02, norm, ["apgd-t", "square"]).x_adv for norm in (math.inf, 2)]
        found.append(torch.cat([made, *each]))
    assert torch.equal(*found)


def test_only_samples_that_are_right_are_attacked_from_starts_that_do_not_depend_on_them():
    seen = []
    model = Wrapped(healthy().model, before=lambda x: seen.append(len(x)) or x)
    subject = subject_of(make_classifier(model, classes=10))
    plan, threat = Plan("gradient", "pgd-3", 3), Threat(EPS, math.inf)
    seen.clear()
    whole = make_examples(subject, plan, threat, torch.ones(100, dtype=torch.bool)).x_adv
    assert sum(seen) == 300
    seen.clear()
    few = make_examples(subject, plan, threat, subject.right).x_adv
    assert sum(seen) == 3 * int(subject.right.sum()) < 300
    assert torch.equal(few[subject.right], whole[subject.right])
    assert torch.equal(few[~subject.right], subject.x[~subject.right])


def test_art_attacks_bound_or_made_for_each_classifier():
    def pgd(classifier):
        return ProjectedGradientDescent(
            classifier, eps=EPS, eps_step=0.03, max_iter=4, num_random_init=1, verbose=False
        )

    both = {"h": healthy(), "n": natural()}
    table = evaluate(both, X, Y, eps=0.3, attacks=["natural", pgd, FastGradientMethod])
    assert table.attack.tolist() == ["natural", "ProjectedGradientDescent", "FastGradientMethod"] * 2
    assert table.steps.fillna(-1).tolist() == [0, 4, -1] * 2
    assert table.restarts.tolist() == [0, 1, 1] * 2
    for name, classifier in both.items():
        fgsm = FastGradientMethod(classifier).generate(X, np.eye(10, dtype=np.float32)[Y])
        expected = right(classifier, TX) & right(classifier, torch.from_numpy(fgsm))
        row = table[(table.model == name) & (table.attack == "FastGradientMethod")].iloc[0]
        assert row.accuracy == share(expected)


def test_what_must_fail_fails_before_the_first_attack():
    calls = []
    model = Wrapped(healthy().model, before=lambda x: calls.append(torch.is_grad_enabled()) or x)
    first = make_classifier(model, classes=10)
    bound = PGDAttack(first, eps=EPS)
    with pytest.raises(ValueError, match=r"PGDAttack is bound to another model than classifier\['second'\].*lambda c"):
        evaluate({"first": first, "second": natural()}, X, Y, eps=EPS, attacks=["pgd-50", bound])
    with pytest.raises(ValueError, match=r"autoattack: expected one of .*did you mean 'apgd-ce'"):
        evaluate(first, X, Y, eps=EPS, attacks=["pgd-50", "autoattack"], autoattack=["apgd-c"])
    nan = wrapped(after=lambda z: z * math.nan)
    with pytest.raises(ValueError, match=r"classifier\['second'\]: its logits are NaN or Inf for 100 of 100"):
        evaluate({"first": first, "second": nan}, X, Y, eps=EPS, attacks=["pgd-50"])
    assert sum(calls) == 3  # the one gradient of each call that looks for masking


def ten(model=None, **kwargs):
    return make_classifier(model, classes=10, **kwargs)


def source(classifier):
    return {"attacks": "transfer", "sources": {"s": classifier}}


RANGES = np.zeros((1, 8, 8)), np.arange(16, 80).reshape(1, 8, 8)
BAD = {
    "unknown": ({"attacks": ["pgd-0"]}, ValueError, "attacks: expected 'natural', 'pgd-K'.*got 'pgd-0'"),
    "one level": ({"attacks": ["quantised-1"]}, ValueError, r"'quantised-L' \(L >= 2\).*got 'quantised-1'"),
    "none": ({"attacks": []}, ValueError, "attacks: expected at least one of"),
    "type": ({"attacks": [3]}, TypeError, "attacks: expected 'natural'.*got int"),
    "no attack made": ({"attacks": [lambda c: c]}, TypeError, "a function that makes an ART EvasionAttack, got PyTorch"),
    "worst of nothing": ({"attacks": ["worst", "quantised-4"]}, ValueError, "'worst' is the worst case over the other"),
    "no sources": ({"attacks": "transfer"}, ValueError, "'transfer' expects sources="),
    "sources": ({"attacks": "transfer", "sources": [natural]}, TypeError, "sources: expected a mapping"),
    "eps_step": ({"eps_step": 0}, ValueError, "eps_step: expected a finite number > 0"),
    "eps": ({"eps": 8}, ValueError, "eps: 8 is larger than the whole range"),
    "norm": ({"norm": 1}, ValueError, "norm: expected"),
    "batch_size": ({"batch_size": 0}, ValueError, "batch_size: expected"),
    "autoattack": ({"attacks": ["natural"], "autoattack": ["apgd"]}, ValueError, "autoattack: expected one of"),
    "soft labels": ({"y": np.full((100, 10), 0.1)}, ValueError, "y: expected hard labels"),
    "no classifier": ({"classifier": {}}, ValueError, "classifier: expected at least one classifier"),
    "no range": ({"classifier": ten(clip_values=None), "attacks": "autoattack"}, ValueError, "AutoAttack needs bounded"),
    "no levels": ({"classifier": ten(clip_values=None), "attacks": "quantised-3"}, ValueError, "'quantised-3' needs bounded"),
    "ranges": ({"classifier": ten(clip_values=RANGES), "attacks": "autoattack"}, ValueError, "AutoAttack needs one range"),
    "classes": (source(make_classifier()), ValueError, r"sources\['s'\]: its nb_classes is 4, that of classifier is 10"),
    "shapes": (source(ten(nn.Linear(3, 10), shape=(3,))), ValueError, r"input_shape is \(3,\), .* \(1, 8, 8\)"),
    "clip_values": (source(ten(clip_values=(0, 255))), ValueError, r"clip_values is \[ *0. 255.\], .* \[0. 1.\]"),
    "source of NaN": (source(ten(Wrapped(conv_net(classes=10), after=lambda z: z / 0))), ValueError, r"sources\['s'\]: its logits are NaN"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "match"), BAD.values(), ids=BAD)
def test_bad_arguments(change, kind, match):
    with pytest.raises(kind, match=match):
        evaluate(**{"classifier": healthy(), "x": X, "y": Y, "eps": 0.1, "attacks": ["natural"], **change})


def test_clip_values_per_feature_fit_the_same_range_as_numbers():
    other = ten(natural().model, clip_values=(np.zeros((1, 8, 8)), np.ones((1, 8, 8))))
    tables = [evaluate(healthy(), X, Y, eps=0.1, attacks="transfer", sources={"s": s}) for s in (other, natural())]
    assert tables[0].accuracy[0] == tables[1].accuracy[0]


def test_zero_eps_is_the_natural_accuracy_of_every_row():
    names = ["natural", "noise", "fgsm", "pgd-3", "cw-3", "transfer", "autoattack", "worst"]
    table = evaluate(healthy(), X, Y, eps=0, attacks=names, sources={"n": natural()})
    assert table.accuracy.nunique() == 1


def test_neither_the_images_nor_the_model_nor_generators_are_changed():
    def in_place(x):
        return x.mul_(1.0).add_(0.25) if not x.is_leaf or not x.requires_grad else x + 0.25

    x = X.copy()
    classifier = wrapped(before=in_place)
    before = torch.get_rng_state()
    first = evaluate(classifier, x, Y, eps=0.1, attacks=["natural", "noise"])
    second = evaluate(wrapped(before=lambda x: x + 0.25), x, Y, eps=0.1, attacks=["natural", "noise"])
    assert first.accuracy.tolist() == second.accuracy.tolist()
    assert np.array_equal(x, X)
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in classifier.model.parameters())


def test_the_papers_suite_runs_as_it_is():
    table = evaluate(
        healthy(), X[:4], Y[:4], eps=0.031, eps_step=0.003, attacks=PAPER_SUITE, autoattack=FAST,
        sources={"natural": natural(), "robust": wrapped()},
    )  # fmt: skip
    expected = ["natural", "fgsm", "pgd-20", "pgd-1000", "cw-20", "cw-1000", "transfer (natural)", "transfer (robust)",
                "quantised-8", "autoattack (custom)", "worst"]  # fmt: skip
    assert table.attack.tolist() == expected
    assert table.steps.dropna().tolist() == [0, 1, 20, 1000, 20, 1000, 20, 20, 20]
    assert table.accuracy.iloc[-1] == table.accuracy.drop(index=8).min()
    assert (table.n == 4).all()


HALF = torch.full((4, 1, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("x_adv", "norm", "match"),
    [
        (HALF.index_fill(0, torch.tensor([2]), math.nan), math.inf, "has NaN or Inf in 1 samples, first in 2"),
        (HALF.index_fill(0, torch.tensor([2]), 1.1), math.inf, "leaves clip_values in 1 samples, first in 2"),
        (HALF.index_fill(0, torch.tensor([2]), 0.61), math.inf, "leaves the ball of eps=0.1 in 1 samples, first in 2"),
        (HALF + 0.06, 2.0, "leaves the ball of eps=0.1 in 4 samples"),
        (HALF[:3], 2.0, "has shape"),
    ],
)
def test_verify_refuses(x_adv, norm, match):
    with pytest.raises(ValueError, match=match):
        verify(HALF, x_adv, 0.1, norm, (torch.tensor(0.0), torch.tensor(1.0)), 1.0, "attack")


def test_verify_accepts_the_edge_of_the_ball_and_the_rounding_of_large_values():
    x = torch.rand(64, 30, generator=torch.Generator().manual_seed(0))
    bounds = (torch.tensor(0.0), torch.tensor(1.0))
    verify(x, (x + 0.1).clamp(0, 1), 0.1, math.inf, bounds, 1.0, "attack")
    verify(x * 255, x * 255 + 8, 8, math.inf, None, 255.0, "attack")
    x = 200 + 50 * x
    assert float(((x + 0.031).double() - x.double()).abs().max()) > 0.031 + 2e-6  # float32 keeps no closer
    verify(x, x + 0.031, 0.031, math.inf, None, 1.0, "attack")
    with pytest.raises(ValueError, match=r"leaves the ball of eps=0\.031"):
        verify(x, x + 0.032, 0.031, math.inf, None, 1.0, "attack")


def test_a_sample_that_is_wrong_naturally_never_counts_as_robust():
    """An attack that turns a misclassified image into one that is classified as labelled has broken nothing."""

    class Swap(PGDAttack):
        def generate(self, x, y=None, **kwargs):
            return X[1:2]

    predicted = healthy().predict(X[:2]).argmax(axis=1)
    assert predicted[0] != predicted[1]
    table = evaluate(healthy(), X[:1], predicted[1:2], eps=1.0, attacks=["natural", Swap(healthy())])
    assert table.accuracy.tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"attack 'Swap': x_adv leaves the ball of eps=0.05"):
        evaluate(healthy(), X[:1], predicted[1:2], eps=0.05, attacks=[Swap(healthy())])
