"""Agreement, margins and calibration: what comes from logits on given images."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy

from art_lbgat.diagnostics import agreement, calibration, margins, reliability
from tests.conftest import make_classifier, make_data
from tests.diagnostics.cases import fixed, indices

LOGITS = arrays(np.float64, (6, 3), elements=st.integers(-50, 50).map(lambda v: v / 10))


def test_agreement_by_hand():
    rows = [[2, 0, 0], [0, 3, 0], [0, 0, 1], [1, 0, 0]], [[1, 0, 0], [0, 0, 2], [0, 1, 0], [4, 0, 0]]
    row = agreement(fixed(rows[0]), fixed(rows[1]), indices(4), [0, 1, 1, 2]).iloc[0]
    assert (row["model"], row["guide_images"], row["model_images"], row["n"]) == ("model", "natural", "natural", 4)
    assert row["agreement"] == 0.5
    assert 0 < row["low"] < 0.5 < row["high"] < 1
    assert row["mse"] == pytest.approx((1 + 9 + 4 + 1 + 1 + 9) / 12)
    assert row["kl"] == pytest.approx(np.mean([entropy(softmax(g), softmax(m)) for g, m in zip(*rows, strict=True)]))
    assert row["cosine"] == pytest.approx((1 - 0.5 - 0.5 + 1) / 4)  # corners of a triangle are at cosine -1/2
    assert list(row[["both_right", "guide_only", "model_only", "both_wrong"]]) == [0.25, 0.25, 0.25, 0.25]


def test_adversarial_images_may_be_of_each_model():
    models = {"a": fixed([[1, 0], [0, 1]]), "b": fixed([[1, 0], [0, 1]])}
    x_adv = {"a": indices(2), "b": indices(2)[::-1]}
    table = agreement(models["a"], models, indices(2), [0, 1], x_adv)
    found = table.set_index(["model", "guide_images", "model_images"])["agreement"]
    assert (found["a", "natural", "adversarial"], found["b", "natural", "adversarial"]) == (1, 0)
    table = margins(models, indices(2), [0, 1], x_adv).set_index(["model", "images"])["margin"]
    assert list(table["b", "adversarial"]) == [-1, -1]


def compared(guide, model, y):
    return agreement(fixed(guide), fixed(model), indices(len(y)), y).iloc[0]


@given(LOGITS, arrays(np.int64, (6,), elements=st.integers(0, 2)))
@settings(max_examples=20, deadline=None)
def test_identical_logits_agree_in_everything(logits, y):
    found = compared(logits, logits, y)
    assert (found["agreement"], found["mse"]) == (1.0, 0.0)
    assert found["kl"] == pytest.approx(0.0, abs=1e-12)
    assert found["guide_only"] == found["model_only"] == 0
    assert found["both_right"] + found["both_wrong"] == pytest.approx(1)
    shifted = compared(logits, logits + 3.0, y)  # softmax sees no shift
    assert shifted["mse"] == pytest.approx(9, rel=1e-5)
    assert shifted["kl"] == pytest.approx(0.0, abs=1e-6)
    assert shifted["cosine"] == pytest.approx(found["cosine"], abs=1e-5)


@given(LOGITS, LOGITS)
@settings(max_examples=20, deadline=None)
def test_agreement_is_symmetric_where_it_should_be(first, second):
    y = np.zeros(6, np.int64)
    one, other = compared(first, second, y), compared(second, first, y)
    for column in ("agreement", "mse", "cosine", "both_right", "both_wrong"):
        assert one[column] == pytest.approx(other[column])
    assert one["guide_only"] == other["model_only"]
    assert one["kl"] >= 0


def test_margins_by_hand():
    rows = [[3, 1, 2], [0, 0, 5], [1, 1, 0]]
    table = margins(fixed(rows), indices(3), [0, 1, 1])
    assert list(table["margin"]) == [1, -5, 0]
    assert list(table["predicted"]) == [0, 2, 0]
    assert list(table["label"]) == [0, 1, 1]
    assert list(table["sample"]) == [0, 1, 2]
    one_hot = margins(fixed(rows), indices(3), np.eye(3)[[0, 1, 1]])
    pd.testing.assert_frame_equal(table, one_hot)


@given(LOGITS)
@settings(max_examples=20, deadline=None)
def test_margin_of_the_predicted_class_is_not_negative_and_no_other_is_positive(logits):
    own = margins(fixed(logits), indices(6), np.zeros(6, np.int64))["predicted"].to_numpy()
    for step in range(3):
        found = margins(fixed(logits), indices(6), (own + step) % 3)["margin"]
        assert (found >= 0).all() if step == 0 else (found <= 0).all()


def test_ece_by_hand():
    # Confidences .9 (right), .9 (wrong), .9 (wrong), .5 (right): bins (.8, 1], (.4, .6] of five.
    rows = [[math.log(p), math.log(1 - p)] for p in (0.9, 0.9, 0.9, 0.5)]
    y = [0, 1, 1, 0]
    row = calibration(fixed(rows), indices(4), y, bins=5).iloc[0]
    assert row["ece"] == pytest.approx(3 / 4 * abs(1 / 3 - 0.9) + 1 / 4 * abs(1 - 0.5), abs=1e-6)
    assert row["mce"] == pytest.approx(0.9 - 1 / 3, abs=1e-6)
    assert row["accuracy"] == pytest.approx(0.5)
    assert row["confidence"] == pytest.approx(0.8, abs=1e-6)
    assert row["overconfidence"] == pytest.approx(0.3, abs=1e-6)
    assert row["n"] == 4


@given(LOGITS, st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_every_confidence_is_in_its_bin(logits, bins):
    table = reliability(fixed(logits), indices(6), np.zeros(6, np.int64), bins=bins)
    assert table["n"].sum() == 6
    used = table[table["n"] > 0]
    assert ((used["low"] - 1e-9 <= used["confidence"]) & (used["confidence"] <= used["high"] + 1e-9)).all()
    assert table["confidence"].isna().sum() == (table["n"] == 0).sum()


def test_bins_are_open_below_and_closed_above():
    table = reliability(fixed([[0, 0], [0.001, 0], [50, 0]]), indices(3), [0, 0, 1], bins=2)
    assert list(table["n"]) == [1, 2]
    assert list(table["accuracy"]) == [1.0, 0.5]
    assert list(table["low"]) == [0, 0.5]
    assert list(table["high"]) == [0.5, 1]


@pytest.mark.parametrize("measure", [agreement, margins, calibration, reliability])
def test_batch_size_changes_nothing(measure, classifier, guide):
    x, y = make_data()
    models = (guide, classifier) if measure is agreement else (classifier,)
    x_adv = np.clip(x + 0.05, 0, 1)
    whole, small = (measure(*models, x, y, x_adv, batch_size=b) for b in (250, 5))
    pd.testing.assert_frame_equal(whole, small, rtol=1e-4, atol=1e-5)


X, Y = make_data()
CLASSIFIER, VECTOR = make_classifier(), make_classifier(torch.nn.Linear(4, 4), shape=(4,))
NARROW = make_classifier(clip_values=(0.0, 0.5))
BAD = [
    (margins, {"models": {}}, ValueError, "models: expected a mapping to at least 1 classifiers, got 0"),
    (margins, {"models": {"a": 3}}, TypeError, r"models\['a'\]: expected an ART PyTorchClassifier, got int"),
    (margins, {"models": {"a": CLASSIFIER, "b": VECTOR}}, ValueError, r"models\['b'\]: expected input_shape=\(1, 8, 8\)"),
    (margins, {"x": X + 1}, ValueError, "x: values lie in"),
    (margins, {"x_adv": X[:3]}, ValueError, "x_adv: expected 24 samples, one per sample of x, got 3"),
    (margins, {"x_adv": {"a": X}}, ValueError, r"x_adv: expected a key for each of the models \['model'\], got \['a'\]"),
    (margins, {"y": np.full((24, 4), 0.25)}, ValueError, "y: expected hard labels"),
    (margins, {"y": Y[:3]}, ValueError, "y: expected 24 labels"),
    (margins, {"models": fixed([[0, 1], [np.nan, 1]]), "x": indices(2), "y": [0, 1]}, ValueError,
     "models: its logits are NaN or Inf for 1 of 2 images, first in image 1"),
    (calibration, {"bins": 1.5}, TypeError, "bins: expected a whole number"),
    (agreement, {"guide": None}, TypeError, "guide: expected an ART PyTorchClassifier"),
    (agreement, {"guide": make_classifier(classes=3)}, ValueError, "models: expected nb_classes=3 as that of guide, got 4"),
    (agreement, {"guide": NARROW}, ValueError, "x: values lie in"),
    (agreement, {"guide": NARROW, "x": X / 2, "x_adv": X}, ValueError, "x_adv: values lie in"),
]  # fmt: skip


@pytest.mark.parametrize(("measure", "change", "error", "message"), BAD)
def test_bad_input_is_named(measure, change, error, message):
    with pytest.raises(error, match=message):
        measure(**{"models": CLASSIFIER, "x": X, "y": Y, **change})
