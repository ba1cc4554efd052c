"""Guidance: how the robust model is pulled to the logits that the guide gives on the natural images.

Notation: ``M_r(x_adv)`` is ``adversarial``, ``M_n(x)`` is ``guide``; both are raw logits of shape ``(N, C)``.
Gradients flow into both arguments (LBGAT trains both models); BGAT passes a ``guide`` without a graph.
Source: arXiv 2011.11164, equations of BGAT and LBGAT and the ablation of the guidance loss.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from art_lbgat.checks import check_count, check_number
from art_lbgat.objectives.checks import check_logits, check_targets, check_weight
from art_lbgat.objectives.supervised import adversarial_cross_entropy
from art_lbgat.objectives.terms import Term, Terms, total

_RESERVED = frozenset(
    {"loss", "guide_accuracy", "train_natural_accuracy", "train_robust_accuracy", "epoch", "fit", "eps", "seconds"}
)


class Guidance(Protocol):
    """What a guidance loss must look like: ``(adversarial, guide, y) -> Terms``."""

    def __call__(self, adversarial: Tensor, guide: Tensor, y: Tensor, /) -> Terms:
        """Return the named terms for logits ``(N, C)`` and labels (indices ``(N,)`` or probabilities ``(N, C)``)."""


def mse(adversarial: Tensor, guide: Tensor, y: Tensor | None = None) -> Terms:  # noqa: ARG001 (one signature)
    """``MSE(M_r(x_adv), M_n(x))``: mean over batch and classes of the squared difference of raw logits.

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param guide: ``M_n(x)``, shape ``(N, C)``.
    :param y: Not used: the robust model never sees a label.
    :return: The term ``guidance_mse``.
    """
    check_logits(adversarial=adversarial, guide=guide)
    return {"guidance_mse": Term(functional.mse_loss(adversarial, guide))}


def mse_ce(adversarial: Tensor, guide: Tensor, y: Tensor) -> Terms:
    """``MSE(M_r(x_adv), M_n(x)) + CE(M_r(x_adv), y)`` (ablation "MSE + CE").

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param guide: ``M_n(x)``, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :return: The terms ``guidance_mse`` and ``adversarial_ce``.
    """
    return {**mse(adversarial, guide), **adversarial_cross_entropy(adversarial, y)}


def kd(adversarial: Tensor, guide: Tensor, y: Tensor, temperature: float = 4.0, weight: float = 0.1) -> Terms:
    """``(1 - b) CE(M_r(x_adv), y) + 2 b T^2 CE(softmax(M_r(x_adv) / T), softmax(M_n(x) / T))`` (ablation "KD").

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param guide: ``M_n(x)``, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param temperature: ``T > 0``.
    :param weight: ``b`` in [0, 1].
    :return: The terms ``adversarial_ce`` and ``guidance_kd``.
    """
    check_logits(adversarial=adversarial, guide=guide)
    check_number(temperature, "temperature", exclusive=True)
    check_weight(weight, maximum=1.0)
    terms = adversarial_cross_entropy(adversarial, y, weight=1.0 - weight)
    soft = functional.cross_entropy(adversarial / temperature, functional.softmax(guide / temperature, dim=1))
    return {**terms, "guidance_kd": Term(soft, 2.0 * weight * temperature**2)}


def kl(adversarial: Tensor, guide: Tensor, y: Tensor) -> Terms:
    """``KL(softmax M_n(x) || softmax M_r(x_adv)) + CE(M_r(x_adv), y)``, KL averaged over the batch (ablation "KL").

    :param adversarial: ``M_r(x_adv)``, shape ``(N, C)``.
    :param guide: ``M_n(x)``, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :return: The terms ``guidance_kl`` and ``adversarial_ce``.
    """
    check_logits(adversarial=adversarial, guide=guide)
    divergence = functional.kl_div(
        functional.log_softmax(adversarial, dim=1), functional.softmax(guide, dim=1), reduction="batchmean"
    )
    return {"guidance_kl": Term(divergence), **adversarial_cross_entropy(adversarial, y)}


def guide_cross_entropy(guide: Tensor, y: Tensor, weight: float = 1.0) -> Terms:
    """``b * CE(M_n(x), y)``: keeps the learnable guide a classifier of the natural images (LBGAT; b = 1 in the paper).

    :param guide: ``M_n(x)``, shape ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param weight: ``b >= 0``.
    :return: The term ``guide_ce``.
    """
    check_targets(y, *check_logits(guide=guide), of="guide")
    check_weight(weight)
    return {"guide_ce": Term(functional.cross_entropy(guide, y), weight)}


GUIDANCE: dict[str, Guidance] = {"mse": mse, "mse+ce": mse_ce, "kd": kd, "kl": kl}


def check_guidance(guidance: Any, nb_classes: int, device: torch.device) -> None:
    """Call a guidance loss once on small logits, so that a wrong one is refused before training.

    :param guidance: A callable as :class:`Guidance` describes it.
    :param nb_classes: ``C``.
    :param device: Where the logits will be.
    :raises TypeError: If it cannot be called, or returns no dictionary from names to ``Term``.
    :raises ValueError: If a value is no finite scalar, or nothing of the result depends on ``adversarial``.
    """
    check_count(nb_classes, "nb_classes", minimum=2)
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"device: expected a device such as 'cpu', got {device!r}.") from error
    adversarial, guide = torch.linspace(-1, 1, 4 * nb_classes, device=device).reshape(2, 2, nb_classes)
    adversarial.requires_grad_()
    y = torch.arange(2, device=device) % nb_classes
    try:
        with torch.enable_grad():
            terms = guidance(adversarial, guide, y)
    except Exception as error:
        raise TypeError(
            f"guidance: expected a callable (adversarial, guide, y) -> Terms; with logits of shape (2, {nb_classes}) "
            f"and labels (2,) it raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(terms, dict) or not terms or not all(isinstance(term, Term) for term in terms.values()):
        got = {k: type(v).__name__ for k, v in terms.items()} if isinstance(terms, dict) else type(terms).__name__
        raise TypeError(f"guidance: expected it to return a dictionary from names to Term(value, weight), got {got}.")
    taken = sorted(_RESERVED.intersection(terms))
    if taken:
        raise ValueError(f"guidance: a term must not be named {taken}, which the history uses for something else.")
    for name, (value, weight) in terms.items():
        weighted = isinstance(weight, (int, float)) and math.isfinite(weight)
        if not isinstance(value, Tensor) or value.ndim or not bool(value.isfinite()) or not weighted:
            raise ValueError(f"guidance: expected finite scalar terms, got {name}={value!r} with weight {weight!r}.")
    if not total(terms).requires_grad:
        raise ValueError(
            f"guidance: none of its terms {list(terms)} depends on adversarial, so nothing would be learnt."
        )
