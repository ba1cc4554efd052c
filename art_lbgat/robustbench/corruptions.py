"""Accuracy on common corruptions (arXiv 1903.12261), each kind at five severities, by RobustBench's loaders."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack import NATURAL, UnitModel
from art_lbgat.evaluation.record import Entry, Record, data_sha256, model_identity, sharing
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.preserve import preserved_randomness
from art_lbgat.robustbench.adversarial import Measured, Settings, probe
from art_lbgat.robustbench.images import BenchmarkImages, missing_data
from art_lbgat.robustbench.standard import Dataset, ThreatModel

SEVERITIES = (1, 2, 3, 4, 5)


def corruption_kinds(package: Any, dataset: Dataset, threat_model: ThreatModel) -> tuple[str, ...]:
    """The kinds of corruption of a leaderboard.

    :param package: The ``robustbench`` package.
    :param dataset: The data set.
    :param threat_model: ``"corruptions"`` or ``"corruptions_3d"``.
    :raises ValueError: If there is none for the data set.
    """
    enums = package.model_zoo.enums
    kinds = package.data.CORRUPTIONS_DICT[enums.BenchmarkDataset(dataset)]
    if enums.ThreatModel(threat_model) not in kinds:
        raise ValueError(f"threat_model: RobustBench has no {threat_model} for {dataset}.")
    found: tuple[str, ...] = tuple(kinds[enums.ThreatModel(threat_model)])
    return found


def measure_corruptions(
    package: Any, view: TensorView, model: UnitModel, images: BenchmarkImages, settings: Settings, data_dir: Path
) -> Measured:
    """Natural accuracy, and the mean accuracy over all kinds and severities.

    RobustBench's own sum cannot be used: it hands the CIFAR loaders an argument that they do not have, and relates
    errors to a file that is not shipped. The mean is the same. Its interval takes the corrupted copies of an image for
    independent, so it is too narrow. Each of several processes judges all images; the main one alone has the record.

    :param package: The package ``robustbench``.
    :param view: The classifier.
    :param model: ``UnitModel(view)``, in eval mode.
    :param images: The natural images; as many of each kind and severity are judged.
    :param settings: How.
    :param data_dir: Holds ``CIFAR-10-C``, ``CIFAR-100-C``, ``ImageNet-C`` or ``ImageNet-3DCC``.
    :return: What was measured.
    :raises FileNotFoundError: If a file is not there and cannot be fetched.
    :raises ValueError: Logits that are not finite; a state file of another run.
    """
    load, folder = _loader(package, settings, data_dir)
    noticed = probe(view, model, images, settings)
    judged: list[str] = []
    identity = {} if settings.state_path is None else {
        "threat_model": settings.threat_model,
        "n": len(images.x),
        **model_identity(view),
        "data": data_sha256(images.x, images.y),
        "folder": str(folder.resolve()),
    }  # fmt: skip
    counts: dict[str, list[Accuracy]] = {}
    seconds: dict[str, float] = {}
    kinds = corruption_kinds(package, settings.dataset, settings.threat_model)
    parts = [(NATURAL, 0), *((kind, severity) for kind in kinds for severity in SEVERITIES)]
    with (
        sharing(view.device) as shared,
        shared.every(lambda: Record(settings.state_path if shared.is_main else None, identity)) as record,
        torch.no_grad(),
    ):
        bar = tqdm(parts, desc=settings.threat_model, disable=not (settings.verbose and shared.is_main))
        for kind, severity in bar:

            def loaded(kind: str = kind, severity: int = severity) -> tuple[Tensor, Tensor]:
                """The images of this part, which may have to be fetched."""
                with missing_data(f"{kind} in {folder}", f"the published folder {folder.name} into {data_dir}"):
                    return load(len(images.x), severity, kind)

            x, y = (images.x, images.y) if kind == NATURAL else shared.main_first(loaded)
            judged.append(data_sha256(x, y))
            entry = record.get(kind, severity)
            if entry is None:
                start = time.perf_counter()
                right = _right(model, x, y, settings.batch_size, view.device)
                # the empty second tensor says how many there were
                noted = {"data": judged[-1]}
                found = Entry(right.nonzero().flatten(), torch.empty(len(right), 0), noted, time.perf_counter() - start)
                entry = record.add(kind, found, severity)
            elif entry.flags["data"] != judged[-1]:
                raise ValueError(
                    f"state_path: the images of {kind}, severity {severity}, are not those that were recorded, so "
                    "going on would mix two. Take another path, or delete the file."
                )
            counts.setdefault(kind, []).append(Accuracy(len(entry.rows), len(entry.x_adv)))
            seconds[kind] = seconds.get(kind, 0.0) + entry.seconds
            bar.set_postfix_str(f"{kind} {counts[kind][-1].value:.2%}")
    (natural,) = counts.pop(NATURAL)
    every = [count for each in counts.values() for count in each]
    total = Accuracy(sum(count.correct for count in every), sum(count.n for count in every))
    accuracies = {kind: tuple(count.value for count in each) for kind, each in counts.items()}
    digest = hashlib.sha256("".join(judged).encode()).hexdigest()
    return Measured(natural, total, {}, accuracies, noticed, seconds, digest)


def _loader(
    package: Any, settings: Settings, data_dir: Path
) -> tuple[Callable[[int, int, str], tuple[Tensor, Tensor]], Path]:
    """RobustBench's loader as a function of number of images, severity and kind; and the folder it reads."""
    enums = package.model_zoo.enums
    dataset, threat = enums.BenchmarkDataset(settings.dataset), enums.ThreatModel(settings.threat_model)
    loader = package.data.CORRUPTION_DATASET_LOADERS[dataset][threat]
    folder = data_dir / package.data.CORRUPTIONS_DIR_NAMES[dataset][threat]
    options: dict[str, Any] = {}
    # Corrupted images are cropped already, so always the same; the loaders of CIFAR take no such argument.
    if settings.dataset == "imagenet":
        options["prepr"] = package.data.get_preprocessing(dataset, threat, settings.model_name, "Res224")

    def load(n_examples: int, severity: int, kind: str) -> tuple[Tensor, Tensor]:
        """The images of one kind and severity."""
        with preserved_randomness():
            x, y = loader(n_examples, severity, str(data_dir), corruptions=[kind], **options)
        return x, y

    return load, folder


def _right(model: UnitModel, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Which images are classified as labelled, ``(N,)``, bool."""
    chunks = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    right = torch.cat([model(images.to(device)).argmax(dim=1).cpu() == labels for images, labels in chunks])
    if model.non_finite:
        raise ValueError("classifier: its logits hold NaN or Inf, so no accuracy has a meaning.")
    return right
