"""Black-box transfer: examples made on one classifier, judged on another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from art_lbgat.classifier import JudgedView, TensorView, check_classifier
from art_lbgat.evaluation.gradient import gradient_examples
from art_lbgat.evaluation.plan import TRANSFER_STEPS, Threat
from art_lbgat.evaluation.subject import Subject, make_subject


class Sources:
    """Classifiers that examples are made on; the examples of each are made once, when they are first asked for.

    :param sources: Names and classifiers, or None.
    :param subjects: The classifiers that will be judged.
    :param threat: The ball and the search of the PGD-20 that makes the examples.
    :raises TypeError: If it is no mapping.
    :raises ValueError: A source with other ``input_shape``, ``nb_classes`` or ``clip_values``, or NaN or Inf in its
        natural logits.
    """

    def __init__(
        self, sources: Mapping[str, PyTorchClassifier] | None, subjects: Mapping[Any, Subject], threat: Threat
    ) -> None:
        check_sources(sources)
        self._threat = threat
        self._made: dict[str, tuple[Tensor, float]] = {}
        self._subjects: dict[str, Subject] = {}
        for name, classifier in (sources or {}).items():
            view = JudgedView(classifier, f"sources[{name!r}]")
            for subject in subjects.values():
                check_source(view, subject.view)
            first = next(iter(subjects.values()))
            self._subjects[name] = make_subject(view, first.x, first.y, first.batch_size, first.seed)

    @property
    def names(self) -> list[str]:
        """The names, in the order given."""
        return list(self._subjects)

    def same_model(self, name: str, view: TensorView) -> bool:
        """Whether a source is the judged model itself, so that its row is white-box and no transfer.

        :param name: The source.
        :param view: The judged classifier.
        """
        return self._subjects[name].view.module is view.module

    def examples(self, name: str) -> tuple[Tensor, float]:
        """PGD-20 examples of all samples on a source, and the seconds it took to make them.

        :param name: The source.
        """
        if name not in self._made:
            start, source = time.perf_counter(), self._subjects[name]
            ascent = self._threat.ascent(TRANSFER_STEPS, "ce")
            x_adv = gradient_examples(source, ascent, self._threat.restarts, torch.ones_like(source.right))
            self._made[name] = x_adv, time.perf_counter() - start
        return self._made[name]


def check_sources(sources: Any) -> None:
    """Refuse what is neither None nor a mapping from names to classifiers.

    :param sources: What came.
    :raises TypeError: If it is anything else.
    """
    if sources is None:
        return
    if not isinstance(sources, Mapping):
        raise TypeError(f"sources: expected a mapping from names to classifiers, got {type(sources).__name__}.")
    for name, classifier in sources.items():
        check_classifier(classifier, f"sources[{name!r}]")


def check_source(source: TensorView, judged: TensorView) -> None:
    """Refuse a source whose examples the judged classifier cannot be given.

    :param source: The source.
    :param judged: The judged classifier.
    :raises ValueError: Different ``input_shape``, ``nb_classes`` or ``clip_values``.
    """
    theirs, ours = source.classifier, judged.classifier
    pairs = {
        "input_shape": (tuple(theirs.input_shape), tuple(ours.input_shape)),
        "nb_classes": (theirs.nb_classes, ours.nb_classes),
        "clip_values": (_range(theirs.clip_values), _range(ours.clip_values)),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise ValueError(
                f"{source.name}: its {name} is {found}, that of {judged.name} is {expected}; expected the same, since "
                "both are given the same images."
            )


def _range(clip_values: Any) -> Any:
    if clip_values is None:
        return None
    low, high = (np.unique(np.asarray(value, dtype=np.float64)).tolist() for value in clip_values)
    return (low[0], high[0]) if len(low) == len(high) == 1 else tuple(np.asarray(v).tolist() for v in clip_values)
