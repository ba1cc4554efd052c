"""ART's own trainers against ours: same network, same batch, same number of attack steps, each through its ``fit``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import (
    AdversarialTrainerAWPPyTorch,
    AdversarialTrainerMadryPGD,
    AdversarialTrainerTRADESPyTorch,
)
from art.defences.trainer.trainer import Trainer
from art.estimators.classification import PyTorchClassifier

from art_lbgat import MadryTrainer, TRADESTrainer
from art_lbgat.attacks import PGDAttack, TRADESAttack
from qa.benchmarks.contestants import EPS, STEP, Task
from qa.benchmarks.models import CLASSES
from qa.benchmarks.report import Row, Settings, Target, Topic, Value
from qa.benchmarks.timing import Contestant, measure

BETA, GAMMA = 6.0, 5e-3


def _pgd(classifier: PyTorchClassifier, task: Task) -> ProjectedGradientDescent:
    return ProjectedGradientDescent(
        classifier, eps=EPS, eps_step=STEP, max_iter=task.k, num_random_init=1, batch_size=task.batch, verbose=False
    )


def _art_trades(task: Task) -> Trainer:
    classifier = task.classifier()
    return AdversarialTrainerTRADESPyTorch(classifier, _pgd(classifier, task), beta=BETA)


def _art_awp(task: Task) -> Trainer:
    classifier = task.classifier()
    attack = _pgd(classifier, task)
    return AdversarialTrainerAWPPyTorch(
        classifier, task.classifier(), attack, mode="TRADES", gamma=GAMMA, beta=BETA, warmup=0
    )


def _art_madry(task: Task) -> Trainer:
    classifier = task.classifier()
    made = AdversarialTrainerMadryPGD(classifier, eps=EPS, eps_step=STEP, max_iter=task.k, num_random_init=1)
    made.attack.set_params(batch_size=task.batch, verbose=False)  # its own attack goes in batches of 32
    return made.trainer


def _our_trades(task: Task) -> Trainer:
    classifier = task.classifier()
    attack = TRADESAttack(classifier, eps=EPS, eps_step=STEP, max_iter=task.k)
    return TRADESTrainer(classifier, attack, beta=BETA, seed=0, verbose=False)


def _our_awp(task: Task) -> Trainer:
    classifier = task.classifier()
    attack = TRADESAttack(classifier, eps=EPS, eps_step=STEP, max_iter=task.k)
    awp = {"awp_gamma": GAMMA, "awp_start_epoch": 1}
    return TRADESTrainer(classifier, attack, beta=BETA, seed=0, verbose=False, **awp)


def _our_madry(task: Task) -> Trainer:
    classifier = task.classifier()
    attack = PGDAttack(classifier, eps=EPS, eps_step=STEP, max_iter=task.k)
    return MadryTrainer(classifier, attack, seed=0, verbose=False)


PAIRS: dict[str, tuple[Callable[[Task], Trainer], Callable[[Task], Trainer]]] = {
    "TRADES a=6": (_our_trades, _art_trades),
    "PGD-AT (Madry)": (_our_madry, _art_madry),
    "TRADES-AWP a=6": (_our_awp, _art_awp),
}


def _fit(trainer: Trainer, task: Task) -> Contestant:
    x, y = task.data()
    one_hot = np.eye(CLASSES, dtype=np.float32)[y]

    def one_epoch() -> None:
        trainer.fit(x, one_hot, batch_size=task.batch, nb_epochs=1)

    return one_epoch


def run(settings: Settings) -> Topic:
    """ART's TRADES, Madry and AWP trainers against ours."""
    tasks = [Task("wrn-10-2", 64, steps=2), Task("digits-cnn", 64, steps=20)]
    if settings.toy:
        tasks = [Task("digits-cnn", 8, k=2, steps=2)]
    rows = []
    for task in tasks:
        for name, (make_ours, make_art) in PAIRS.items():
            contestants = {"ours": _fit(make_ours(task), task), "ART": _fit(make_art(task), task)}
            rounds = measure(contestants, settings.fewer, settings.limit)
            values: dict[str, Value] = {
                "ours, s": rounds.time("ours", task.steps),
                "ART, s": rounds.time("ART", task.steps),
                "ART / ours": rounds.ratio("ART", "ours"),
            }
            rows.append(Row(f"{name}, {task.model}, batch {task.batch}", values))
    notes = [
        "Seconds per step of one epoch through fit on both sides; ART's Madry trainer attacks whole batches, not of 32.",
        "TRADES: ART's attack ascends the cross-entropy, ours the KL, which takes one forward more.",
    ]
    targets = [Target("TRADES a=6, wrn-10-2, batch 64", "ART / ours", "at least", 1.3)]
    return Topic("ART's trainers, K = 10", rows, notes, [] if settings.toy else targets)
