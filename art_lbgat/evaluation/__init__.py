"""Evaluation: the attacks of the paper, AutoAttack, any ART attack; every adversarial example verified first.

Two complete uses::

    evaluate({"ours": classifier, "baseline": other}, x, y, eps=8 / 255)         # a row per classifier and attack
    sanity_checks(classifier, x, y, eps=8 / 255)                                 # whether the attacks can be believed

Inventory: :func:`evaluate` (``PAPER_SUITE`` names the paper's attacks), :func:`robustness_curve`, :func:`sanity_checks`
with :func:`masking_report`; :func:`auto_attack`; :func:`verify`; :class:`Accuracy`, a number with
its interval (:func:`wilson_interval`); :func:`paired_difference` of two methods, a :class:`Difference`.
"""

from art_lbgat.evaluation.attacks import verify
from art_lbgat.evaluation.autoattack import AutoAttackResult, auto_attack
from art_lbgat.evaluation.results import Accuracy, Difference, paired_difference, wilson_interval
from art_lbgat.evaluation.sanity import masking_report, sanity_checks
from art_lbgat.evaluation.suite import PAPER_SUITE, evaluate, robustness_curve

__all__ = [
    "PAPER_SUITE",
    "Accuracy",
    "AutoAttackResult",
    "Difference",
    "auto_attack",
    "evaluate",
    "masking_report",
    "paired_difference",
    "robustness_curve",
    "sanity_checks",
    "verify",
    "wilson_interval",
]
