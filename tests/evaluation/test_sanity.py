"""No silent high number: every known way of fooling an evaluation is flagged, refused, or fails a check."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat.evaluation import sanity
from art_lbgat.evaluation.results import Row
from art_lbgat.evaluation.sanity import masking_report, sanity_checks
from art_lbgat.evaluation.suite import evaluate, robustness_curve
from tests.conftest import make_classifier
from tests.evaluation.nets import EPS, Wrapped, digits, healthy, natural, wrapped

X, Y = digits(60)
ATTACKS = ["natural", "pgd-20"]
OUTPUTS = ["finite logits", "logits, not probabilities", "deterministic", "independent of the batch",
           "gradients are alive"]  # fmt: skip
CHECKS = [
    *OUTPUTS,
    "more steps do not help the defender",
    "noise does not beat PGD",
    "white-box beats transfer",
    "unbounded attack reaches 0",
    "restarts: not much stronger than PGD",
    "margin loss: not much stronger than PGD",
    "apgd-ce: not much stronger than PGD",
    "square: not stronger than gradients",
]


def failed(table):
    return set(table.check[~table.passed])


def test_a_healthy_model_passes_every_check():
    table = sanity_checks(healthy(), X, Y, eps=EPS, source=natural())
    assert table.check.tolist() == CHECKS
    assert table.columns.tolist() == ["check", "passed", "observed", "expected", "detail"]
    assert table.passed.dtype == bool
    assert failed(table) == set()
    assert masking_report(table) == "All 13 checks passed: no sign of gradient masking."
    rows = evaluate(healthy(), X, Y, eps=EPS, attacks=ATTACKS)
    assert (rows["flags"] == "").all()
    assert rows.accuracy[1] > 0.3  # robust enough for the checks to mean something


def test_a_healthy_model_passes_in_l2_and_without_a_source_that_is_said():
    table = sanity_checks(healthy(), X, Y, eps=0.7, norm=2, autoattack=["apgd-ce"])
    assert failed(table) == set()
    assert table.check.tolist() == [name for name in CHECKS if not name.startswith(("white-box", "square"))]
    assert "Transfer was not checked: no source was given." in masking_report(table)


DEAD = "gradient masking: the gradient is 0 at 100% of the samples"
MASKED = {"gradients are alive", "noise does not beat PGD", "white-box beats transfer", "unbounded attack reaches 0"}
BATCH_NORM = nn.BatchNorm1d(10, affine=False, track_running_stats=False)
BROKEN = {
    "quantised logits": ({"after": lambda z: torch.round(z * 10) / 10}, DEAD, {*MASKED, CHECKS[-1]}),
    "saturated logits": (
        {"after": lambda z: z * 1e4},
        "gradient masking: the gradient is 0 at",
        {*MASKED, "margin loss: not much stronger than PGD"},
    ),
    "no graph": ({"after": lambda z: z.detach()}, "gradient masking: the gradient is 0 at 100%", None),
    "softmax": ({"after": lambda z: z.softmax(dim=1)}, "outputs are probabilities, not logits", {OUTPUTS[1]}),
    "randomised": ({"before": lambda x: x + 0.1 * torch.randn_like(x)}, "randomised: logits of two passes", {OUTPUTS[2]}),
    "numpy's generator": ({"after": lambda z: z + torch.from_numpy(np.random.randn(*z.shape)).float()}, "randomised: ", {OUTPUTS[2]}),
    "batch statistics": ({"after": BATCH_NORM}, "logits depend on the rest of the batch", {OUTPUTS[3]}),
    "NaN gradients": (
        {"after": lambda z: z + torch.sqrt((z - z.detach()).abs())},
        "gradient masking: the gradient is NaN or Inf at 100.00% of the samples",
        {"gradients are alive", "noise does not beat PGD"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text", "checks"), BROKEN.values(), ids=BROKEN)
def test_what_makes_a_number_meaningless_is_flagged_in_every_row_and_fails_checks(change, text, checks):
    classifier = wrapped(**change)
    names = ["natural", "noise", "worst"] if checks is None else [*ATTACKS, "worst"]
    table = evaluate({"broken": classifier, "healthy": healthy()}, X, Y, eps=EPS, attacks=names)
    assert table["flags"][:3].str.contains(text, regex=False).all()
    assert (table["flags"][3:] == "").all()
    if checks is None:
        with pytest.raises(ValueError, match="classifier: its logits have no graph to its inputs"):
            evaluate(classifier, X, Y, eps=EPS, attacks=["pgd-2"])
        assert "gradients are alive" in failed(sanity_checks(classifier, X, Y, eps=EPS))
        return
    queries = ("square",) if CHECKS[-1] in checks else ()
    found = sanity_checks(classifier, X, Y, eps=EPS, source=natural(), autoattack=queries)
    assert checks <= failed(found)
    report = masking_report(found)
    assert report.startswith(f"Gradient masking, or a broken evaluation: {len(failed(found))} of ")
    assert report.count("\n- ") == len(failed(found))
    assert all(f"- {check}: " in report for check in checks)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(value):
    def one_sample(z):
        z = z.clone()
        z[z.argmax(1) == 3, 0] = value
        return z

    classifier = wrapped(after=one_sample)
    with pytest.raises(ValueError, match=r"classifier: its logits are NaN or Inf for [1-9]\d* of 60 natural samples"):
        evaluate(classifier, X, Y, eps=EPS, attacks=["natural"])
    with pytest.raises(ValueError, match="NaN or Inf"):
        robustness_curve(classifier, X, Y, [0.1])
    table = sanity_checks(classifier, X, Y, eps=EPS)
    assert table.check.tolist() == ["finite logits"]
    assert not table.passed[0]
    assert "1 of 1 checks failed" in masking_report(table)


def test_adversarial_logits_that_are_not_finite_count_as_wrong_and_are_flagged():
    """NaN in every class makes argmax 0, which would be right for the class 0."""

    def wrong_outside(x):
        size = x.flatten(1).sum(1, keepdim=True)
        return torch.where(size > 0, torch.nan, torch.arange(10, 0, -1.0) - size)

    x = np.zeros((4, 1, 8, 8), np.float32)
    classifier = make_classifier(Wrapped(nn.Identity(), after=wrong_outside), classes=10, optimizer=None)
    table = evaluate(classifier, x, np.zeros(4, int), eps=0.1, attacks=["natural", "noise"])
    assert table.accuracy.tolist() == [1, 0]
    assert "logits are NaN or Inf for 4 adversarial examples, counted as wrong" in table["flags"][1]


ACCURACY = {"pgd-100": 0.5, "pgd-10": 0.6, "noise": 0.9, "transfer": 0.7, "pgd-50": 0.0, "pgd-20": 0.45, "cw-20": 0.45,
            "apgd-ce": 0.45, "square": 0.6}  # fmt: skip
CAN_FAIL = {
    "more steps do not help the defender": {"pgd-10": 0.4},
    "noise does not beat PGD": {"noise": 0.4},
    "white-box beats transfer": {"transfer": 0.4},
    "unbounded attack reaches 0": {"pgd-50": 0.2},
    "restarts: not much stronger than PGD": {"pgd-20": 0.3},
    "margin loss: not much stronger than PGD": {"cw-20": 0.3},
    "apgd-ce: not much stronger than PGD": {"apgd-ce": 0.3},
    "square: not stronger than gradients": {"square": 0.4},
}


@pytest.fixture
def fake_row(monkeypatch):
    """Accuracies under the attacks, in place of the attacks."""

    def fake(accuracies):
        def run_row(subject, plan, threat, sources):
            name = plan.attack[0] if plan.kind == "autoattack" else plan.name.removesuffix(" (source)")
            assert threat.eps == (1.0 if name == "pgd-50" else EPS)
            assert threat.restarts == (5 if name == "pgd-20" else 1)
            mask = torch.arange(len(subject.x) * 100) % 100 < 100 * accuracies[name]
            return Row(name, "inf", threat.eps, 0, 0, mask, 0.0)

        monkeypatch.setattr(sanity, "run_row", run_row)

    return fake


@pytest.mark.parametrize(("check", "change"), [(None, {}), *CAN_FAIL.items()], ids=["none", *CAN_FAIL])
def test_each_check_of_the_attacks_fails_alone(check, change, fake_row):
    fake_row({**ACCURACY, **change})
    assert failed(sanity_checks(healthy(), X, Y, eps=EPS, source=natural())) == ({check} if check else set())


def test_a_gap_between_losses_is_no_masking_and_one_sample_fails_nothing(fake_row):
    fake_row({**ACCURACY, "cw-20": 0.42, "square": 0.41})
    assert failed(sanity_checks(healthy(), X, Y, eps=EPS)) == set()  # 9 points below PGD, 1 below the margin loss
    assert failed(sanity_checks(healthy(), X, Y, eps=EPS, tolerance=0, stronger=0.02)) != set()
    fake_row({**ACCURACY, "cw-20": 0.42, "square": 0.38})
    assert failed(sanity_checks(healthy(), X[:20], Y[:20], eps=EPS)) == set()  # 4 points are less than one of 20


def test_without_clip_values_the_unbounded_attack_takes_the_range_of_the_data():
    classifier = make_classifier(healthy().model, classes=10, clip_values=None)
    table = sanity_checks(classifier, X, Y, eps=EPS, autoattack=())
    row = table[table.check == "unbounded attack reaches 0"].iloc[0]
    assert row.detail == "PGD-50 at eps=1"
    assert row.passed


RADII = [0.0, 0.05, 0.1, 0.2, 0.4, 1.0]


def test_the_curve_falls_from_natural_accuracy_to_nothing():
    table = robustness_curve({"a": healthy(), "b": natural()}, X, Y, RADII[::-1], attack="pgd-10")
    for name, classifier in (("a", healthy()), ("b", natural())):
        curve = table[table.model == name]
        assert curve.eps.tolist() == RADII
        assert curve.accuracy.is_monotonic_decreasing
        assert curve.accuracy.iloc[0] == (classifier.predict(X).argmax(1) == Y).mean()
        assert curve.accuracy.iloc[-1] == 0
    assert (table["flags"] == "").all()
    single = robustness_curve(healthy(), X, Y, [0.1], attack="pgd-10")
    same = evaluate(healthy(), X, Y, eps=0.1, attacks="pgd-10")
    assert single.drop(columns="seconds").equals(same.drop(columns="seconds"))
    assert table[table.model == "a"].accuracy.iloc[2] <= same.accuracy[0]


def test_a_sample_that_was_broken_in_a_smaller_ball_stays_broken():
    """One step of eps jumps over what is wrong in a smaller ball, so the accuracy of FGSM alone rises again."""

    def bump(x):
        """Logits that are wrong only where the images are brighter by 0.04 to 0.06."""
        off = (x.mean(dim=(1, 2, 3)) - 0.55).abs() - 0.01
        return off[:, None] * torch.eye(10)[0]  # class 0 where it is positive, else a tie of the others

    x, y = np.full((4, 1, 8, 8), 0.5, np.float32), np.zeros(4, int)
    classifier = make_classifier(Wrapped(nn.Identity(), after=bump), classes=10, optimizer=None)
    raw = [evaluate(classifier, x, y, eps=e, attacks="fgsm").accuracy[0] for e in (0.02, 0.05, 0.2)]
    assert raw == [1, 0, 1]
    assert robustness_curve(classifier, x, y, [0.02, 0.05, 0.2], attack="fgsm").accuracy.tolist() == [1, 0, 0]


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_a_curve_that_does_not_fall_is_flagged(norm):
    half = 0.5 if norm == math.inf else 4.0
    saturated = wrapped(after=lambda z: z * 1e4)
    table = robustness_curve(saturated, X, Y, np.array([half / 5, half, 2 * half]), norm=norm)
    share = np.bincount(Y).max() / 60
    assert "where at most" not in table["flags"][0]
    assert table.accuracy[1] > share
    assert f"at eps={half:g}, where at most {share:.0%} can be" in table["flags"][1]
    assert f"at eps={2 * half:g}, where at most 5% can be" in table["flags"][2]
    assert table.accuracy.is_monotonic_decreasing


def test_the_curve_of_noise_and_of_autoattack():
    noise = robustness_curve(natural(), X, Y, [0.1, 0.9], attack="noise")
    assert (noise["flags"] == "").all()  # noise is not expected to break everything
    found = robustness_curve(healthy(), X, Y, [0.05, 0.3], attack="autoattack", autoattack=["apgd-ce"])
    assert found.accuracy[1] < found.accuracy[0]


@pytest.mark.parametrize(
    ("function", "change", "kind", "match"),
    [
        (robustness_curve, {"eps": []}, ValueError, "eps: expected at least one radius"),
        (robustness_curve, {"eps": [0.1, 0.1]}, ValueError, "eps: expected at least one radius, all different"),
        (robustness_curve, {"eps": 0.1}, TypeError, "eps: expected a sequence of radii"),
        (robustness_curve, {"eps": "0.1"}, TypeError, "eps: expected an array of numbers"),
        (robustness_curve, {"attack": "natural"}, ValueError, "attack: expected 'pgd-K'.*got 'natural'"),
        (robustness_curve, {"attack": ["pgd-2"]}, TypeError, "attack: expected the name of an attack, got list"),
        (sanity_checks, {"eps": 0}, ValueError, "eps: expected a finite number > 0"),
        (sanity_checks, {"eps": 2}, ValueError, "eps: 2 is larger"),
        (sanity_checks, {"tolerance": -1}, ValueError, "tolerance: "),
        (sanity_checks, {"stronger": -1}, ValueError, "stronger: "),
        (sanity_checks, {"autoattack": 3}, TypeError, "autoattack: expected names of AutoAttack's attacks"),
        (sanity_checks, {"source": make_classifier()}, ValueError, r"sources\['source'\]: its nb_classes is 4"),
    ],
)
def test_bad_arguments(function, change, kind, match):
    eps = EPS if function is sanity_checks else [0.1]
    with pytest.raises(kind, match=match):
        function(healthy(), X, Y, **{"eps": eps, **change})
