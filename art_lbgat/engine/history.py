"""What happened: sums over an epoch that stay on the device, and a row per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from art_lbgat.losses import Terms
from art_lbgat.processes import Processes


class StepRecord(NamedTuple):
    """One training step of this process, as ``on_step`` gets it; its tensors are only good until the next step.

    :param epoch: The epoch, from 1.
    :param step: The step within it, from 0.
    :param x: Raw natural inputs, ``(N, ...)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param x_adv: The adversarial examples of ``x``, or None in natural training.
    :param logits: ``"adversarial"``, ``"natural"``, ``"guide"``, those that the method needs, ``(N, C)``.
    :param terms: The named loss terms.
    :param loss: Their weighted sum.
    """

    epoch: int
    step: int
    x: Tensor
    y: Tensor
    x_adv: Tensor | None
    logits: Mapping[str, Tensor]
    terms: Terms
    loss: Tensor


class Meter:
    """Sample-weighted means over an epoch. Nothing is read back from the device until :meth:`means`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._predicted: Tensor | None = None  # how often each class
        self.samples = 0

    def add(
        self, terms: Terms, loss: Tensor, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor, counted: bool = True
    ) -> None:
        """Add one step: unweighted terms and loss (batch means), and which logits are right.

        Rows that stand in for none (``counted=False``) count as 0 samples.
        """
        n = len(y) * counted
        values = {name: term.value.detach() * n for name, term in terms.items()}
        values["loss"] = loss.detach() * n
        for name, column, labels in (
            ("natural", "train_natural_accuracy", y),
            ("adversarial", "train_robust_accuracy", y),
            ("guide", "guide_accuracy", y_guide),
        ):
            if name in logits:
                values[column] = correct(logits[name], labels).sum() * counted
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        student = logits.get("adversarial", logits.get("natural"))
        if student is not None:
            predicted = student.detach().argmax(dim=1)
            if self._predicted is None:
                self._predicted = torch.zeros(student.shape[1], dtype=torch.int64, device=student.device)
            self._predicted.scatter_add_(0, predicted, torch.full_like(predicted, counted))
        self.samples += n

    def only_class(self) -> int | None:
        """The class that every sample so far was predicted as; None where there are several, or no sample."""
        predicted = [] if self._predicted is None else self._predicted.nonzero().flatten().tolist()
        return predicted[0] if len(predicted) == 1 else None

    def state(self, processes: Processes) -> dict[str, Any]:
        """What :meth:`load` takes: the sums over all processes, which all have to ask for them."""
        return {
            "sums": {name: processes.total(value) for name, value in self._sums.items()},
            "predicted": None if self._predicted is None else processes.total(self._predicted),
            "samples": int(processes.total(torch.tensor(self.samples))),
        }

    def summed(self, processes: Processes, device: torch.device) -> Meter:
        """The sums over all processes, which all have to ask for them."""
        total = Meter()
        total.load(self.state(processes), device)
        return total

    def load(self, state: Mapping[str, Any], device: torch.device, *, counted: bool = True) -> None:
        """Resume from a state; ``counted=False`` starts at 0, since another process holds what was counted."""
        self._sums = {name: value.to(device) * counted for name, value in state["sums"].items()}
        self._predicted = None if state["predicted"] is None else state["predicted"].to(device) * counted
        self.samples = state["samples"] * counted

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
