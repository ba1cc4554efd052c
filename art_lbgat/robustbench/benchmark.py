"""RobustBench's benchmark for any ART classifier: the same numbers, and what they need to be believed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from tqdm.auto import tqdm

from art_lbgat.checks import check_count, check_flag, check_number, check_optional, check_path, check_seed, check_text
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.attacks import verify
from art_lbgat.evaluation.autoattack import (
    NATURAL,
    UnitModel,
    attack_images,
    attack_names,
    needs_gradients,
    published_package,
)
from art_lbgat.evaluation.record import Entry, Record, model_identity, sharing
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.evaluation.subject import RANDOMISED, health_flags, measure_health, predict, probed, require_gradients
from art_lbgat.fingerprint import sha256_of, weights_sha256
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness
from art_lbgat.robustbench.images import CorruptedImages, Preprocessing, corrupted_images, load_images
from art_lbgat.robustbench.result import EPS, NB_CLASSES, NORMS, BenchmarkResult, check_board
from art_lbgat.robustbench.zoo import board_keys
from art_lbgat.robustbench_import import import_robustbench

_Path = str | os.PathLike[str] | None
_Attack = tuple[float, float, str | Sequence[str], int, int]  # eps, norm, attacks, batch_size, seed
SEVERITIES = (1, 2, 3, 4, 5)


def benchmark(
    classifier: PyTorchClassifier,
    dataset: str = "cifar10",
    threat_model: str = "Linf",
    eps: float | None = None,
    n_examples: int | None = None,
    *,
    data_dir: str | os.PathLike[str] = "./data",
    corruptions_data_dir: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing = None,
    attacks: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
    state_path: str | os.PathLike[str] | None = None,
    model_name: str | None = None,
    architecture: str | None = None,
    verbose: bool = True,
) -> BenchmarkResult:
    """Natural accuracy and accuracy under AutoAttack (or corruptions) on the test images of RobustBench.

    The numbers are those of RobustBench's ``benchmark`` on the same seed. The classifier is evaluated as a whole, in
    eval mode; modes and global generators are unchanged. Processes of torchrun each call this, and share the batches.

    :param classifier: The classifier. It is given images in its own ``clip_values``.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"``.
    :param eps: Radius in units of images in [0, 1], whatever the ``clip_values``; None for that of the leaderboard.
    :param n_examples: How many of the first images; None for all, which the standard wants.
    :param data_dir: Folder of torchvision's CIFAR, of ``test/<class>/<image>`` (your own), or of ImageNet's ``val``.
    :param corruptions_data_dir: Holds ``CIFAR-10-C`` and its like; None for ``data_dir``.
    :param preprocessing: For ImageNet: a name of RobustBench's ``PREPROCESSINGS``, or a callable from image to tensor.
    :param attacks: ``"standard"`` or a list of AutoAttack's attacks, which is labelled.
    :param batch_size: Images evaluated together; random starts of AutoAttack depend on it.
    :param seed: Seed of each batch of each attack.
    :param state_path: A directory for finished batches, from which the same call resumes when killed; None keeps none.
    :param model_name: What to call the model; None for its class. A name of the zoo decides the ImageNet preprocessing.
    :param architecture: What to call its architecture; None for its class.
    :param verbose: Whether progress bars are shown, with the accuracy so far and the time left.
    :return: The numbers with their intervals, and whether they are RobustBench standard.
    :raises ValueError: Bad arguments; a classifier that does not fit; logits not finite; a state of another run.
    :raises FileNotFoundError: If the images are not there and cannot be fetched, with what to put where.
    """
    check_path(data_dir, "data_dir")
    check_optional(check_path, corruptions_data_dir, "corruptions_data_dir")
    check_optional(check_path, state_path, "state_path")
    for name, text in (("model_name", model_name), ("architecture", architecture)):
        if text is not None and not check_text(text, name):
            raise ValueError(f"{name}: expected a text or None, got an empty one.")
    check_count(batch_size, "batch_size")
    check_seed(seed)
    check_flag(verbose, "verbose")
    model = UnitModel(view := TensorView(classifier, postprocess=True))
    names, _ = attack_names(attacks, classifier.nb_classes)  # checked before anything is loaded
    check_board(dataset, threat_model)
    eps, kinds = _radius(dataset, threat_model, eps), _corruption_kinds(dataset, threat_model, attacks)
    wanted = partial(load_images, dataset, threat_model, n_examples, Path(data_dir), preprocessing, model_name)
    with sharing(view.device) as shared:
        x, y, published = shared.main_first(wanted)  # which may have to be fetched
    _check_fit(classifier, x, y, dataset)
    with plain_autograd(view.device), preserved_randomness(), evaluating(view.module):
        rows = probed(len(x))  # a pass over all images is the attack's, which looks for NaN and Inf too
        flags = _health(view, model.to_raw(x[rows]), y[rows], batch_size, seed, not kinds and needs_gradients(names))
        if eps is None:
            source = corrupted_images(dataset, threat_model, model_name, Path(corruptions_data_dir or data_dir))
            board = (threat_model, kinds, *source)
            found = _under_corruptions(view, model, x, y, board, batch_size, state_path, verbose)
        else:
            attack = (eps, NORMS[threat_model], attacks, batch_size, seed)
            found = _under_attack(view, model, x, y, attack, state_path, verbose)
    own = type(classifier.model).__name__
    return BenchmarkResult(
        *(model_name or own, architecture or own, dataset, threat_model, eps),
        differences=tuple(_differences(published, attacks, classifier.nb_classes, NB_CLASSES[dataset])),
        seed=seed,
        batch_size=batch_size,
        weights_sha256=weights_sha256(view.module),
        versions=_versions(),
        device=str(view.device),
        **{"attacks": {}, "corruptions": {}, **found, "flags": {**flags, **found.get("flags", {})}},
    )


def _radius(dataset: str, threat_model: str, eps: float | None) -> float | None:
    """The radius to attack with; None where nothing attacks."""
    if threat_model not in NORMS:
        if eps is not None:
            raise ValueError(f"eps: expected None for {threat_model}, got {eps}.")
        return None
    if eps is not None:
        if check_number(eps, "eps", exclusive=True) > 1 and threat_model == "Linf":
            raise ValueError(f"eps: expected at most 1, in units of images in [0, 1] (such as 8/255), got {eps:g}.")
        return float(eps)
    if (dataset, threat_model) not in EPS:
        raise ValueError(f"eps: there is no leaderboard for {dataset} {threat_model}, expected a radius, got None.")
    return EPS[dataset, threat_model].value


def _corruption_kinds(dataset: str, threat_model: str, attacks: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds of corruption of a leaderboard; none where images are attacked."""
    if threat_model in NORMS:
        return ()
    kind, threat = board_keys(dataset, threat_model)
    kinds = import_robustbench().data.CORRUPTIONS_DICT[kind]
    if threat not in kinds:
        raise ValueError(f"threat_model: RobustBench has no {threat_model} for {dataset}.")
    if attacks != "standard":
        raise ValueError(f"attacks: expected 'standard' for {threat_model}, where nothing attacks, got {attacks!r}.")
    return tuple(kinds[threat])


