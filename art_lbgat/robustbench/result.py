"""What RobustBench calls standard, and what a benchmark found, with everything that says what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from art_lbgat.checks import check_choice, check_count, check_kind, check_number, check_path, check_text
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.files import write_text
from art_lbgat.processes import declared_world, is_main_process

THREAT_MODELS = ("Linf", "L2", "corruptions", "corruptions_3d")
NB_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
INPUT_SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "imagenet": (3, 224, 224)}
N_EXAMPLES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
NORMS = {"Linf": math.inf, "L2": 2.0}


class Radius(NamedTuple):
    """A published radius in units of inputs in [0, 1], and as the leaderboard writes it."""

    value: float
    text: str


EPS = {
    ("cifar10", "Linf"): Radius(8 / 255, "8/255"),
    ("cifar10", "L2"): Radius(0.5, "0.5"),
    ("cifar100", "Linf"): Radius(8 / 255, "8/255"),
    ("imagenet", "Linf"): Radius(4 / 255, "4/255"),
}
"""The radius of each leaderboard of adversarial examples."""

UNLISTED = ("randomised", "softmax", "dynamic", "non-finite logits", "batch dependent")
"""Flags of which RobustBench's rules say that AutoAttack is no measure of such a defence."""


def check_board(dataset: str, threat_model: str) -> None:
    """ValueError unless RobustBench has such a data set and such a threat model."""
    check_choice(dataset, "dataset", NB_CLASSES)
    check_choice(threat_model, "threat_model", THREAT_MODELS)


def eps_text(dataset: str, threat_model: str, eps: float | None) -> str | None:
    """A radius as the leaderboard writes it: ``"8/255"`` where it is the published one, else a decimal number."""
    published = EPS.get((dataset, threat_model))
    if eps is not None and published is not None and math.isclose(eps, published.value, rel_tol=0, abs_tol=1e-6):
        return published.text
    return None if eps is None else f"{eps:.6g}"


def differences_from_standard(dataset: str, threat_model: str, eps: float | None, n: int) -> tuple[str, ...]:
    """How ``n`` images evaluated at radius ``eps`` differ from the standard of RobustBench; empty if they do not."""
    found = []
    published, written = EPS.get((dataset, threat_model)), eps_text(dataset, threat_model, eps)
    if threat_model in NORMS and published is None:
        found.append(f"there is no leaderboard for {dataset} {threat_model}")
    elif published is not None and written != published.text:
        found.append(f"eps {written} instead of {published.text}")
    if n != N_EXAMPLES[dataset]:
        found.append(f"{n:,} images instead of {N_EXAMPLES[dataset]:,}")
    return tuple(found)


