"""What a training step costs, in passes."""

from __future__ import annotations

from dataclasses import dataclass

from art_lbgat.engine.step import Passes


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
    attack: tuple[int, int] | None, passes: Passes, *, guides: int, train_guides: bool, perturbs_weights: bool
) -> Cost:
    """The floor of unavoidable passes of one step; ``attack`` has the forwards and backwards of the attack, if any."""
    forwards, backwards = attack or (0, 0)
    graphs = (attack is not None) + (passes.natural == "graph") + (passes.helper_step is not None)
    full = 2 * graphs if perturbs_weights else graphs
    student = forwards + full + (passes.natural == "value") + len(passes.average)
    robust = passes.robust_guides
    others = (guides - robust) * len(passes.guide)
    return Cost(student, backwards, full, others + robust, guides if train_guides else 0)
