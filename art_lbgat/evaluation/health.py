"""What makes a high robust accuracy meaningless: outputs that are no logits, randomness, dead gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack_checks import (
    BATCH_DEPENDENT,
    NON_FINITE_GRADIENTS,
    RANDOMISED,
    SOFTMAX,
    ZERO_GRADIENTS,
)
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

PROBED = 256  # samples looked at, evenly spaced over all
LARGEST_CHANGE = 1e-3  # of the range of the logits; rounding is below it, also in TF32
LARGEST_SHARE = 0.05  # of the samples without a usable gradient
_SUM_TOLERANCE = 1e-3
_SMALL_BATCH = 16


class Health(NamedTuple):
    """Measurements on natural inputs.

    :param nonfinite: Samples whose logits hold NaN or Inf; if there are any, the rest is not measured.
    :param probabilities: Whether every output row is non-negative and sums to 1.
    :param change: Largest difference of the logits between two passes of other seeds, as a share of their range.
    :param batch_change: The same between a batch and half of it.
    :param dead: Share of the samples classified as labelled whose cross-entropy has a gradient of exactly 0.
    :param broken: Share of them whose gradient holds NaN or Inf.
    :param differentiable: Whether the logits have a graph to the inputs.
    """

    nonfinite: int
    probabilities: bool = False
    change: float = 0.0
    batch_change: float = 0.0
    dead: float = 0.0
    broken: float = 0.0
    differentiable: bool = True


def predict(view: TensorView, x: Tensor, batch_size: int, seed: int) -> Tensor:
    """Logits ``(n, C)`` on the CPU, in eval mode, the global generators seeded anew and then left as found.

    :param view: The classifier.
    :param x: Raw inputs on the CPU, ``(n, ...)``; not written to, even by a model that works in place.
    :param batch_size: Samples per pass.
    :param seed: What a model that draws at random sees.
    """
    with plain_autograd(view.device), evaluating(view.module), torch.no_grad(), preserved_randomness():
        seed_everything(seed)
        if not len(x):
            return torch.empty(0, view.classifier.nb_classes)
        return in_chunks(
            lambda rows: view.logits(x[rows].to(view.device)).float().cpu(), torch.arange(len(x)), batch_size
        )


def classified_as(logits: Tensor, y: Tensor) -> Tensor:
    """``argmax M(x) == y``, bool ``(n,)``; rows with NaN or Inf classify nothing.

    :param logits: Raw logits, ``(n, C)``.
    :param y: Labels as indices, ``(n,)``.
    """
    return (logits.argmax(dim=1) == y) & torch.isfinite(logits).all(dim=1)


def probed(n: int) -> Tensor:
    """Which of ``n`` samples are probed: all of them, or :data:`PROBED` evenly spaced; int64.

    :param n: Number of samples.
    """
    return torch.linspace(0, n - 1, min(n, PROBED)).long()


def measure(view: TensorView, x: Tensor, y: Tensor, logits: Tensor, batch_size: int, seed: int) -> Health:
    """Measure a classifier on natural inputs; at most :data:`PROBED` of them get further passes.

    :param view: The classifier.
    :param x: Raw natural inputs on the CPU, ``(n, ...)``.
    :param y: Index labels, ``(n,)``.
    :param logits: Its logits of ``x``, ``(n, C)``.
    :param batch_size: Samples per pass.
    :param seed: Seed of the first pass; the second has the next one.
    """
    nonfinite = int((~torch.isfinite(logits).all(dim=1)).sum())
    if nonfinite:
        return Health(nonfinite)
    rows = probed(len(x))
    x, y = x[rows], y[rows]
    spread = max(float(logits.max() - logits.min()), torch.finfo(torch.float32).tiny)
    first = predict(view, x, batch_size, seed)
    change = float((first - predict(view, x, batch_size, seed + 1)).abs().max()) / spread
    whole = x[:_SMALL_BATCH]
    half = whole[: max(1, len(whole) // 2)]
    pair = (predict(view, each, _SMALL_BATCH, seed)[: len(half)] for each in (whole, half))
    batch_change = float((next(pair) - next(pair)).abs().max()) / spread
    right = classified_as(first, y)
    dead, broken, differentiable = _gradient_shares(view, x[right], y[right], batch_size, seed)
    return Health(0, _are_probabilities(logits), change, batch_change, dead, broken, differentiable)


def flags(health: Health) -> dict[str, str]:
    """Why the robust accuracies of a classifier may be too high, in words by flag; empty if nothing was found.

    :param health: What was found.
    """
    found = {}
    if health.probabilities:
        found[SOFTMAX] = "outputs are probabilities, not logits: gradients saturate, the accuracy may be too high"
    if health.change > LARGEST_CHANGE:
        found[RANDOMISED] = f"randomised: logits of two passes differ by {health.change:.2%} of their range"
    elif health.batch_change > LARGEST_CHANGE:
        found[BATCH_DEPENDENT] = f"logits depend on the rest of the batch, by {health.batch_change:.2%} of their range"
    if health.dead > LARGEST_SHARE:
        found[ZERO_GRADIENTS] = f"gradient masking: the gradient is 0 at {health.dead:.0%} of the samples"
    if health.broken > 0:
        found[NON_FINITE_GRADIENTS] = (
            f"gradient masking: the gradient is NaN or Inf at {health.broken:.2%} of the samples"
        )
    return found


def require_gradients(health: Health, name: str) -> None:
    """Refuse gradient attacks on logits that have no graph to the inputs.

    :param health: What was measured.
    :param name: The name of the argument, for the message.
    :raises ValueError: If there is no graph.
    """
    if not health.differentiable:
        raise ValueError(
            f"{name}: its logits have no graph to its inputs (detached, or computed outside of PyTorch), so gradient "
            "attacks cannot be run on it; judge it with attacks that need no gradient, such as AutoAttack's 'square'."
        )


def _are_probabilities(logits: Tensor) -> bool:
    return bool((logits >= 0).all() and ((logits.sum(dim=1) - 1).abs() < _SUM_TOLERANCE).all())


def _gradient_shares(view: TensorView, x: Tensor, y: Tensor, batch_size: int, seed: int) -> tuple[float, float, bool]:
    """The shares of dead and of broken gradients, and whether there is a graph at all."""
    if not len(x):
        return 0.0, 0.0, True
    graphs = []

    def dead_and_broken(rows: Tensor) -> Tensor:
        """Two columns, bool, a row per sample."""
        found = _input_gradient(view, x[rows].to(view.device), y[rows].to(view.device))
        graphs.append(found is not None)
        gradient = (torch.zeros_like(x[rows]) if found is None else found).flatten(1)
        finite = torch.isfinite(gradient).all(dim=1)
        return torch.stack([finite & (gradient == 0).all(dim=1), ~finite], dim=1).cpu()

    with plain_autograd(view.device), evaluating(view.module), preserved_randomness():
        seed_everything(seed)
        dead, broken = in_chunks(dead_and_broken, torch.arange(len(x)), batch_size).double().mean(dim=0).tolist()
    return dead, broken, all(graphs)


def _input_gradient(view: TensorView, x: Tensor, y: Tensor) -> Tensor | None:
    # A node of the graph rather than a leaf, so that a model that works in place can be differentiated too.
    leaf = x.requires_grad_(True)
    loss = functional.cross_entropy(view.logits(leaf * 1), y, reduction="sum")
    if not loss.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient
