"""A classifier under test: its natural predictions, and what would make a high accuracy of it meaningless."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from art_lbgat.attacks.projections import Bounds
from art_lbgat.checks import as_array, check_count, check_inputs, check_labels, check_seed
from art_lbgat.classifier import TensorView
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

Classifiers: TypeAlias = PyTorchClassifier | Mapping[str, PyTorchClassifier]

RANDOMISED, SOFTMAX, DYNAMIC = "randomised", "softmax", "dynamic"
ZERO_GRADIENTS, SQUARE_STRONGER, FEW_CLASSES = "zero gradients", "square stronger", "few classes"
NON_FINITE, NON_FINITE_GRADIENTS = "non-finite logits", "non-finite gradients"
BATCH_DEPENDENT = "batch dependent"

PROBED = 256  # samples looked at, evenly spaced over all
LARGEST_CHANGE = 1e-3  # of the range of the logits; rounding is below it, also in TF32
LARGEST_SHARE = 0.05  # of the samples without a usable gradient
_SUM_TOLERANCE = 1e-3
_SMALL_BATCH = 16


class Health(NamedTuple):
    """Measurements on natural inputs."""

    nonfinite: int  # samples whose logits hold NaN or Inf; if there are any, the rest is not measured
    probabilities: bool = False  # every output row is non-negative and sums to 1
    change: float = 0.0  # largest difference of the logits between two passes of other seeds, as a share of their range
    batch_change: float = 0.0  # the same between a batch and half of it
    dead: float = 0.0  # share of the samples classified as labelled whose cross-entropy has a gradient of exactly 0
    broken: float = 0.0  # share of them whose gradient holds NaN or Inf
    differentiable: bool = True  # the logits have a graph to the inputs


@dataclass(frozen=True)
class Subject:
    """A classifier, the samples it is evaluated on, and what was found without an attack."""

    view: TensorView
    x: Tensor  # raw, float32, contiguous, on the CPU
    y: Tensor  # index labels
    right: Tensor  # which samples are classified as labelled, bool (n,)
    health: Health
    seconds: float  # of the natural predictions
    batch_size: int
    seed: int

    def bounds(self) -> Bounds:
        """``clip_values`` as two tensors on the CPU, or None."""
        bounds = self.view.bounds()
        return None if bounds is None else (bounds[0].cpu(), bounds[1].cpu())

    def right_on(self, x: Tensor, rows: Tensor) -> tuple[Tensor, int]:
        """Which of ``rows`` (the others count as wrong) are right for samples ``x``, and how many logits not finite."""
        logits = predict(self.view, x[rows], self.batch_size, self.seed)
        right = torch.zeros_like(rows)
        right[rows] = classified_as(logits, self.y[rows])
        return right, int((~_finite(logits)).sum())


def make_subjects(
    classifier: Classifiers, x: Any, y: Any, batch_size: int, seed: int, refuse: bool = True
) -> dict[str | None, Subject]:
    """The classifiers by name (None without one) and their natural predictions, which ``refuse`` wants to be finite."""
    check_count(batch_size, "batch_size")
    check_seed(seed)
    named: Mapping[Any, PyTorchClassifier] = classifier if isinstance(classifier, Mapping) else {None: classifier}
    if not named:
        raise ValueError("classifier: expected at least one classifier, got an empty mapping.")
    views = {
        n: TensorView(c, "classifier" if n is None else f"classifier[{n!r}]", postprocess=True)
        for n, c in named.items()
    }
    array = as_array(x, "x")
    for view in views.values():
        array = check_inputs(array, view.classifier)
    samples = to_tensor(array)
    return {name: make_subject(view, samples, y, batch_size, seed, refuse) for name, view in views.items()}


def make_subject(view: TensorView, x: Tensor, y: Any, batch_size: int, seed: int, refuse: bool = True) -> Subject:
    """One subject; ``x`` is checked already."""
    labels = hard_labels(y, view.classifier.nb_classes, len(x))
    with torch.inference_mode(False):
        target = torch.from_numpy(labels)
        start = time.perf_counter()
        logits = predict(view, x, batch_size, seed)
        seconds = time.perf_counter() - start
        health = measure_health(view, x, target, logits, batch_size, seed)
        right = classified_as(logits, target)
    if refuse and health.nonfinite:
        raise ValueError(
            f"{view.name}: its logits are NaN or Inf for {health.nonfinite} of {len(x)} natural samples, first in "
            f"sample {int((~_finite(logits)).nonzero()[0])}; expected finite logits."
        )
    return Subject(view, x, target, right, health, seconds, batch_size, seed)


def to_tensor(array: Any) -> Tensor:
    """A new float32 tensor on the CPU, in C order, so that the memory format of the array changes no bit."""
    with torch.inference_mode(False):
        return torch.from_numpy(np.array(as_array(array, "x"), dtype=np.float32, order="C"))


def hard_labels(y: Any, nb_classes: int, length: int, name: str = "y") -> NDArray[np.int64]:
    """Class indices of labels that are indices or one-hot."""
    labels = check_labels(y, nb_classes, name, length)
    if labels.ndim == 2:
        raise ValueError(f"{name}: expected hard labels (indices or one-hot), got soft ones.")
    return labels


def predict(view: TensorView, x: Tensor, batch_size: int, seed: int) -> Tensor:
    """Logits ``(n, C)`` on the CPU, in eval mode; a model that draws at random sees the seed."""
    with plain_autograd(view.device), evaluating(view.module), torch.no_grad(), preserved_randomness():
        seed_everything(seed)
        if not len(x):
            return torch.empty(0, view.classifier.nb_classes)
        return in_chunks(
            lambda rows: view.logits(x[rows].to(view.device)).float().cpu(), torch.arange(len(x)), batch_size
        )


def classified_as(logits: Tensor, y: Tensor) -> Tensor:
    """``argmax M(x) == y``, bool ``(n,)``; rows with NaN or Inf classify nothing."""
    return (logits.argmax(dim=1) == y) & _finite(logits)


def _finite(logits: Tensor) -> Tensor:
    return torch.isfinite(logits).all(dim=1)


def probed(n: int) -> Tensor:
    """Which of ``n`` samples are probed: all of them, or :data:`PROBED` evenly spaced; int64."""
    return torch.linspace(0, n - 1, min(n, PROBED)).long()


def measure_health(view: TensorView, x: Tensor, y: Tensor, logits: Tensor, batch_size: int, seed: int) -> Health:
    """Measure a classifier on natural inputs and their ``logits``; at most :data:`PROBED` get further passes."""
    nonfinite = int((~_finite(logits)).sum())
    if nonfinite:
        return Health(nonfinite)
    rows = probed(len(x))
    x, y = x[rows], y[rows]
    spread = max(float(logits.max() - logits.min()), torch.finfo(torch.float32).tiny)
    first, second = (predict(view, x, batch_size, each) for each in (seed, seed + 1))
    half = x[: max(1, min(len(x), _SMALL_BATCH) // 2)]
    in_whole, in_half = (predict(view, each, _SMALL_BATCH, seed)[: len(half)] for each in (x[:_SMALL_BATCH], half))
    right = classified_as(first, y)
    return Health(
        0,
        bool((logits >= 0).all() and ((logits.sum(dim=1) - 1).abs() < _SUM_TOLERANCE).all()),
        float((first - second).abs().max()) / spread,
        float((in_whole - in_half).abs().max()) / spread,
        *_gradient_shares(view, x[right], y[right], batch_size, seed),
    )


def _gradient_shares(view: TensorView, x: Tensor, y: Tensor, batch_size: int, seed: int) -> tuple[float, float, bool]:
    """The shares of dead and of broken gradients, and whether there is a graph at all."""
    if not len(x):
        return 0.0, 0.0, True
    graphs = []

    def dead_and_broken(rows: Tensor) -> Tensor:
        """Two columns, bool, a row per sample."""
        leaf = x[rows].to(view.device).requires_grad_(True)
        loss = functional.cross_entropy(view.logits(leaf), y[rows].to(view.device), reduction="sum")
        graphs.append(loss.requires_grad)
        found = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
        gradient = (torch.zeros_like(leaf) if found is None else found).flatten(1)
        finite = torch.isfinite(gradient).all(dim=1)
        return torch.stack([finite & (gradient == 0).all(dim=1), ~finite], dim=1).cpu()

    with plain_autograd(view.device), evaluating(view.module), preserved_randomness():
        seed_everything(seed)
        dead, broken = in_chunks(dead_and_broken, torch.arange(len(x)), batch_size).double().mean(dim=0).tolist()
    return dead, broken, all(graphs)


def health_flags(health: Health) -> dict[str, str]:
    """Why the robust accuracies of a classifier may be too high, in words by flag; empty if nothing was found."""
    found = {}
    if health.probabilities:
        found[SOFTMAX] = "outputs are probabilities, not logits: gradients saturate, the accuracy may be too high"
    if health.change > LARGEST_CHANGE:
        found[RANDOMISED] = f"randomised: logits of two passes differ by {health.change:.2%} of their range"
    elif health.batch_change > LARGEST_CHANGE:
        found[BATCH_DEPENDENT] = f"logits depend on the rest of the batch, by {health.batch_change:.2%} of their range"
    masking = "gradient masking: the gradient is"
    if health.dead > LARGEST_SHARE:
        found[ZERO_GRADIENTS] = f"{masking} 0 at {health.dead:.0%} of the samples"
    if health.broken > 0:
        found[NON_FINITE_GRADIENTS] = f"{masking} NaN or Inf at {health.broken:.2%} of the samples"
    return found


def require_gradients(health: Health, name: str) -> None:
    """ValueError, naming the argument, where gradient attacks have no graph to follow."""
    if not health.differentiable:
        raise ValueError(
            f"{name}: its logits have no graph to its inputs (detached, or computed outside of PyTorch), so gradient "
            "attacks cannot be run on it; take attacks that need no gradient, such as AutoAttack's 'square'."
        )
