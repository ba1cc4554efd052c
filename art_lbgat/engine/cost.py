"""What a training step costs, in passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Cost:
    """Passes of one training step. A forward is the unit; a backward to the input costs one, a full one two.

    :param student_forwards: Forward passes of the robust model (attack and training).
    :param student_input_backwards: Backward passes to the input only (attack).
    :param student_full_backwards: Backward passes to the parameters.
    :param guide_forwards: Forward passes of the guides, all together.
    :param guide_full_backwards: Backward passes to the guides' parameters.
    """

    student_forwards: int
    student_input_backwards: int
    student_full_backwards: int
    guide_forwards: int = 0
    guide_full_backwards: int = 0

    @property
    def student(self) -> int:
        """Forward-equivalents of the robust model (``F``)."""
        return self.student_forwards + self.student_input_backwards + 2 * self.student_full_backwards

    @property
    def guide(self) -> int:
        """Forward-equivalents of the guides (``Fg``)."""
        return self.guide_forwards + 2 * self.guide_full_backwards

    def __str__(self) -> str:
        return f"{self.student} F" + (f" + {self.guide} Fg" if self.guide else "")


def step_cost(
    *,
    attack_forwards: int,
    attack_backwards: int,
    adversarial: bool,
    natural: Literal["none", "value", "graph"],
    guides: int = 0,
    train_guides: bool = False,
    cached_guides: bool = False,
    perturbs_weights: bool = False,
) -> Cost:
    """The floor of unavoidable passes of one training step.

    :param attack_forwards: Forward passes of the attack.
    :param attack_backwards: Its backward passes to the input.
    :param adversarial: Whether ``M_r(x_adv)`` is trained on.
    :param natural: What is needed of ``M_r(x)``: nothing, its value, or its graph.
    :param guides: Number of guides.
    :param train_guides: Whether they are trained.
    :param cached_guides: Whether their logits are known already.
    :param perturbs_weights: Whether AWP is on: every forward with a graph, and its backward, once more.
    :return: The passes.
    """
    graphs = adversarial + (natural == "graph")
    perturbing = graphs if perturbs_weights else 0
    return Cost(
        student_forwards=attack_forwards + perturbing + graphs + (natural == "value"),
        student_input_backwards=attack_backwards,
        student_full_backwards=perturbing + graphs,
        guide_forwards=0 if cached_guides else guides,
        guide_full_backwards=guides if train_guides else 0,
    )
