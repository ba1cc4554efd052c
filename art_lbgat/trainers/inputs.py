"""What one step gives the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from art_lbgat.classifier import TensorView

Natural = Literal["none", "value", "graph"]


class Inputs(NamedTuple):
    """What one step gives the models, preprocessed for each.

    :param adversarial: For ``M_r(x_adv)``, or None.
    :param natural: For ``M_r(x)``, or None.
    :param guides: For each guide that is to be run.
    :param cached: The guides' logits, where they are known from an earlier epoch.
    :param y_student: Labels of the student.
    :param y_guide: Labels of the guide.
    """

    adversarial: Tensor | None
    natural: Tensor | None
    guides: Sequence[Tensor]
    cached: Tensor | None
    y_student: Tensor
    y_guide: Tensor


def make_inputs(
    views: Sequence[TensorView],
    natural: Natural,
    train_guides: bool,
    x: Tensor,
    x_adv: Tensor | None,
    y: Tensor,
    seed: int,
    cached: Tensor | None,
) -> Inputs:
    """Preprocess for each model, all with the same random draws.

    :param views: The student, then the guides.
    :param natural: What the method needs of ``M_r(x)``.
    :param train_guides: Whether the guides are trained, so that defences of training act on their inputs.
    :param x: Raw natural inputs, ``(N, ...)``.
    :param x_adv: Raw adversarial examples, or None.
    :param y: Labels.
    :param seed: Of the draws of defences that act in training.
    :param cached: The guides' logits, where they are known: the guides get no inputs then.
    """
    student, *guides = views
    adversarial = natural_inputs = None
    y_student = y_guide = y
    if x_adv is not None:
        adversarial, y_student = student.fit_inputs(x_adv, y, seed)
    if natural != "none":
        natural_inputs, y_student = student.fit_inputs(x, y, seed)
    guide_inputs = []
    for guide in guides if cached is None else ():
        if train_guides:
            inputs, y_guide = guide.fit_inputs(x, y, seed)
        else:
            with torch.no_grad():
                inputs = guide.predict_inputs(x)
        guide_inputs.append(inputs)
    return Inputs(adversarial, natural_inputs, guide_inputs, cached, y_student, y_guide)
