"""RobustBench's own ``benchmark`` run with an AutoAttack that can be stopped and goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.attacks import verify
from art_lbgat.evaluation.autoattack import AutoAttackResult, UnitModel, attack_images, attack_names, needs_gradients
from art_lbgat.evaluation.record import data_sha256
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.evaluation.subject import RANDOMISED, health_flags, measure_health, predict, probed, require_gradients
from art_lbgat.robustbench.images import BenchmarkImages, Preprocessing
from art_lbgat.robustbench.standard import NORMS, Dataset, ThreatModel
from art_lbgat.robustbench_import import with_globals

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`~art_lbgat.robustbench.benchmark.benchmark`, checked."""

    dataset: Dataset
    threat_model: ThreatModel
    eps: float | None
    attacks: str | Sequence[str]
    batch_size: int
    seed: int
    state_path: str | os.PathLike[str] | None
    preprocessing: Preprocessing
    model_name: str | None
    verbose: bool


class Measured(NamedTuple):
    """The fields of :class:`~art_lbgat.robustbench.result.BenchmarkResult` that are measured."""

    natural: Accuracy
    robust: Accuracy
    attacks: Mapping[str, float]
    corruptions: Mapping[str, tuple[float, ...]]
    flags: Mapping[str, str]
    seconds: Mapping[str, float]
    data_sha256: str


def measure_adversarial(
    package: Any, view: TensorView, model: UnitModel, images: BenchmarkImages, settings: Settings
) -> Measured:
    """Natural accuracy and accuracy under AutoAttack, both counted by RobustBench's ``benchmark``.

    :param package: The package ``robustbench``.
    :param view: The classifier.
    :param model: ``UnitModel(view)``, in eval mode.
    :param images: What is judged.
    :param settings: How.
    :return: What was measured.
    :raises ValueError: Logits that are not finite, adversarial examples outside the ball, a state file of another run.
    """
    if settings.eps is None:
        raise ValueError(f"eps: expected a radius for {settings.threat_model}, got None.")
    eps, norm = settings.eps, NORMS[settings.threat_model]
    noticed = probe(view, model, images, settings)
    outcomes: list[AutoAttackResult] = []

    class Attack:
        """What RobustBench's ``benchmark`` takes for AutoAttack."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run_standard_evaluation(self, x: Tensor, y: Tensor, **_: Any) -> Tensor:
            """The adversarial examples of all images."""
            options: dict[str, Any] = {"state_path": settings.state_path, "verbose": settings.verbose}
            outcome = attack_images(
                view, model, x, y, eps, norm, settings.attacks, settings.batch_size, settings.seed, **options
            )
            outcomes.append(outcome)
            return outcome.x_adv

    judge = with_globals(
        package.eval.benchmark,
        AutoAttack=Attack,
        load_clean_dataset=lambda *_: (images.x, images.y),
        print=_logger.info,
    )
    shares = judge(
        model,
        n_examples=len(images.x),
        dataset=settings.dataset,
        threat_model=settings.threat_model,
        device=view.device,
        batch_size=settings.batch_size,
        eps=eps,
        preprocessing=_as_it_is,
    )
    if len(outcomes) != 1:
        raise RuntimeError(
            f"robustbench: expected its benchmark to run AutoAttack once, it ran it {len(outcomes)} times; this "
            "version of robustbench is not supported."
        )
    (outcome,) = outcomes
    unit = torch.zeros(()), torch.ones(())
    verify(images.x, outcome.x_adv, eps, norm, unit, 1.0, "AutoAttack")
    natural, robust = (Accuracy(round(share * len(images.x)), len(images.x)) for share in shares)
    flags = {**noticed, **outcome.flags}
    counted = int(outcome.right.sum()), int(outcome.robust.sum())
    if (natural.correct, robust.correct) != counted:
        # Asked for the same images twice, the model answered differently.
        flags.setdefault(
            RANDOMISED,
            f"{counted} samples were right naturally and under attack, but {(natural.correct, robust.correct)} when "
            "the same images were judged again.",
        )
        robust = Accuracy(min(robust.correct, natural.correct, counted[1]), robust.n)
    digest = data_sha256(images.x, images.y)
    return Measured(natural, robust, outcome.accuracies, {}, flags, outcome.seconds, digest)


def probe(view: TensorView, model: UnitModel, images: BenchmarkImages, settings: Settings) -> dict[str, str]:
    """Flags of what makes a high number meaningless, measured on natural images, whatever is run on them.

    :param view: The classifier.
    :param model: ``UnitModel(view)``, in eval mode.
    :param images: What is judged.
    :param settings: How.
    :return: Messages by flag.
    :raises ValueError: Natural logits with NaN or Inf, or without a graph to the inputs where gradients are needed.
    """
    rows = probed(len(images.x))  # a pass over all images is the attack's, which looks for NaN and Inf too
    x, y, size, seed = model.to_raw(images.x[rows]), images.y[rows], settings.batch_size, settings.seed
    found = measure_health(view, x, y, predict(view, x, size, seed), size, seed)
    if found.nonfinite:
        raise ValueError("classifier: its logits for natural images hold NaN or Inf, so no accuracy has a meaning.")
    if settings.threat_model in NORMS and needs_gradients(
        attack_names(settings.attacks, view.classifier.nb_classes)[0]
    ):
        require_gradients(found, "classifier")
    return health_flags(found)


def _as_it_is(image: Any) -> Any:
    """The preprocessing that ``benchmark`` wants to be named; the images are loaded already."""
    return image