def _check_fit(classifier: PyTorchClassifier, x: Tensor, y: Tensor, dataset: str) -> None:
    """Whether the classifier can be given these images at all."""
    shape, own = tuple(x.shape[1:]), tuple(classifier.input_shape)
    if own != shape:
        raise ValueError(f"classifier: expected input_shape {shape}, the images of {dataset}, got {own}.")
    if int(y.max()) >= classifier.nb_classes:
        expected = f"expected nb_classes {NB_CLASSES[dataset]} for {dataset}, got {classifier.nb_classes}"
        raise ValueError(f"classifier: {expected}, and there are labels up to {int(y.max())}.")


def _health(view: TensorView, x: Tensor, y: Tensor, batch_size: int, seed: int, needs_graph: bool) -> dict[str, str]:
    """Flags of what makes a high number meaningless, measured on natural images, whatever is run on them."""
    found = measure_health(view, x, y, predict(view, x, batch_size, seed), batch_size, seed)
    if found.nonfinite:
        raise ValueError("classifier: its logits for natural images hold NaN or Inf, so no accuracy has a meaning.")
    if needs_graph:
        require_gradients(found, "classifier")
    return health_flags(found)


def _under_attack(
    view: TensorView, model: UnitModel, x: Tensor, y: Tensor, attack: _Attack, state_path: _Path, verbose: bool
) -> dict[str, Any]:
    """What AutoAttack leaves, as fields of the result."""
    outcome = attack_images(view, model, x, y, *attack, state_path=state_path, verbose=verbose)
    eps, norm, _, batch_size, _ = attack
    verify(x, outcome.x_adv, eps, norm, (torch.zeros(()), torch.ones(())), 1.0, "AutoAttack")
    flags = dict(outcome.flags)
    with torch.no_grad():  # RobustBench counts by a pass of its own over the adversarial images
        again = _right(model, outcome.x_adv, y, batch_size, view.device)
    if not torch.equal(again, outcome.robust):
        counts = f"{int(outcome.robust.sum())} samples withstood the attacks, but {int(again.sum())}"
        flags.setdefault(RANDOMISED, f"{counts} were right when evaluated again.")
    right, robust = int(outcome.right.sum()), int((again & outcome.robust).sum())
    return {"natural": Accuracy(right, len(x)), "robust": Accuracy(robust, len(x)), "attacks": outcome.accuracies,
            "flags": flags, "seconds": outcome.seconds, "data_sha256": sha256_of([x, y])}  # fmt: skip


