"""What RobustBench calls standard: the test set, the radius and the number of images of each leaderboard."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

from art_lbgat.checks import check_choice

Dataset: TypeAlias = Literal["cifar10", "cifar100", "imagenet"]
ThreatModel: TypeAlias = Literal["Linf", "L2", "corruptions", "corruptions_3d"]
DATASETS = ("cifar10", "cifar100", "imagenet")
THREAT_MODELS = ("Linf", "L2", "corruptions", "corruptions_3d")
NB_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
INPUT_SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "imagenet": (3, 224, 224)}
N_EXAMPLES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
NORMS = {"Linf": math.inf, "L2": 2.0}


class Radius(NamedTuple):
    """A published radius.

    :param value: In units of inputs in [0, 1].
    :param text: As the leaderboard writes it.
    """

    value: float
    text: str


EPS = {
    ("cifar10", "Linf"): Radius(8 / 255, "8/255"),
    ("cifar10", "L2"): Radius(0.5, "0.5"),
    ("cifar100", "Linf"): Radius(8 / 255, "8/255"),
    ("imagenet", "Linf"): Radius(4 / 255, "4/255"),
}
"""The radius of each leaderboard of adversarial examples."""


def check_dataset(dataset: str) -> Dataset:
    """``dataset`` if RobustBench has it.

    :param dataset: What came.
    :raises ValueError: If it has not.
    """
    found: Dataset = check_choice(dataset, "dataset", DATASETS)
    return found


def check_threat_model(threat_model: str) -> ThreatModel:
    """``threat_model`` if RobustBench has it.

    :param threat_model: What came.
    :raises ValueError: If it has not.
    """
    found: ThreatModel = check_choice(threat_model, "threat_model", THREAT_MODELS)
    return found


def is_published_eps(dataset: str, threat_model: str, eps: float | None) -> bool:
    """Whether ``eps`` is the radius of that leaderboard, to 1e-6; None only where there is none (corruptions).

    :param dataset: The data set.
    :param threat_model: The threat model.
    :param eps: The radius, or None.
    """
    published = EPS.get((dataset, threat_model))
    if eps is None or published is None:
        return eps is None and published is None
    return math.isclose(eps, published.value, rel_tol=0, abs_tol=1e-6)
