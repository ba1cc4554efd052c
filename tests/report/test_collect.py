"""A content computed from classifiers holds what the functions of the package give."""

import numpy as np
import pandas as pd
import pytest
import torch

from art_lbgat.data import balanced_order
from art_lbgat.evaluation import evaluate, robustness_curve, sanity_checks
from art_lbgat.report import evaluate_for_report, render_report
from tests.conftest import CLASSES, copied_state, make_classifier, make_data, mlp, states_equal

EPS = 0.1
QUICK = {"eps": EPS, "attacks": ("natural", "pgd-20", "fgsm"), "n_sanity": 8, "sanity_attacks": (), "resolution": 10,
         "curve_eps": (0, 0.1), "n_pictures": 2}  # fmt: skip


@pytest.fixture
def trained(data):
    classifier = make_classifier()
    classifier.fit(*data, batch_size=8, nb_epochs=3)
    return classifier


def test_it_holds_what_the_functions_give(trained, guide, data):
    x, y = data
    content = evaluate_for_report(trained, x, y, name="net", baselines={"base": guide}, guide=guide, seed=3, **QUICK)
    names, order = ["natural", "pgd-20", "fgsm", "worst"], balanced_order(y, 3)
    table = evaluate({"net": trained, "base": guide}, x, y, eps=EPS, attacks=names, seed=3)
    pd.testing.assert_frame_equal(content.attacks.drop(columns="seconds"), table.drop(columns="seconds"))
    curve = robustness_curve({"net": trained, "base": guide}, x[order], y[order], (0, 0.1), seed=3)
    pd.testing.assert_frame_equal(content.curve.drop(columns="seconds"), curve.drop(columns="seconds"))
    part = order[:8]
    checks = sanity_checks(trained, x[part], y[part], eps=EPS, source=guide, autoattack=(), seed=3)
    assert set(content.sanity.pop("model")) == {content.ours[0]}
    pd.testing.assert_frame_equal(content.sanity, checks)
    assert content.ours == ("net",)
    assert list(dict.fromkeys(content.slices.model)) == ["guide of net", "net", "base"]
    assert content.threat == "worst of pgd-20, fgsm, Linf, eps 0.1, n = 24"
    found = content.differences.set_index("kind")
    accuracy = table.set_index(["model", "attack"]).accuracy
    for kind, attack in (("natural", "natural"), ("robust", "worst")):
        assert found.value[kind] == pytest.approx(accuracy["net", attack] - accuracy["base", attack])
        assert found.low[kind] <= found.value[kind] <= found.high[kind]
    assert found[["model", "other", "seeds"]].drop_duplicates().to_numpy().tolist() == [["net", "base", 1]]


def test_classes_add_up_to_the_whole(trained, data):
    content = evaluate_for_report(trained, *data, **QUICK)
    classes, whole = content.per_class, content.attacks.set_index("attack").accuracy
    assert classes.n.sum() == len(data[0])
    for kind, attack in (("natural", "natural"), ("robust", "worst")):
        assert np.average(classes[kind], weights=classes.n) == pytest.approx(whole[attack])


def test_pictures_are_inside_the_ball_and_say_what_the_model_says(trained, data):
    found = evaluate_for_report(trained, *data, class_names="abcd", **QUICK).pictures
    assert found.x.shape == (2, 1, 8, 8)
    assert 0 < np.abs(found.x_adv - found.x).max() <= EPS + 1e-6
    assert list(found.predicted_adv) == list(trained.predict(found.x_adv).argmax(1))
    assert list(found.predicted) == list(trained.predict(found.x).argmax(1))


def test_settings_hashes_versions_and_commands_are_noted(trained, data):
    content = evaluate_for_report(trained, *data, config={"lr": 0.1}, commands=["make demo"], seed=5, **QUICK)
    noted = content.provenance
    assert noted["settings"]["seed"] == 5
    assert noted["settings"]["images of the curve"] == 24
    assert noted["configuration"] == {"lr": 0.1}
    assert noted["versions"]["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert noted["commands"] == ["make demo"]
    other = evaluate_for_report(make_classifier(seed=7), *data, **QUICK).provenance["SHA-256"]
    assert other["images and labels"] == noted["SHA-256"]["images and labels"]
    assert other["weights of ours"] != noted["SHA-256"]["weights of ours"]


def test_parts_are_left_out_on_request_and_pictures_where_inputs_are_no_images(trained, data):
    left_out = {"curve_eps": (), "n_sanity": 0, "n_pictures": 0, "resolution": 0}
    content = evaluate_for_report(trained, *data, **{**QUICK, **left_out})
    assert [content.curve, content.sanity, content.pictures, content.slices] == [None] * 4
    assert "Decision boundaries" not in render_report(content)
    x, y = make_data(shape=(12,))
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]})
    flat = evaluate_for_report(make_classifier(mlp(), shape=(12,)), x, y, name="net", history=history, **QUICK)
    assert flat.pictures is None
    assert list(flat.histories) == ["net"]
    assert "Decision boundaries" in render_report(flat)


def test_models_and_generators_are_left_as_found(trained, guide, data):
    trained.model.train()
    before, torch_state = copied_state(trained.model), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    first = evaluate_for_report(trained, *data, guide=guide, **QUICK)
    assert trained.model.training
    assert states_equal(before, trained.model.state_dict())
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()
    np.testing.assert_array_equal(first.pictures.x_adv, evaluate_for_report(trained, *data, **QUICK).pictures.x_adv)


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"baselines": {"ours": None}}, ValueError, "baselines: expected names other than 'ours'"),
    ({"n_pictures": 13}, ValueError, "n_pictures: expected at most 12, got 13"),
    ({"resolution": 1}, ValueError, "resolution: expected 0 or at least 2"),
    ({"n_curve": 0}, ValueError, "n_curve"),
    ({"n_sanity": -1}, ValueError, "n_sanity"),
    ({"eps": 0}, ValueError, "eps: expected a finite number > 0"),
    ({"seed": -1}, ValueError, "seed"),
    ({"attacks": ["natural"]}, ValueError, "attacks: expected at least one attack beside 'natural'"),
    ({"attacks": "pgd-20"}, TypeError, "attacks: expected a sequence of names"),
    ({"attacks": [3]}, TypeError, "attacks"),
    ({"class_names": ["a"] * (CLASSES - 1)}, ValueError, "class_names: expected 4 names, got 3"),
])  # fmt: skip
def test_bad_arguments_are_named_before_anything_is_run(trained, data, changes, error, words):
    with pytest.raises(error, match=words):
        evaluate_for_report(trained, *data, **{**QUICK, **changes})
