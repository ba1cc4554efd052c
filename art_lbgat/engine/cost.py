"""What a training step costs, in passes."""

from __future__ import annotations

from dataclasses import dataclass


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
