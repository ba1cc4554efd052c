"""Where the adversarial examples of a training step come from: the tensor loop, or ``attack.generate``."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from torch import Tensor
from torch.nn import CrossEntropyLoss

from art_lbgat.attacks import Ascent, PGDAttack, TensorAttack, read_attack
from art_lbgat.attacks.from_art import generated, parts_of
from art_lbgat.attacks.pgd import ascend, draw_start
from art_lbgat.attacks.projections import check_scale
from art_lbgat.classifier import TensorView, label_rows, run_module
from art_lbgat.engine.options import RunOptions
from art_lbgat.preserve import Key, seed_everything
from art_lbgat.processes import Share

logger = logging.getLogger(__name__)

_CHUNK = 1 << 19  # values of a global batch that random starts are drawn for together: 170 images of 32x32
# Attacks of ART that give back x, or their random start, where they do not flip.
_KEEP_UNFLIPPED = frozenset(
    ["AutoAttack", "AutoProjectedGradientDescent", "AutoConjugateGradient", "RescalingAutoConjugateGradient"]
)


class Adversary:
    """One untargeted attack on one classifier, ready to be called once per step.

    The module must be in eval mode with frozen parameters when examples are made; ``forward`` runs it on preprocessed
    inputs in the tensor loop.

    :raises ValueError: If ``eps`` is given per sample, or is larger than the range of inputs.
    """

    def __init__(self, attack: EvasionAttack, view: TensorView, forward: Callable[[Tensor], Any] | None = None) -> None:
        self.attack, self._view = attack, view
        self._forward = partial(run_module, view.module, name=view.name) if forward is None else forward
        self.ascent, self.reason = read_attack(attack, view)
        self._bounds = view.bounds()
        self._keeps_unflipped = bool(_KEEP_UNFLIPPED & {kind.__name__ for kind in type(attack).__mro__})
        for name, part in itertools.product(("eps", "eps_step"), (self.ascent, *parts_of(attack))):
            if not _is_of_all_samples(getattr(part, name, None), part, (1, *view.classifier.input_shape)):
                raise ValueError(
                    f"attack: its {name} is given per sample, but training draws its batches in random order; "
                    "expected one number."
                )
        if self.ascent is not None:
            check_scale(self.ascent.eps, self.ascent.norm, view)

    @property
    def eps(self) -> float | None:
        """The radius of the ball in raw input units, or None where the attack runs through ``generate``."""
        return None if self.ascent is None else float(self.ascent.eps)

    def check_training(self, options: RunOptions) -> None:
        """Log whether the attack runs in the tensor loop, and if not why; refuse a schedule that it cannot follow."""
        name = type(self.attack).__name__
        if self.ascent is not None:
            logger.info("%s runs in the tensor loop: %s.", name, self.ascent)
            return
        logger.warning("%s runs through attack.generate: %s.", name, self.reason)
        if self._keeps_unflipped:
            logger.warning("%s returns samples that it did not flip unattacked; it trains less than it seems.", name)
        for each, off in (("eps_warmup_epochs", 0), ("eps_warmup", 0), ("max_iter_schedule", ())):
            if getattr(options, each):
                raise ValueError(
                    f"{each}: expected {off} for an attack that runs through attack.generate ({self.reason}), got "
                    f"{getattr(options, each)}."
                )

    def starts(self, x: Tensor, key: Key, share: Share | None = None) -> list[Tensor | None]:
        """The unit random numbers that examples of ``x`` start from, keyed by ``key``; none through ``generate``.

        ``share`` says which rows of a global batch ``x`` is: the same numbers as one process would draw for them,
        drawn in chunks, so that no process draws much more than its own.
        """
        ascent = self.ascent
        if ascent is None:
            return []
        if share is None:
            generator = key.generator("attack", x.device)
            return [draw_start(ascent, x, generator) for _ in range(ascent.restarts)]
        rows = max(1, _CHUNK // max(1, x[0].numel()))
        first, last = share.rows.start, share.rows.stop
        parts: list[list[Tensor]] = [[] for _ in range(ascent.restarts)]
        for chunk in range(first // rows, (last - 1) // rows + 1):
            begin = chunk * rows
            shape = x[:1].expand(min(rows, share.total - begin), *x.shape[1:])
            purpose = f"attack {chunk}" if chunk else "attack"  # chunk 0: as drawn undivided
            generator = key.generator(purpose, x.device)
            for part in parts:
                start = draw_start(ascent, shape, generator)
                if start is not None:
                    part.append(start[max(first - begin, 0) : last - begin])
        return [torch.cat(part) if part else None for part in parts]

    def examples(
        self,
        x: Tensor,
        y: Tensor,
        key: Key,
        starts: list[Tensor | None],
        eps_factor: float = 1.0,
        steps: tuple[int, float] | None = None,
        purpose: str = "attack",
    ) -> Tensor:
        """``x_adv`` of one batch of raw inputs, in the ball of ``eps_factor * eps``, from what :meth:`starts` gave.

        ``steps`` is another number of steps, and their length in units of ``eps``. ``purpose`` is what the global
        generators are seeded for where the attack runs through ``generate``.
        """
        if self.ascent is None:
            seed_everything(key.derive(purpose))
            return self._generate(x, y)
        classifier, target = self._view.classifier, y
        # ART's cross-entropy takes indices; `reduce_labels` of rows would read them from the device.
        if self.ascent.objective == "estimator" and not (y.ndim == 1 and type(classifier.loss) is CrossEntropyLoss):
            target = classifier.reduce_labels(label_rows(y, classifier.nb_classes))
        ascent = self.ascent
        if steps is not None:
            ascent = replace(ascent, max_iter=steps[0], eps_step=steps[1] * ascent.eps)
        ascent = ascent.scaled(eps_factor)
        return ascend(ascent, self._logits, x, target, self._bounds, starts, classifier.loss)

    def _logits(self, x: Tensor) -> Tensor:
        return self._view.read(self._forward(self._view.predict_inputs(x)))

    def _generate(self, x: Tensor, y: Tensor) -> Tensor:
        # One-hot rows: not every ART attack converts indices itself.
        labels = label_rows(y, self._view.classifier.nb_classes).cpu().numpy()
        x_adv = generated(self.attack, x, labels).to(x.device)
        same = 0 if self._keeps_unflipped else int((x_adv == x).flatten(1).all(dim=1).sum())
        if same:
            self._keeps_unflipped = True  # said once
            logger.warning(
                "%s returned %d of the %d samples of a batch unattacked; it trains less than it seems.",
                *(type(self.attack).__name__, same, len(x)),
            )
        return x_adv


def _is_of_all_samples(radius: Any, owner: Any, shape: tuple[int, ...]) -> bool:
    """Whether it is one number or, which ART allows, one for each feature of a sample ``(1, ...)``."""
    try:
        fits = np.broadcast_shapes(np.shape(radius), shape) == shape
    except ValueError:
        return False
    return fits and (np.ndim(radius) == 0 or not isinstance(owner, (Ascent, TensorAttack)))


def validation_adversary(adversary: Adversary, view: TensorView) -> Adversary:
    """The attack that judges validation data: PGD-20 on cross-entropy in the ball of the training attack.

    Steps of ``eps / 10``, as in the paper (0.031 and 0.003). Where the ball of the training attack is not known, the
    training attack itself.
    """
    if adversary.ascent is None or not adversary.eps:
        return adversary
    return Adversary(PGDAttack(view.classifier, adversary.ascent.norm, adversary.eps, adversary.eps / 10, 20), view)
