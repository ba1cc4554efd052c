"""The inner attack of TRADES and of LBGAT + TRADES: ascend the KL to the natural prediction."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from art_lbgat.attacks.ascent import Ascent
from art_lbgat.attacks.base import TensorAttack
from art_lbgat.checks import check_count, check_norm, check_number


class TRADESAttack(TensorAttack):
    """``x <- clip(project(x + eps_step * direction(grad_x KL(softmax M(x_0) || softmax M(x)))))``.

    The natural prediction ``M(x_0)`` is fixed: computed once, in eval mode, without a graph. The start is
    ``x_0 + start_std * N(0, 1)``, neither clipped nor projected before the first step. Labels are not used, but to stop
    early. Source: Zhang et al., arXiv 1901.08573, as in their code and in that of LBGAT.

    :param estimator: The classifier to attack.
    :param norm: ``np.inf`` (or ``"inf"``) or 2.
    :param eps: Radius of the ball, in raw input units, >= 0 (0.031 in the papers, not 8/255); a number, or (outside
        training) one per sample, of shape ``(N,)`` or ``(N, 1, ..., 1)``.
    :param eps_step: Length of a step, in raw input units, > 0; likewise.
    :param max_iter: Number of steps.
    :param start_std: Standard deviation of the start, in raw input units; None is 0.001 of the range of
        ``clip_values`` (0.001 for inputs in [0, 1]).
    :param num_random_init: Number of starts, >= 1 (at ``x_0`` itself the gradient is 0); of several, the point of
        highest KL is kept for each sample.
    :param batch_size: Chunk of ``generate``; changes at most the rounding of a logit.
    :param verbose: Show a progress bar in ``generate``.
    :param early_stop_steps: Stop each sample at a misclassified point once it went on from so many of them (``tau`` of
        Friendly Adversarial Training, arXiv 2002.11242, Algorithm 1), see :mod:`art_lbgat.attacks.early_stop`: a
        cheaper, weaker attack for training; not for an evaluation. None takes all steps.
    :raises TypeError: An argument, or the estimator, of the wrong type.
    :raises ValueError: An argument outside its range.
    """

    attack_params: ClassVar[list[str]] = [*TensorAttack.attack_params, "start_std", "num_random_init"]

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str = math.inf,
        eps: float | NDArray[Any] = 0.031,
        eps_step: float | NDArray[Any] = 0.007,
        max_iter: int = 10,
        start_std: float | None = None,
        num_random_init: int = 1,
        batch_size: int = 128,
        verbose: bool = False,
        early_stop_steps: int | None = None,
    ) -> None:
        super().__init__(estimator, norm, eps, eps_step, max_iter, batch_size, verbose, early_stop_steps)
        self.start_std = 0.001 * self._view.value_range() if start_std is None else start_std
        self.num_random_init = num_random_init
        self._check_params()

    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""
        return Ascent(
            norm=check_norm(self.norm),
            eps=self._radius(self.eps),
            eps_step=self._radius(self.eps_step),
            max_iter=self.max_iter,
            objective="kl",
            start="gaussian",
            start_std=self.start_std,
            restarts=self.num_random_init,
            early_stop_steps=self.early_stop_steps,
        )

    def _check_params(self) -> None:
        super()._check_params()
        check_number(self.start_std, "start_std")
        check_count(self.num_random_init, "num_random_init")
        self._check_one_start(self.num_random_init)
