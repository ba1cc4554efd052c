"""What happened: sums over an epoch that stay on the device, and a row per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from art_lbgat.losses import Terms
from art_lbgat.processes import Processes

if TYPE_CHECKING:
    import pandas


class Meter:
    """Sample-weighted means over an epoch. Nothing is read back from the device until :meth:`means`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._predicted: Tensor | None = None
        self.samples = 0

    def add(
        self,
        terms: Terms,
        loss: Tensor,
        logits: Mapping[str, Tensor],
        y: Tensor,
        y_guide: Tensor,
        counted: bool = True,
    ) -> None:
        """Add one step.

        :param terms: The named loss terms, batch means; their unweighted values are recorded.
        :param loss: The loss, a batch mean.
        :param logits: What the step's forwards gave, under ``"adversarial"``, ``"natural"``, ``"guide"``.
        :param y: Labels of the student, indices or probabilities.
        :param y_guide: Labels of the guide.
        :param counted: False for rows that stand in for none: they count as 0 samples.
        """
        n = len(y) if counted else 0
        values = {name: term.value.detach() * n for name, term in terms.items()}
        values["loss"] = loss.detach() * n
        student = logits.get("adversarial", logits.get("natural"))
        for name, column in (("natural", "train_natural_accuracy"), ("adversarial", "train_robust_accuracy")):
            if name in logits:
                values[column] = correct(logits[name], y).sum() * counted
        if "guide" in logits:
            values["guide_accuracy"] = correct(logits["guide"], y_guide).sum() * counted
        if student is not None:
            self._count(student.detach().argmax(dim=1), student.shape[1], counted)
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self.samples += n

    def _count(self, predicted: Tensor, nb_classes: int, counted: bool) -> None:
        """How often each class was predicted of what the student is trained on."""
        if self._predicted is None:
            self._predicted = torch.zeros(nb_classes, dtype=torch.int64, device=predicted.device)
        if counted:
            self._predicted.scatter_add_(0, predicted, torch.ones_like(predicted))

    def only_class(self) -> int | None:
        """The class that every sample so far was predicted as; None where there are several, or no sample."""
        if self._predicted is None:
            return None
        predicted = self._predicted.nonzero().flatten().tolist()
        return predicted[0] if len(predicted) == 1 else None

    def state(self, processes: Processes) -> dict[str, Any]:
        """What :meth:`load` takes: the sums over all processes, which all have to ask for them.

        :param processes: The processes.
        """
        sums = {name: processes.total(value) for name, value in self._sums.items()}
        predicted = None if self._predicted is None else processes.total(self._predicted)
        samples = int(processes.total(torch.tensor(self.samples)))
        return {"sums": sums, "predicted": predicted, "samples": samples}

    def summed(self, processes: Processes, device: torch.device) -> Meter:
        """The sums over all processes, which all have to ask for them; alone, this meter itself.

        :param processes: The processes.
        :param device: Where the sums are exchanged.
        """
        if processes.world == 1:
            return self
        total = Meter()
        total.load(self.state(processes), device)
        return total

    def load(self, state: Mapping[str, Any], device: torch.device, *, counted: bool = True) -> None:
        """Go on from a state that :meth:`state` gave.

        :param state: The state.
        :param device: Where the sums are added up.
        :param counted: False starts at 0 under the same names: another process holds what was counted.
        """
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
    """Which samples are classified as labelled (by the largest probability where labels are soft), ``(N,)``, bool.

    :param logits: Raw logits, ``(N, C)``.
    :param y: Indices ``(N,)`` or probabilities ``(N, C)``.
    """
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
