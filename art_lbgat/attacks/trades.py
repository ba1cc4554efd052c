"""The inner attack of TRADES and of LBGAT + TRADES: ascend the KL to the natural prediction."""

from __future__ import annotations

import math
from typing import ClassVar

from art.estimators.classification import PyTorchClassifier

from art_lbgat.attacks.base import TensorAttack
from art_lbgat.attacks.loop import Ascent
from art_lbgat.checks import check_norm, check_number


class TRADESAttack(TensorAttack):
    """``x <- clip(project(x + eps_step * direction(grad_x KL(softmax M(x_0) || softmax M(x)))))``.

    The natural prediction ``M(x_0)`` is fixed: computed once, in eval mode, without a graph. The start is
    ``x_0 + start_std * N(0, 1)``, neither clipped nor projected before the first step. Labels are not used. Source:
    Zhang et al., arXiv 1901.08573, as in their code and in that of LBGAT.

    :param estimator: The classifier to attack.
    :param norm: ``np.inf`` (or ``"inf"``) or 2.
    :param eps: Radius of the ball, in raw input units, >= 0 (0.031 in the papers, not 8/255).
    :param eps_step: Length of a step, in raw input units, > 0.
    :param max_iter: Number of steps.
    :param start_std: Standard deviation of the start, in raw input units; None is 0.001 of the range of
        ``clip_values`` (0.001 for inputs in [0, 1]).
    :param batch_size: Chunk of ``generate``; changes at most the rounding of a logit.
    :param verbose: Show a progress bar in ``generate``.
    :raises TypeError: An argument, or the estimator, of the wrong type.
    :raises ValueError: An argument outside its range.
    """

    attack_params: ClassVar[list[str]] = [*TensorAttack.attack_params, "start_std"]

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str = math.inf,
        eps: float = 0.031,
        eps_step: float = 0.007,
        max_iter: int = 10,
        start_std: float | None = None,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> None:
        super().__init__(estimator, norm, eps, eps_step, max_iter, batch_size, verbose)
        self.start_std = 0.001 * self._view.value_range() if start_std is None else start_std
        self._check_params()

    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""
        return Ascent(
            norm=check_norm(self.norm),
            eps=self.eps,
            eps_step=self.eps_step,
            max_iter=self.max_iter,
            objective="kl",
            start="gaussian",
            start_std=self.start_std,
        )

    def _check_params(self) -> None:
        super()._check_params()
        check_number(self.start_std, "start_std")