@dataclass(frozen=True)
class BenchmarkResult:
    """One row that can stand beside a leaderboard, or says why it cannot.

    :param model_name: What the model is called.
    :param architecture: Its architecture, as far as it is known.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"``.
    :param eps: Radius, in units of inputs in [0, 1]; None for corruptions.
    :param natural: Accuracy on unperturbed images.
    :param robust: Accuracy under attack; for corruptions of all kinds and severities together.
    :param attacks: Accuracy after each attack of AutoAttack, each on what the ones before left, in [0, 1].
    :param corruptions: Accuracy of each kind of corruption, a number for each severity, in [0, 1].
    :param flags: The message of what was noticed, by name, such as ``"randomised"``, ``"softmax"``, ``"few classes"``.
    :param differences: How else than in radius and images, which are added, this differs from RobustBench's standard.
    :param seed: Seed of the attacks, of each batch alike.
    :param batch_size: Images attacked together; random starts of AutoAttack depend on it.
    :param weights_sha256: SHA-256 of all parameters and buffers.
    :param data_sha256: SHA-256 of the images and labels evaluated.
    :param versions: Version of each library that had a part in it.
    :param device: Where it ran.
    :param seconds: Seconds of work on each part, over all sessions; does not count in a comparison.
    """

    model_name: str
    architecture: str
    dataset: str
    threat_model: str
    eps: float | None
    natural: Accuracy
    robust: Accuracy
    attacks: Mapping[str, float]
    corruptions: Mapping[str, tuple[float, ...]]
    flags: Mapping[str, str]
    differences: tuple[str, ...]
    seed: int
    batch_size: int
    weights_sha256: str
    data_sha256: str
    versions: Mapping[str, str]
    device: str
    seconds: Mapping[str, float] = field(compare=False)

    def __post_init__(self) -> None:
        for name in ("model_name", "architecture", "weights_sha256", "data_sha256", "device"):
            check_text(getattr(self, name), name)
        for name in ("attacks", "corruptions", "flags", "versions", "seconds"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name}: expected a mapping, got {getattr(self, name)!r}.")
        for name in ("natural", "robust"):
            accuracy = check_kind(getattr(self, name), name, Accuracy)
            check_count(accuracy.n, f"{name}.n")
            if check_count(accuracy.correct, f"{name}.correct", minimum=0) > accuracy.n:
                raise ValueError(f"{name}: expected at most n={accuracy.n} correct, got {accuracy.correct}.")
        if not isinstance(self.differences, tuple) or not all(isinstance(each, str) for each in self.differences):
            raise TypeError(f"differences: expected a tuple of texts, got {self.differences!r}.")
        check_count(self.seed, "seed", minimum=0)
        check_count(self.batch_size, "batch_size")
        check_board(self.dataset, self.threat_model)
        if self.threat_model in NORMS:
            check_number(self.eps, "eps", exclusive=True)
            if self.robust.n != self.natural.n or self.robust.correct > self.natural.correct:
                expected = f"at most {self.natural.correct} of {self.natural.n}, as many as are right naturally"
                raise ValueError(f"robust: expected {expected}, got {self.robust.correct} of {self.robust.n}.")
        elif self.eps is not None:
            raise ValueError(f"eps: expected None under {self.threat_model}, where nothing attacks, got {self.eps!r}.")
        own = differences_from_standard(self.dataset, self.threat_model, self.eps, self.natural.n)
        object.__setattr__(self, "differences", tuple(dict.fromkeys([*own, *self.differences])))

    @property
    def standard(self) -> bool:
        """Whether this is a number by RobustBench's standard, of a defence that it would list."""
        return self.label == "RobustBench standard"

    @property
    def label(self) -> str:
        """``"RobustBench standard"``, or what differs from it and the flags of defences that it does not list."""
        reasons = [*self.differences, *(f"flagged {flag}" for flag in self.flags if flag in UNLISTED)]
        return "not RobustBench standard: " + "; ".join(reasons) if reasons else "RobustBench standard"

    def to_frame(self) -> pd.DataFrame:
        """One row: the model, accuracies in [0, 1] with ``_low`` and ``_high``, attacks, flags, label, time."""
        row: dict[str, Any] = {"model": self.model_name}
        row |= {name: getattr(self, name) for name in ("architecture", "dataset", "threat_model", "eps")}
        row["n"] = self.natural.n
        for name, accuracy in (("natural", self.natural), ("robust", self.robust)):
            low, high = accuracy.interval
            row |= {name: accuracy.value, f"{name}_low": low, f"{name}_high": high}
        last = {"flags": "; ".join(self.flags), "label": self.label, "seconds": sum(self.seconds.values())}
        return pd.DataFrame([{**row, **self.attacks, **last}])

    def to_json(self) -> str:
        """Everything, as JSON that :meth:`from_json` reads."""
        return json.dumps(dataclasses.asdict(self) | {"label": self.label}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> BenchmarkResult:
        """The result that :meth:`to_json` wrote.

        :param text: The text.
        :raises ValueError: If the text is no such result; its label is not read but follows from the differences.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            values.pop("label", None)
            values |= {name: Accuracy(*values[name]) for name in ("natural", "robust")}
            values["corruptions"] = {kind: tuple(each) for kind, each in values["corruptions"].items()}
            return cls(**{**values, "differences": tuple(values["differences"])})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"text: expected what BenchmarkResult.to_json wrote ({error}).") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json` to a file; of several processes the main one does.

        :param path: The file; one that exists is replaced.
        """
        if declared_world() == 1 or is_main_process():
            write_text(check_path(path, "path"), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BenchmarkResult:
        """Read what :meth:`save` wrote.

        :param path: The file.
        :raises ValueError: If the file is no such result.
        """
        place = check_path(path, "path")
        try:
            return cls.from_json(place.read_text(encoding="utf-8"))
        except ValueError as error:  # also bytes that are no text
            raise ValueError(f"path: {path} is no result of a benchmark ({error})") from error

    def __str__(self) -> str:
        """Two lines: the numbers with their intervals, and what they are."""
        radius = "" if self.eps is None else f", eps {self.eps:.5g}"
        flags = f"\nflags: {'; '.join(self.flags)}" if self.flags else ""
        return (
            f"{self.model_name}, {self.dataset} {self.threat_model}{radius}, n = {self.natural.n}: "
            f"natural {self.natural}, robust {self.robust}\n{self.label}{flags}"
        )
