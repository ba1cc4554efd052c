"""What happened: sums over an epoch that stay on the device, and a row per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from art_lbgat.objectives.terms import Terms

if TYPE_CHECKING:
    import pandas


class Meter:
    """Sample-weighted means over an epoch. Nothing is read back from the device until :meth:`means`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.samples = 0

    def add(self, terms: Terms, loss: Tensor, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> None:
        """Add one step.

        :param terms: The named loss terms, batch means; their unweighted values are recorded.
        :param loss: The loss, a batch mean.
        :param logits: What the step's forwards gave, under ``"adversarial"``, ``"natural"``, ``"guide"``.
        :param y: Labels of the student, indices or probabilities.
        :param y_guide: Labels of the guide.
        """
        n = len(y)
        values = {name: term.value.detach() * n for name, term in terms.items()}
        values["loss"] = loss.detach() * n
        for name, column in (("natural", "train_natural_accuracy"), ("adversarial", "train_robust_accuracy")):
            if name in logits:
                values[column] = correct(logits[name], y).sum()
        if "guide" in logits:
            values["guide_accuracy"] = correct(logits["guide"], y_guide).sum()
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self.samples += n

    def means(self) -> dict[str, float]:
        """The means so far, one read from the device; empty before the first step."""
        if not self.samples:
            return {}
        sums = torch.stack([value.float() for value in self._sums.values()]).tolist()
        return {name: value / self.samples for name, value in zip(self._sums, sums, strict=True)}


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Which samples are classified as labelled (by the largest probability where labels are soft), ``(N,)``, bool."""
    hard = y if y.ndim == 1 else y.argmax(dim=1)
    return logits.detach().argmax(dim=1) == hard


class History:
    """Rows of a run, one per epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def frame(self) -> pandas.DataFrame:
        """The rows as a table; a value that an epoch does not have is NaN."""
        import pandas

        return pandas.DataFrame(self.rows)
