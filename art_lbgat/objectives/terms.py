"""Named loss terms and their weighted sum."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Term(NamedTuple):
    """One summand of a loss: ``weight * value``.

    :param value: The unweighted value, a scalar tensor.
    :param weight: Its factor in the loss; a term of weight 0 is reported, but adds nothing to the graph.
    """

    value: Tensor
    weight: float = 1.0


Terms = dict[str, Term]


def total(terms: Terms) -> Tensor:
    """The loss ``sum_i weight_i * value_i``, added in the order of the dictionary.

    :param terms: The named terms; at least one has a weight other than 0.
    :return: A scalar tensor.
    :raises TypeError: If it is no dictionary of :class:`Term`, or a value no tensor, or a weight no number.
    :raises ValueError: If every weight is 0, so that nothing would be trained; a value that is no scalar, or a weight
        that is not finite.
    """
    _check(terms)
    loss: Tensor | None = None
    for value, weight in terms.values():
        if weight == 0:
            continue
        part = value if weight == 1 else weight * value
        loss = part if loss is None else loss + part
    if loss is None:
        raise ValueError(f"terms: every weight is 0 in {list(terms)}; at least one must be positive.")
    return loss


def _check(terms: Terms) -> None:
    if not isinstance(terms, dict) or not all(isinstance(term, Term) for term in terms.values()):
        raise TypeError(f"terms: expected a dictionary from names to Term(value, weight), got {terms!r}.")
    for name, (value, weight) in terms.items():
        if not isinstance(value, Tensor) or isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"terms: expected a tensor and a number under {name!r}, got {value!r} and {weight!r}.")
        if value.ndim or not math.isfinite(weight):
            raise ValueError(
                f"terms: expected a scalar and a finite weight under {name!r}, got shape {tuple(value.shape)} and "
                f"{weight!r}."
            )
