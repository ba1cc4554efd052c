"""Every trainer in one table; a test over every trainer takes a line from here."""

import numpy as np

from art_lbgat import (
    ALPTrainer,
    BGATTrainer,
    FastATTrainer,
    LBGATTrainer,
    MadryTrainer,
    MARTTrainer,
    NaturalTrainer,
    TRADESTrainer,
)
from art_lbgat.attacks import PGDAttack, TRADESAttack
from tests.conftest import make_classifier

OPTIONS = {"seed": 3, "verbose": False}


def pgd(classifier, **kwargs):
    return PGDAttack(classifier, **{"eps": 0.03, "eps_step": 0.015, "max_iter": 2, **kwargs})


def trades(classifier, **kwargs):
    return TRADESAttack(classifier, **{"eps": 0.03, "eps_step": 0.015, "max_iter": 2, **kwargs})


def another(classifier):
    """A guide for ``classifier``: the same declarations, other weights."""
    clip = classifier.clip_values
    if clip is not None:
        clip = (float(clip[0]), float(clip[1])) if np.ndim(clip) == 1 else tuple(clip)
    return make_classifier(
        seed=1, lr=0.02, shape=classifier.input_shape, classes=classifier.nb_classes, clip_values=clip
    )


def natural(classifier, guide=None, attack=None, **kwargs):
    return NaturalTrainer(classifier, **{**OPTIONS, **kwargs})


def madry(classifier, guide=None, attack=None, **kwargs):
    return MadryTrainer(classifier, attack or pgd(classifier), **{**OPTIONS, **kwargs})


def alp(classifier, guide=None, attack=None, **kwargs):
    return ALPTrainer(classifier, attack or pgd(classifier), **{**OPTIONS, **kwargs})


def trades_trainer(classifier, guide=None, attack=None, **kwargs):
    return TRADESTrainer(classifier, attack or trades(classifier), **{**OPTIONS, **kwargs})


def mart(classifier, guide=None, attack=None, **kwargs):
    return MARTTrainer(classifier, attack or pgd(classifier), **{**OPTIONS, **kwargs})


def fast_at(classifier, guide=None, attack=None, **kwargs):
    attack = attack or pgd(classifier, eps_step=0.0375, max_iter=1)
    return FastATTrainer(classifier, attack, **{**OPTIONS, **kwargs})


def bgat(classifier, guide=None, attack=None, **kwargs):
    return BGATTrainer(classifier, guide or another(classifier), attack or pgd(classifier), **{**OPTIONS, **kwargs})


def lbgat(classifier, guide=None, attack=None, **kwargs):
    return LBGATTrainer(classifier, guide or another(classifier), attack or pgd(classifier), **{**OPTIONS, **kwargs})


TRAINERS = {
    "natural": natural,
    "madry": madry,
    "alp": alp,
    "trades": trades_trainer,
    "mart": mart,
    "fast-at": fast_at,
    "bgat": bgat,
    "lbgat": lbgat,
}
ADVERSARIAL = {name: build for name, build in TRAINERS.items() if name != "natural"}
