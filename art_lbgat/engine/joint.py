"""The one module that is ever prepared, wrapped or compiled for training."""

from __future__ import annotations

from collections.abc import Sequence

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
        if adversarial is not None:
            outputs["adversarial"] = self.student(adversarial)
        if natural is not None:
            with torch.set_grad_enabled(natural_graph and torch.is_grad_enabled()):
                outputs["natural"] = self.student(natural)
        if guide_inputs:
            with torch.set_grad_enabled(self.train_guides and torch.is_grad_enabled()):
                logits = [guide(x) for guide, x in zip(self.guides, guide_inputs, strict=True)]
                outputs["guide"] = logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)
        return outputs
