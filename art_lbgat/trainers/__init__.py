"""Trainers: one class per method, all on :class:`~art_lbgat.trainers.base.BaseTrainer`."""

from art_lbgat.trainers.base import BaseTrainer
from art_lbgat.trainers.baselines import (
    ADRTrainer,
    ALPTrainer,
    FastATTrainer,
    MadryTrainer,
    MARTTrainer,
    NaturalTrainer,
    NFGSMTrainer,
    TRADESTrainer,
)
from art_lbgat.trainers.guided import BGATTrainer, HATTrainer, LBGATTrainer

#: The trainer of each method by its name in recipes and tables.
METHODS: dict[str, type[BaseTrainer]] = {
    "natural": NaturalTrainer,
    "madry": MadryTrainer,
    "alp": ALPTrainer,
    "trades": TRADESTrainer,
    "mart": MARTTrainer,
    "fast-at": FastATTrainer,
    "n-fgsm": NFGSMTrainer,
    "bgat": BGATTrainer,
    "lbgat": LBGATTrainer,
    "hat": HATTrainer,
    "adr": ADRTrainer,
}

__all__ = [
    "METHODS",
    "ADRTrainer",
    "ALPTrainer",
    "BGATTrainer",
    "FastATTrainer",
    "HATTrainer",
    "LBGATTrainer",
    "MARTTrainer",
    "MadryTrainer",
    "NFGSMTrainer",
    "NaturalTrainer",
    "TRADESTrainer",
]