def _under_corruptions(
    view: TensorView,
    model: UnitModel,
    x: Tensor,
    y: Tensor,
    board: tuple[str, Sequence[str], CorruptedImages, Path],
    batch_size: int,
    state_path: _Path,
    verbose: bool,
) -> dict[str, Any]:
    """The mean accuracy over all kinds and severities (arXiv 1903.12261), as fields of the result.

    RobustBench's own sum fails on CIFAR, whose loaders lack one of its arguments. The interval takes the corrupted
    copies of an image for independent, so it is too narrow. Each process evaluates all images; the main one records.
    """
    threat_model, kinds, load, folder = board
    identity: dict[str, Any] = {}
    if state_path is not None:
        identity = {"threat_model": threat_model, "n": len(x), **model_identity(view)}
        identity |= {"data": sha256_of([x, y]), "folder": str(folder.resolve())}
    parts = [(NATURAL, 0), *itertools.product(kinds, SEVERITIES)]
    digests: list[str] = []
    counts: dict[str, list[Accuracy]] = {}
    seconds: dict[str, float] = {}
    with (
        sharing(view.device) as shared,
        shared.every(lambda: Record(state_path if shared.is_main else None, identity)) as record,
        torch.no_grad(),
        tqdm(parts, desc=threat_model, disable=not (verbose and shared.is_main)) as bar,
    ):
        for kind, severity in bar:
            if kind != NATURAL:
                x, y = shared.main_first(partial(load, len(x), severity, kind))
            digest = sha256_of([x, y])
            digests.append(digest)
            entry = record.get(kind, severity)
            if entry is None:
                start = time.perf_counter()
                right = _right(model, x, y, batch_size, view.device)
                if model.non_finite:
                    raise ValueError("classifier: its logits hold NaN or Inf, so no accuracy has a meaning.")
                # the empty second tensor says how many there were
                rows, took = right.nonzero().flatten(), time.perf_counter() - start
                entry = record.add(kind, Entry(rows, torch.empty(len(x), 0), {"data": digest}, took), severity)
            elif entry.flags["data"] != digest:
                wrong = f"the images of {kind}, severity {severity}, are not those that were recorded"
                raise ValueError(f"state_path: {wrong}. Take another path, or delete the directory.")
            counts.setdefault(kind, []).append(Accuracy(len(entry.rows), len(entry.x_adv)))
            seconds[kind] = seconds.get(kind, 0.0) + entry.seconds
            bar.set_postfix_str(f"{kind} {counts[kind][-1].value:.2%}")
    (clean,) = counts.pop(NATURAL)
    robust = [count for each in counts.values() for count in each]
    means = {kind: tuple(count.value for count in each) for kind, each in counts.items()}
    every = Accuracy(sum(count.correct for count in robust), sum(count.n for count in robust))
    return {"natural": clean, "robust": every, "corruptions": means, "seconds": seconds,
            "data_sha256": sha256_of(digests)}  # fmt: skip


def _right(model: UnitModel, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Which images are classified as labelled, ``(N,)``, bool."""
    chunks = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    return torch.cat([model(images.to(device)).argmax(dim=1).cpu() == labels for images, labels in chunks])


def _differences(published: bool, attacks: str | Sequence[str], nb_classes: int, expected: int) -> Iterator[str]:
    """How a run differs from the standard of RobustBench beside its radius and the number of images."""
    if not published:
        yield "images that are not the published files"
    if attacks != "standard":
        yield f"attacks {attacks if isinstance(attacks, str) else ', '.join(attacks)} instead of AutoAttack standard"
    if nb_classes != expected:
        yield f"{nb_classes} classes instead of {expected}"


def _versions() -> dict[str, str]:
    from art_lbgat import __version__

    names = ("robustbench", "adversarial-robustness-toolbox", "torch", "torchvision", "timm", "numpy")
    every = [*names, published_package().__name__]  # what is imported from a folder has no version
    return {"art-lbgat": __version__} | {n: each.version for n in every for each in metadata.distributions(name=n)}
