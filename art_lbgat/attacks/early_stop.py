"""Early-stopped PGD: a sample takes only so many steps as fool the model, and then leaves the batch.

Zhang et al., Friendly Adversarial Training (FAT), arXiv 2002.11242, Algorithm 1 (PGD-K-tau).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from art_lbgat.attacks.ascent import Ascent
from art_lbgat.attacks.norms import Bounds
from art_lbgat.attacks.step import make_step
from art_lbgat.processes import Processes


@dataclass
class Tally:
    """What early-stopped attacks really took, summed over samples.

    :param samples: Samples attacked.
    :param steps: Steps they took.
    :param passes: Forward passes and backward passes to the input they were in.
    """

    samples: int = 0
    steps: int = 0
    passes: int = 0

    def means(self) -> dict[str, float]:
        """``attack_steps`` and ``attack_passes``, means per sample, empty where nothing was counted."""
        if not self.samples:
            return {}
        return {"attack_steps": self.steps / self.samples, "attack_passes": self.passes / self.samples}

    def clear(self) -> None:
        """Count anew."""
        self.samples = self.steps = self.passes = 0

    def summed(self, processes: Processes) -> Tally:
        """The counts over all processes, which all have to ask for them.

        :param processes: The processes.
        """
        return Tally(*processes.total(torch.tensor([self.samples, self.steps, self.passes])).tolist())


def ascend_early_stopped(
    ascent: Ascent,
    logits: Callable[[Tensor], Tensor],
    criterion: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    x: Tensor,
    y: Tensor,
    bounds: Bounds,
    x_adv: Tensor,
    tally: Tally | None = None,
) -> Tensor:
    """PGD that a sample leaves at a misclassified point, once it went on from ``tau`` such points.

    For each sample, at most ``K`` times: where ``argmax M(x_adv) != y``, it stops if ``tau`` is 0, and else ``tau``
    falls by one; then one step. So ``tau = 0`` stops at the first misclassified point, and ``tau >= K`` is PGD. Source:
    arXiv 2002.11242, Algorithm 1, of which the noise ``omega`` of the authors' code is no part. How many samples are
    left is read from the device once per step.

    :param ascent: What to run; ``early_stop_steps`` is ``tau``, ``max_iter`` is ``K``.
    :param logits: ``x -> M(x)``, differentiable, for any number of samples.
    :param criterion: What is ascended, ``(logits, target) -> (N,)``.
    :param target: Its target, a row per sample.
    :param x: Natural inputs, ``(N, ...)``, inside ``bounds``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``, of which the largest counts.
    :param bounds: Range of valid inputs, or None.
    :param x_adv: The start, which may be written into.
    :param tally: Told of the steps and passes.
    :return: ``x_adv``, the shape of ``x``, without a graph.
    """
    tally = Tally() if tally is None else tally
    tally.samples += len(x)
    left = torch.full((len(x),), ascent.early_stop_steps or 0, device=x.device)
    rows = torch.arange(len(x), device=x.device)  # which samples go on; what follows is of these
    y = y if y.ndim == 1 else y.argmax(dim=1)
    result, step = torch.empty_like(x_adv), make_step(ascent, x, bounds)
    for _ in range(ascent.max_iter):
        with torch.enable_grad():
            output = logits(x_adv.requires_grad_(True))
            fooled = output.detach().argmax(dim=1) != y
            goes_on = (~fooled | (left > 0)).nonzero().squeeze(1)
            tally.passes += len(rows)
            if len(goes_on) == 0:
                break
            (gradient,) = torch.autograd.grad(criterion(output, target)[goes_on].sum(), x_adv)
        tally.passes += len(rows)
        tally.steps += len(goes_on)
        x_adv = x_adv.detach()
        left -= fooled.long()
        if len(goes_on) < len(rows):
            result[rows] = x_adv  # of those that stop, the last point
            ascent = ascent.rows(goes_on, len(rows))
            rows, x, y, x_adv, left = (value[goes_on] for value in (rows, x, y, x_adv, left))
            target, gradient = target[goes_on], gradient[goes_on]
            step = make_step(ascent, x, bounds)
        x_adv = step(x_adv, gradient)
    result[rows] = x_adv.detach()
    return result
