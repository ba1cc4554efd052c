"""What users pass is refused by one error that names the argument, what came and what was expected."""

import math

import numpy as np
import pytest
import torch

from art_lbgat import checks
from art_lbgat.attacks import PGDAttack
from art_lbgat.evaluation import evaluate
from tests.conftest import make_classifier, make_data, states_equal
from tests.trainers.cases import TRAINERS

X = np.full((3, 1, 8, 8), 0.5, np.float32)
CLASSIFIER = make_classifier()
REFUSED = {
    "ragged": (lambda: checks.as_array([[1], [1, 2]], "x"), "x: expected an array of numbers, got list"),
    "text": (lambda: checks.as_array(["a"], "x"), "x: expected an array of numbers, got list of dtype <U1"),
    "no inputs": (lambda: checks.check_inputs(X[:0], CLASSIFIER), r"x: expected at least one sample of shape \(1, 8, 8\)"),
    "shape": (lambda: checks.check_inputs(X[:, :, :4], CLASSIFIER), r"x: expected shape \(N, 1, 8, 8\), got \(3, 1, 4, 8\)"),
    "NaN": (lambda: checks.check_inputs(X * [[[[1]]], [[[1]]], [[[math.nan]]]], CLASSIFIER), "NaN or Inf in sample 2"),
    "range": (lambda: checks.check_inputs(X * 3, CLASSIFIER), r"values lie in \[1.5, 1.5\], outside clip_values \[0, 1\]"),
    "labels": (lambda: checks.check_labels(np.zeros((3, 5)), 4), r"y: expected indices \(N,\) or rows \(N, 4\)"),
    "length": (lambda: checks.check_labels([0, 1], 4, length=3), "y: expected 3 labels, one per sample of x, got 2"),
    "label NaN": (lambda: checks.check_labels([math.nan], 4), "y: expected finite values"),
    "half a label": (lambda: checks.check_labels([0.5], 4), "y: expected whole class indices, got 0.5"),
    "class": (lambda: checks.check_labels([0, 4], 4), r"y: expected class indices in \[0, 3\], got values in \[0, 4\]"),
    "rows": (lambda: checks.check_labels([[0.5, 0.6]], 2), r"y: expected rows that are one-hot .* row sums in \[1.1, 1.1\]"),
    "bool": (lambda: checks.check_count(True, "n"), "n: expected a whole number >= 1, got True"),
    "number": (lambda: checks.check_number("1", "a"), "a: expected a finite number >= 0, got '1'"),
    "infinite": (lambda: checks.check_number(math.inf, "a"), "a: expected a finite number >= 0, got inf"),
    "choice": (lambda: checks.check_choice("pdg", "a", ["pgd"]), r"a: expected one of \['pgd'\], got 'pdg'; did you mean 'pgd'\?"),
    "seed": (lambda: checks.check_seed(2**32, maximum=9), "seed: expected a whole number from 0 to 9, got 4294967296"),
    "share": (lambda: checks.check_share(1, "a"), r"a: expected a number in \(0, 1\), got 1"),
    "flag": (lambda: checks.check_flag(1, "a"), "a: expected a bool, got 1"),
    "no text": (lambda: checks.check_text(1, "a"), "a: expected a text, got 1"),
    "kind": (lambda: checks.check_kind(1, "a", OSError), "a: expected an OSError, got int"),
    "bytes": (lambda: checks.check_path(b"a", "p"), "p: expected a path, got b'a'"),
    "no path": (lambda: checks.check_path("", "p"), "p: expected a path, got ''"),
    "indices": (lambda: checks.check_indices([[0]]), r"y: expected class indices \(N,\), at least one"),
    "half an index": (lambda: checks.check_indices([0.5]), "y: expected whole class indices"),
    "norm": (lambda: checks.check_norm(1), "norm: expected np.inf, 'inf' or 2, got 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_values_are_refused_by_name(case):
    call, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_right_values_come_back_as_what_they_mean():
    assert checks.check_inputs(X, CLASSIFIER) is X
    assert checks.check_inputs(X * np.nan, CLASSIFIER, finite=False).shape == X.shape
    for y in ([1, 0], [[1], [0]], [[0, 1, 0, 0], [1, 0, 0, 0]], np.array([1.0, 0.0])):
        labels = checks.check_labels(y, 4)
        assert (labels.tolist(), labels.dtype) == ([1, 0], np.int64)
    assert checks.check_labels([[0.5, 0.5]], 2).dtype == np.float32
    assert [checks.check_norm(norm) for norm in ("inf", np.inf, 2)] == [math.inf, math.inf, 2.0]
    assert checks.check_choice(None, "a", [None, 1]) is None


PIXELS = np.linspace(1.0, 2.0, 64).reshape(1, 8, 8)
# data, clip_values, and whether they are outside by more than rounding
ROUNDED = {
    "float32 above 1": (np.float32(1 + 1e-6), (0, 1), False),
    "float32 below 0": (np.float32(-1e-6), (0, 1), False),
    "float64 at a bound that float32 rounds up": (np.float64(0.1), (0.1, 7.9), False),
    "float64 at a bound that float32 rounds down": (np.float64(7.9), (0.1, 7.9), False),
    "float16 at a bound that it rounds down": (np.float16(0.1), (0.1, 0.9), False),
    "pixels": (np.float32(255.00002), (0, 255), False),
    "a bound for each pixel": (PIXELS * (1 + 1e-6), (np.zeros((1, 8, 8)), PIXELS), False),
    "whole numbers": (np.int64(255), (0, 255), False),
    "above": (np.float32(1.0001), (0, 1), True),
    "below": (np.float64(-1e-4), (0, 1), True),
    "above one pixel's bound": (PIXELS * 1.001, (np.zeros((1, 8, 8)), PIXELS), True),
    "a whole number": (np.int64(256), (0, 255), True),
}


@pytest.mark.parametrize(("value", "clip_values", "refused"), ROUNDED.values(), ids=ROUNDED)
@pytest.mark.parametrize("chunk", [1 << 22, 64])
def test_what_rounding_puts_outside_is_clipped_and_more_is_refused(value, clip_values, refused, chunk, monkeypatch):
    monkeypatch.setattr(checks, "_CHUNK", chunk)
    classifier = make_classifier(clip_values=clip_values)
    x = np.full((3, 1, 8, 8), np.mean(clip_values), np.asarray(value).dtype)
    x[1] = value
    x.setflags(write=False)
    if refused:
        with pytest.raises(ValueError, match="outside clip_values"):
            checks.check_inputs(x, classifier)
        return
    low, high = classifier.clip_values
    found = checks.check_inputs(x, classifier).astype(np.float32)
    assert np.array_equal(found, np.clip(x.astype(np.float32), low, high))


def test_nan_and_inf_are_never_clipped():
    x = X.copy()
    x[0, 0, 0, :3] = np.inf, np.nan, 1 + 1e-6
    found = checks.check_inputs(x, CLASSIFIER, finite=False)[0, 0, 0, :3]
    assert np.array_equal(found, [np.inf, np.nan, 1], equal_nan=True)
    with pytest.raises(ValueError, match="expected finite values, got NaN or Inf in sample 1"):
        checks.check_inputs(X * np.array([1, 1e300, 1]).reshape(3, 1, 1, 1), CLASSIFIER)  # finite in float64 only


def test_data_outside_by_rounding_give_the_bits_of_clipped_data_everywhere():
    x, y = make_data(16)
    x = np.clip(x * 3, 0, 1)
    above = np.where(x == 1, np.float32(1 + 1e-6), x)
    found = []
    for each in (above, x):
        classifier, moved = make_classifier(), float(each.max()) - 1
        TRAINERS["madry"](classifier).fit(each, y, validation_data=(each, y), nb_epochs=1, batch_size=8)
        TRAINERS["madry"](classifier).fit(x, y, augmentation=lambda x, _, by=moved: x + by * (x == 1), nb_epochs=1)
        attack, generator = PGDAttack(classifier, eps=0.1), torch.Generator().manual_seed(0)
        x_adv = attack.perturb(torch.from_numpy(each), torch.from_numpy(y), generator)
        table = evaluate(classifier, each, y, eps=0.1, attacks=["natural", "pgd-2"])
        found.append((classifier.model.state_dict(), x_adv, table.accuracy.tolist()))
    assert states_equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]
