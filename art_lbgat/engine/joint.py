"""The one module that is ever prepared, wrapped or compiled for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Joint(nn.Module):
    """``(x_adv, x) -> {M_r(x_adv), M_r(x), M_n(x)}`` for a student ``M_r`` and its guides ``M_n``.

    The student's forwards come first, adversarial before natural, then the guides': batch-norm statistics of the
    student move in that order. All inputs are already preprocessed, each for its own model.

    :param student: The robust model, which is trained.
    :param guides: No guide, one, or an ensemble, whose output is the mean of the logits.
    :param train_guides: Whether the guides are trained too (LBGAT) or give their answer without a graph (BGAT).
    """

    def __init__(self, student: nn.Module, guides: Sequence[nn.Module] = (), train_guides: bool = False) -> None:
        super().__init__()
        self.student = student
        self.guides = nn.ModuleList(guides)
        self.train_guides = train_guides
        self._run: Sequence[Callable[[Tensor], Any]] = [student, *guides]

    @contextmanager
    def run_by(self, functions: Sequence[Callable[[Tensor], Any]]) -> Iterator[None]:
        """Inside the block the modules are run by these functions, of student and guides, instead of directly.

        :param functions: A function from inputs to outputs for the student and each guide.
        """
        found, self._run = self._run, functions
        try:
            yield
        finally:
            self._run = found

    def trained(self) -> list[nn.Module]:
        """The modules whose parameters are trained."""
        return [self.student, *(self.guides if self.train_guides else [])]

    def forward(
        self,
        adversarial: Tensor | None,
        natural: Tensor | None,
        guide_inputs: Sequence[Tensor] = (),
        natural_graph: bool = True,
    ) -> dict[str, Tensor]:
        """Raw logits, each of shape ``(N, C)``, under the keys of what was asked for.

        :param adversarial: The student's input for ``M_r(x_adv)``, or None to leave it out.
        :param natural: The student's input for ``M_r(x)``, or None to leave it out.
        :param guide_inputs: One natural input per guide, or none.
        :param natural_graph: False computes ``M_r(x)`` without a graph (batch-norm statistics move all the same).
        :return: ``"adversarial"``, ``"natural"``, ``"guide"`` where asked for.
        """
        outputs: dict[str, Tensor] = {}
        student, *guides = self._run
        if adversarial is not None:
            outputs["adversarial"] = _tensor(student(adversarial), "classifier")
        if natural is not None:
            with torch.set_grad_enabled(natural_graph and torch.is_grad_enabled()):
                outputs["natural"] = _tensor(student(natural), "classifier")
        if guide_inputs:
            with torch.set_grad_enabled(self.train_guides and torch.is_grad_enabled()):
                logits = [_tensor(guide(x), "guide") for guide, x in zip(guides, guide_inputs, strict=True)]
                outputs["guide"] = logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)
        return outputs


def _tensor(output: Any, name: str) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{name}: its model must return one tensor of logits (N, nb_classes), got {got}.")
    return output
