"""Fast adversarial training (Fast-AT, arXiv 2001.03994): one step of the attack."""

from __future__ import annotations

import logging
from typing import Any

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from typing_extensions import Unpack

from art_lbgat.data import Stream
from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.trainers import defaults
from art_lbgat.trainers.madry import MadryTrainer

logger = logging.getLogger(__name__)


class FastATTrainer(MadryTrainer):
    """``CE(M_r(x_adv), y)``, ``x_adv`` from one FGSM step of ``1.25 * eps`` after a uniform start (Wong et al.).

    The cheapest adversarial training, and one that can overfit catastrophically: within an epoch PGD accuracy falls to
    0 while that against the training attack rises. Give ``validation_data``: robust accuracy there is measured with
    PGD-20, its collapse is reported in ``history.collapsed`` and the log, and ends the training with
    ``on_collapse="stop"``; the best epoch is kept either way. (The authors attack in train mode; here the attack is in
    eval mode, as for every trainer.)

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: An untargeted ART evasion attack on it; None is the paper's (eps 8/255, one step of 10/255).
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title = "Fast-AT"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        options: RunOptions | None = None,
        **run: Unpack[RunFields],
    ) -> None:
        super().__init__(classifier, defaults.fgsm(classifier) if attack is None else attack, options=options, **run)

    def _fit(self, stream: Stream, nb_epochs: int, validation_data: Any, batch_size: int, scheduler: Any) -> None:
        if validation_data is None:
            logger.warning("Fast-AT without validation_data: catastrophic overfitting would go unnoticed.")
        super()._fit(stream, nb_epochs, validation_data, batch_size, scheduler)
