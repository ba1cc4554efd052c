"""Evaluation: natural accuracy, PGD, AutoAttack, any ART attack; every adversarial example verified first."""

from art_lbgat.evaluation.autoattack import AutoAttackResult, auto_attack
from art_lbgat.evaluation.suite import evaluate
from art_lbgat.evaluation.verify import verify

__all__ = ["AutoAttackResult", "auto_attack", "evaluate", "verify"]
