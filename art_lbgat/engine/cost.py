"""What a training step costs, in passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Cost:
    """Passes of one training step. A forward is the unit; a backward to the input costs one, a full one two."""

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
    perturbs_weights: bool = False,
) -> Cost:
    """The floor of unavoidable passes of one training step."""
    graphs = adversarial + (natural == "graph")
    perturbing = graphs if perturbs_weights else 0
    return Cost(
        student_forwards=attack_forwards + perturbing + graphs + (natural == "value"),
        student_input_backwards=attack_backwards,
        student_full_backwards=perturbing + graphs,
        guide_forwards=guides,
        guide_full_backwards=guides if train_guides else 0,
    )
