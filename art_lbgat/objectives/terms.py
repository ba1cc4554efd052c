"""Named loss terms and their weighted sum."""

from __future__ import annotations

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
    :raises ValueError: If every weight is 0, so that nothing would be trained.
    """
    loss: Tensor | None = None
    for value, weight in terms.values():
        if weight == 0:
            continue
        part = value if weight == 1 else weight * value
        loss = part if loss is None else loss + part
    if loss is None:
        raise ValueError(f"terms: every weight is 0 in {list(terms)}; at least one must be positive.")
    return loss
