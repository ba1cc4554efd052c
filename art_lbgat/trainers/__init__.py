"""Trainers: one class per method, all on the loop of :class:`~art_lbgat.trainers.base.BaseTrainer`."""

from art_lbgat.trainers.alp import ALPTrainer
from art_lbgat.trainers.bgat import BGATTrainer
from art_lbgat.trainers.fast_at import FastATTrainer
from art_lbgat.trainers.lbgat import LBGATTrainer
from art_lbgat.trainers.madry import MadryTrainer
from art_lbgat.trainers.mart import MARTTrainer
from art_lbgat.trainers.natural import NaturalTrainer
from art_lbgat.trainers.trades import TRADESTrainer

__all__ = [
    "ALPTrainer",
    "BGATTrainer",
    "FastATTrainer",
    "LBGATTrainer",
    "MARTTrainer",
    "MadryTrainer",
    "NaturalTrainer",
    "TRADESTrainer",
]
