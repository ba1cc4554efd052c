"""Projected gradient descent (arXiv 1706.06083) on cross-entropy, margin or KL, in Linf and L2, on tensors."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from art_lbgat.attacks.ascent import Ascent
from art_lbgat.attacks.base import TensorAttack
from art_lbgat.checks import check_choice, check_count, check_norm


class PGDAttack(TensorAttack):
    r"""PGD: ``x <- clip(project(x + eps_step * direction(grad_x loss(M(x), y))))``, the loss being the cross-entropy.

    ``direction`` is the sign (Linf) or the gradient over its length (L2); the start is uniform in the ball around the
    natural input, clipped to ``clip_values``; gradients pass through the classifier's preprocessing. Source: Madry et
    al., arXiv 1706.06083; interface of ART's ``ProjectedGradientDescent``. Unlike there, several restarts keep the
    point of highest loss per sample.

    :param estimator: The classifier to attack.
    :param norm: ``np.inf`` (or ``"inf"``) or 2.
    :param eps: Radius of the ball, in raw input units, >= 0; a number, or (outside training) one per sample, of shape
        ``(N,)`` or ``(N, 1, ..., 1)``.
    :param eps_step: Length of a step, in raw input units, > 0; likewise.
    :param max_iter: Number of steps.
    :param num_random_init: 0 starts at the natural input, once; n >= 1 makes n random starts.
    :param objective: What is ascended: ``"ce"`` (cross-entropy), ``"cw"`` (the margin ``max_{j != y} M(x)_j - M(x)_y``)
        or ``"kl"`` (KL to the fixed natural prediction; labels are not used).
    :param batch_size: Chunk of ``generate``; changes at most the rounding of a logit.
    :param verbose: Show a progress bar in ``generate``.
    :param early_stop_steps: Stop each sample at a misclassified point once it went on from so many of them (``tau`` of
        Friendly Adversarial Training, arXiv 2002.11242, Algorithm 1), see :mod:`art_lbgat.attacks.early_stop`: a
        cheaper, weaker attack for training; not for an evaluation. None takes all steps.
    :raises TypeError: An argument, or the estimator, of the wrong type.
    :raises ValueError: An argument outside its range.
    """

    attack_params: ClassVar[list[str]] = [*TensorAttack.attack_params, "num_random_init", "objective"]

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str = math.inf,
        eps: float | NDArray[Any] = 0.031,
        eps_step: float | NDArray[Any] = 0.007,
        max_iter: int = 10,
        num_random_init: int = 1,
        objective: Literal["ce", "cw", "kl"] = "ce",
        batch_size: int = 128,
        verbose: bool = False,
        early_stop_steps: int | None = None,
    ) -> None:
        super().__init__(estimator, norm, eps, eps_step, max_iter, batch_size, verbose, early_stop_steps)
        self.num_random_init, self.objective = num_random_init, objective
        self._check_params()

    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""
        return Ascent(
            norm=check_norm(self.norm),
            eps=self._radius(self.eps),
            eps_step=self._radius(self.eps_step),
            max_iter=self.max_iter,
            objective=self.objective,
            start="uniform" if self.num_random_init else "none",
            restarts=max(1, self.num_random_init),
            early_stop_steps=self.early_stop_steps,
        )

    def _check_params(self) -> None:
        super()._check_params()
        check_count(self.num_random_init, "num_random_init", minimum=0)
        self._check_one_start(self.num_random_init)
        check_choice(self.objective, "objective", ("ce", "cw", "kl"))
        if self.objective == "kl" and self.num_random_init == 0:
            raise ValueError(
                "num_random_init: expected >= 1 for objective 'kl', whose gradient is 0 at x itself, got 0."
            )
