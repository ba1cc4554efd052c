"""Validation data: checked once, judged after epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from art_lbgat.bridge import TensorView
from art_lbgat.checks import check_inputs, check_labels
from art_lbgat.engine.history import correct
from art_lbgat.engine.modes import Modes
from art_lbgat.engine.randomness import Key
from art_lbgat.trainers.adversary import Adversary


class Validation:
    """Natural and robust accuracy on held-out data.

    Every epoch is attacked from the same random starts, so that epochs are compared on equal terms.

    :param data: ``(x, y)`` arrays.
    :param view: The classifier that is trained.
    :param batch_size: Samples per batch; the starts do not depend on it (but an attack through ``generate`` may).
    :raises ValueError: If ``data`` is no pair, or its values are wrong (see :mod:`art_lbgat.checks`).
    """

    def __init__(self, data: Any, view: TensorView, batch_size: int) -> None:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ValueError(f"validation_data: expected a pair (x, y), got {type(data).__name__}.")
        x = check_inputs(data[0], view.classifier, "validation_data[0]")
        self._x = torch.from_numpy(x.astype(np.float32))
        self._y = check_labels(data[1], view.classifier.nb_classes, "validation_data[1]", length=len(self._x))
        self._view, self._batch_size = view, batch_size

    def accuracies(self, modes: Modes, adversary: Adversary | None, seed: int) -> dict[str, float]:
        """``validation_natural_accuracy`` and, with an adversary, ``validation_robust_accuracy``, in [0, 1].

        :param modes: The modes of the classifier's module, which is left in eval mode with frozen parameters.
        :param adversary: The attack that judges, or None.
        :param seed: Seed of the run.
        :return: The accuracies by name; a sample counts as robust if it is right naturally and under attack.
        """
        modes.evaluate()
        natural = robust = 0
        starts = [] if adversary is None else adversary.starts(self._x, Key(seed))
        for step, first in enumerate(range(0, len(self._x), self._batch_size)):
            rows = slice(first, first + self._batch_size)
            x = self._x[rows].to(self._view.device)
            y = torch.from_numpy(self._y[rows]).to(self._view.device)
            with torch.no_grad():
                right = correct(self._view.logits(x), y)
            natural += int(right.sum())
            if adversary is not None:
                part = [None if s is None else s[rows].to(self._view.device) for s in starts]
                x_adv = adversary.examples(x, y, Key(seed, step=step), starts=part)
                with torch.no_grad():
                    robust += int((right & correct(self._view.logits(x_adv), y)).sum())
        result = {"validation_natural_accuracy": natural / len(self._x)}
        if adversary is not None:
            result["validation_robust_accuracy"] = robust / len(self._x)
        return result
