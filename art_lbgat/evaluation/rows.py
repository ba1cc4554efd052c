"""Rows of the table, and the worst case over them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from art_lbgat.evaluation.accuracy import Accuracy
from art_lbgat.evaluation.plan import Threat, norm_name

if TYPE_CHECKING:
    import pandas

WHITE_BOX = "the source is the classifier itself: white-box, no transfer"


@dataclass(frozen=True)
class Row:
    """What came out under one attack.

    :param attack: Name of the attack.
    :param norm: ``"inf"``, ``"2"``, or empty where there is no ball.
    :param eps: Radius, in raw input units.
    :param steps: Gradient steps, or None where the attack has no fixed number.
    :param restarts: Starts (draws of noise), or None.
    :param right: Which samples count as right, bool ``(n,)``.
    :param seconds: Wall time, the making of transferred examples included.
    :param flags: Why the accuracy may be too high; warnings of AutoAttack.
    :param defended: Whether it is the accuracy of the classifier with a defence added, which no worst case takes in.
    """

    attack: str
    norm: str
    eps: float
    steps: int | None
    restarts: int | None
    right: Tensor
    seconds: float
    flags: tuple[str, ...] = ()
    defended: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The columns."""
        accuracy = Accuracy(int(self.right.sum()), len(self.right))
        low, high = accuracy.interval
        return {
            "attack": self.attack,
            "norm": self.norm,
            "eps": self.eps,
            "steps": self.steps,
            "restarts": self.restarts,
            "n": accuracy.n,
            "accuracy": accuracy.value,
            "low": low,
            "high": high,
            "seconds": self.seconds,
            "flags": "; ".join(self.flags),
        }


def worst_row(rows: Sequence[Row], threat: Threat) -> Row:
    """A sample counts if it counts in every row; rows of a classifier with a defence added are left out.

    :param rows: The other rows of the same classifier on the same samples, at least one without a defence.
    :param threat: The ball.
    """
    start = time.perf_counter()
    judged = [row for row in rows if not row.defended]
    right = torch.stack([row.right for row in judged]).all(dim=0)
    notes = tuple(dict.fromkeys(flag for row in judged for flag in row.flags if flag != WHITE_BOX))
    return Row("worst", norm_name(threat.norm), threat.eps, None, None, right, time.perf_counter() - start, notes)


def as_table(rows: Mapping[str | None, Sequence[Row]]) -> pandas.DataFrame:
    """The rows of all classifiers as one table, with a column ``model`` unless the one classifier has no name.

    :param rows: The rows by name of the classifier; None for one without a name.
    """
    import pandas

    named = [({} if name is None else {"model": name}) | row.as_dict() for name, each in rows.items() for row in each]
    return pandas.DataFrame(named).astype({"steps": "Int64", "restarts": "Int64"})
