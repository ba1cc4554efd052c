"""What users pass is refused by one error that names the argument, what came and what was expected."""

import math

import numpy as np
import pytest

from art_lbgat import checks
from tests.conftest import make_classifier

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
