"""One classifier and the samples it is judged on; its natural predictions are computed once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.attacks.projections import Bounds
from art_lbgat.checks import as_array, check_count, check_inputs, check_labels, check_seed
from art_lbgat.classifier import JudgedView, TensorView
from art_lbgat.evaluation.health import Health, classified_as, measure, predict

OnlyOne = None  # the key of a classifier that was not given by name


@dataclass(frozen=True)
class Subject:
    """A classifier under test.

    :param view: The classifier.
    :param x: Raw natural inputs, float32, contiguous, on the CPU, ``(n, *input_shape)``.
    :param y: Index labels, ``(n,)``.
    :param right: Which samples are classified as labelled naturally, bool ``(n,)``.
    :param health: What was measured on the natural inputs.
    :param seconds: Wall time of the natural predictions.
    :param batch_size: Samples per pass.
    :param seed: Seed of every random draw.
    """

    view: TensorView
    x: Tensor
    y: Tensor
    right: Tensor
    health: Health
    seconds: float
    batch_size: int
    seed: int

    def bounds(self) -> Bounds:
        """``clip_values`` as two tensors on the CPU, or None."""
        bounds = self.view.bounds()
        return None if bounds is None else (bounds[0].cpu(), bounds[1].cpu())

    def judge(self, x: Tensor, rows: Tensor) -> tuple[Tensor, int]:
        """Which samples are classified as labelled when they are ``x``.

        :param x: Inputs, ``(n, ...)``.
        :param rows: Which of them to look at, bool ``(n,)``; the others count as wrong.
        :return: Bool ``(n,)``, and how many of the logits hold NaN or Inf (these count as wrong).
        """
        logits = predict(self.view, x[rows], self.batch_size, self.seed)
        right = torch.zeros_like(rows)
        right[rows] = classified_as(logits, self.y[rows])
        return right, int((~torch.isfinite(logits).all(dim=1)).sum())


def make_subjects(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier],
    x: Any,
    y: Any,
    batch_size: int,
    seed: int,
    refuse: bool = True,
) -> dict[str | None, Subject]:
    """The classifiers with their natural predictions, all of them before the first attack starts.

    :param classifier: One classifier (its key is None) or a mapping from names to classifiers.
    :param x: Raw natural inputs, ``(n, *input_shape)``; copied once.
    :param y: Labels, indices or one-hot.
    :param batch_size: Samples per pass.
    :param seed: Seed of every random draw.
    :param refuse: Whether logits with NaN or Inf are an error.
    :raises ValueError: No classifier; bad ``x``, ``y``, ``batch_size`` or ``seed``; NaN or Inf in natural logits.
    """
    check_count(batch_size, "batch_size")
    check_seed(seed)
    named: Mapping[Any, PyTorchClassifier] = classifier if isinstance(classifier, Mapping) else {OnlyOne: classifier}
    if not named:
        raise ValueError("classifier: expected at least one classifier, got an empty mapping.")
    views = {name: JudgedView(each, _title("classifier", name)) for name, each in named.items()}
    array = as_array(x, "x")
    for view in views.values():
        check_inputs(array, view.classifier)
    with torch.inference_mode(False):
        # In C order, so that the memory format of the caller's array changes no bit of a convolution.
        samples = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return {name: make_subject(view, samples, y, batch_size, seed, refuse) for name, view in views.items()}


def make_subject(view: TensorView, x: Tensor, y: Any, batch_size: int, seed: int, refuse: bool = True) -> Subject:
    """One subject; arguments and errors of :func:`make_subjects`, ``x`` being checked already."""
    labels = check_labels(y, view.classifier.nb_classes, length=len(x))
    if labels.ndim == 2:
        raise ValueError("y: expected hard labels (indices or one-hot), got soft ones; accuracy needs one class each.")
    with torch.inference_mode(False):
        target = torch.from_numpy(labels)
        start = time.perf_counter()
        logits = predict(view, x, batch_size, seed)
        seconds = time.perf_counter() - start
        health = measure(view, x, target, logits, batch_size, seed)
        right = classified_as(logits, target)
    if refuse and health.nonfinite:
        first = int((~torch.isfinite(logits).all(dim=1)).nonzero()[0, 0])
        raise ValueError(
            f"{view.name}: its logits are NaN or Inf for {health.nonfinite} of {len(x)} natural samples, first in "
            f"sample {first}; expected finite logits, since an accuracy computed from them would mean nothing."
        )
    return Subject(view, x, target, right, health, seconds, batch_size, seed)


def _title(argument: str, name: Any) -> str:
    return argument if name is OnlyOne else f"{argument}[{name!r}]"
