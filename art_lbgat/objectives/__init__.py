"""Objectives: pure functions from logits to named loss terms.

Two complete uses::

    terms = {**mse(adversarial, guide), **guide_cross_entropy(guide, y, weight=1.0)}     # LBGAT
    loss = total({**terms, **trades(adversarial, natural, weight=6.0)})                   # LBGAT + TRADES

Every function takes raw logits of shape ``(N, C)`` and returns a dictionary from the name of a term to a
:class:`Term` (the unweighted value and its weight), so that a history can show each term by itself.
"""

from art_lbgat.objectives.guidance import GUIDANCE, Guidance, check_guidance, guide_cross_entropy, kd, kl, mse, mse_ce
from art_lbgat.objectives.regularizers import REGULARIZERS, Regularizer, alp, mart, trades
from art_lbgat.objectives.supervised import adversarial_cross_entropy, boosted_cross_entropy, natural_cross_entropy
from art_lbgat.objectives.terms import Term, Terms, total

__all__ = [
    "GUIDANCE",
    "REGULARIZERS",
    "Guidance",
    "Regularizer",
    "Term",
    "Terms",
    "adversarial_cross_entropy",
    "alp",
    "boosted_cross_entropy",
    "check_guidance",
    "guide_cross_entropy",
    "kd",
    "kl",
    "mart",
    "mse",
    "mse_ce",
    "natural_cross_entropy",
    "total",
    "trades",
]
