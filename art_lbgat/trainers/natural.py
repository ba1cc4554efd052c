"""Natural training: the guide of BGAT, and the baseline that is not robust."""

from __future__ import annotations

from collections.abc import Mapping

from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from typing_extensions import Unpack

from art_lbgat.engine.options import RunFields, RunOptions
from art_lbgat.losses import Terms, natural_cross_entropy
from art_lbgat.trainers.base import BaseTrainer


class NaturalTrainer(BaseTrainer):
    """``CE(M(x), y)`` on natural images, in the same loop as the robust trainers.

    :param classifier: The classifier to train, with an optimizer.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    """

    title = "Natural"

    def __init__(
        self, classifier: PyTorchClassifier, *, options: RunOptions | None = None, **run: Unpack[RunFields]
    ) -> None:
        super().__init__(classifier, None, natural="graph", options=options, run=run)

    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        return natural_cross_entropy(logits["natural"], y)
