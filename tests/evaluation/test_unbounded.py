"""Without one range of inputs AutoAttack is left out where nobody asked for it, and refused where somebody did."""

import logging

import numpy as np
import pytest

from art_lbgat import MadryTrainer
from art_lbgat.evaluation import evaluate, robustness_curve, sanity_checks
from art_lbgat.report import evaluate_for_report, write_report
from tests.conftest import make_classifier, make_data

X, Y = make_data(24)
CLIPS = {"none": None, "of features": (np.zeros((1, 8, 8)), np.linspace(1, 2, 64).reshape(1, 8, 8))}
MANY = pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)


def trained(clip):
    classifier = make_classifier(clip_values=clip, lr=0.02)
    MadryTrainer(classifier, seed=0, verbose=False).fit(X, Y, nb_epochs=3, batch_size=8)
    return classifier


def said(caplog):
    return any("AutoAttack is left out" in record.getMessage() for record in caplog.records)


@MANY
def test_defaults_run_without_autoattack_and_say_so(clip, caplog, tmp_path):
    classifier = trained(clip)
    with caplog.at_level(logging.WARNING):
        assert evaluate(classifier, X, Y, eps=0.1).attack.tolist() == ["natural", "pgd-20"]
    assert said(caplog)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        checks = sanity_checks(classifier, X, Y, eps=0.1)
    assert said(caplog)
    expected = sanity_checks(classifier, X, Y, eps=0.1, autoattack=())
    assert checks.equals(expected)
    content = evaluate_for_report(classifier, X, Y, eps=0.1, n_sanity=10, resolution=4, n_curve=10)
    write_report(tmp_path / "page.html", content)
    assert list(content.attacks.attack) == ["natural", "pgd-20"]
    assert len(evaluate({"a": classifier, "b": classifier}, X, Y, eps=0.1)) == 4
    assert len(robustness_curve(classifier, X, Y, [0.1, 0.5])) == 2


@MANY
def test_what_is_asked_for_is_refused(clip):
    classifier = make_classifier(clip_values=clip)
    calls = [
        lambda: evaluate(classifier, X, Y, eps=0.1, attacks=["autoattack"]),
        lambda: sanity_checks(classifier, X, Y, eps=0.1, autoattack=["square"]),
        lambda: evaluate_for_report(classifier, X, Y, eps=0.1, attacks=["natural", "autoattack"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"classifier.*: AutoAttack needs (bounded inputs|one range)"):
            call()


def test_with_a_range_the_defaults_are_as_ever(few_queries, caplog):
    table = evaluate(trained((0.0, 1.0)), X, Y, eps=0.1)
    assert table.attack.tolist() == ["natural", "pgd-20", "autoattack (custom)"]  # few classes
    assert not said(caplog)
