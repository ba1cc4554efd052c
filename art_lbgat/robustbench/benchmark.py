"""RobustBench's benchmark for any ART classifier: the same numbers, and what they need to be believed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from tqdm.auto import tqdm

from art_lbgat.checks import check_count, check_flag, check_number, check_path, check_seed, check_text
from art_lbgat.classifier import JudgedView, TensorView
from art_lbgat.evaluation.attacks import verify
from art_lbgat.evaluation.autoattack import (
    NATURAL,
    UnitModel,
    attack_images,
    attack_names,
    needs_gradients,
    published_package,  # fmt: skip
)
from art_lbgat.evaluation.record import Entry, Record, data_sha256, model_identity, sharing, weights_sha256
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.evaluation.subject import RANDOMISED, health_flags, measure_health, predict, probed, require_gradients
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness
from art_lbgat.robustbench.images import BenchmarkImages, Preprocessing, corrupted_images, load_images
from art_lbgat.robustbench.result import (
    EPS,
    NB_CLASSES,
    NORMS,
    BenchmarkResult,
    Dataset,
    ThreatModel,
    check_dataset,
    check_threat_model,
    differences_from_standard,
)
from art_lbgat.robustbench_import import import_robustbench

_Path = str | os.PathLike[str] | None
_Attack = tuple[float, float, str | Sequence[str], int, int]
SEVERITIES = (1, 2, 3, 4, 5)
_LIBRARIES = ("robustbench", "adversarial-robustness-toolbox", "torch", "torchvision", "timm", "numpy")


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

    The numbers are those of RobustBench's ``benchmark`` on the same seed. The classifier is judged as a whole, in eval
    mode; modes and global generators are left as found. Processes of torchrun each call this, and share the batches.

    :param classifier: The classifier. It is given images in its own ``clip_values``.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"``.
    :param eps: Radius in units of images in [0, 1], whatever the ``clip_values``; None for that of the leaderboard.
    :param n_examples: How many of the first images; None for all, which the standard wants.
    :param data_dir: Folder of torchvision's CIFAR, of ``test/<class>/<image>`` (your own), or of ImageNet's ``val``.
    :param corruptions_data_dir: Holds ``CIFAR-10-C`` and its like; None for ``data_dir``.
    :param preprocessing: For ImageNet: a name of RobustBench's ``PREPROCESSINGS``, or a callable from image to tensor.
    :param attacks: ``"standard"`` or a list of AutoAttack's attacks, which is labelled.
    :param batch_size: Images judged together; random starts of AutoAttack depend on it.
    :param seed: Seed of each batch of each attack.
    :param state_path: A file for finished batches, from which the same call goes on when killed; None keeps nothing.
    :param model_name: What to call the model; None for its class. A name of the zoo decides the ImageNet preprocessing.
    :param architecture: What to call its architecture; None for its class.
    :param verbose: Whether progress bars are shown, with the accuracy so far and the time left.
    :return: The numbers with their intervals, and whether they are RobustBench standard.
    :raises ValueError: Bad arguments; a classifier that does not fit; logits not finite; a state file of another run.
    :raises FileNotFoundError: If the images are not there and cannot be fetched, with what to put where.
    """
    check_path(data_dir, "data_dir")
    _check_optional(check_path, corruptions_data_dir=corruptions_data_dir, state_path=state_path)
    _check_optional(check_text, model_name=model_name, architecture=architecture)
    check_count(batch_size, "batch_size")
    check_seed(seed)
    check_flag(verbose, "verbose")
    view = JudgedView(classifier)
    model = UnitModel(view)
    attack_names(attacks, classifier.nb_classes)  # checked before anything is loaded
    dataset, threat_model = check_dataset(dataset), check_threat_model(threat_model)
    eps, kinds = _radius(dataset, threat_model, eps), _corruption_kinds(dataset, threat_model, attacks)
    wanted = partial(load_images, dataset, threat_model, n_examples, Path(data_dir), preprocessing, model_name)
    with sharing(view.device) as shared:
        images = shared.main_first(wanted)  # which may have to be fetched
    _check_fit(classifier, images, dataset)
    with plain_autograd(view.device), preserved_randomness(), evaluating(view.module):
        flags = _probe(view, model, images, batch_size, seed, [] if kinds else attacks)
        if eps is None:
            source = (dataset, threat_model, kinds, model_name, Path(corruptions_data_dir or data_dir))
            found = _under_corruptions(view, model, images, source, batch_size, state_path, verbose)
        else:
            attack = (eps, NORMS[threat_model], attacks, batch_size, seed)
            found = _under_attack(view, model, images, attack, state_path, verbose)
    own = _own_differences(images.published, attacks, classifier.nb_classes, NB_CLASSES[dataset])
    return BenchmarkResult(
        model_name=model_name or type(classifier.model).__name__,
        architecture=architecture or type(classifier.model).__name__,
        dataset=dataset,
        threat_model=threat_model,
        eps=eps,
        differences=(*differences_from_standard(dataset, threat_model, eps, len(images.x)), *own),
        seed=seed,
        batch_size=batch_size,
        weights_sha256=weights_sha256(view.module),
        versions=_versions(),
        device=str(view.device),
        **{**found, "flags": {**flags, **found["flags"]}},
    )


def _check_optional(check: Callable[[Any, str], Any], **values: Any) -> None:
    for name, value in values.items():
        if value is not None and not check(value, name):
            raise ValueError(f"{name}: expected a text or None, got an empty one.")


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


def _corruption_kinds(dataset: Dataset, threat_model: ThreatModel, attacks: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds of corruption of a leaderboard; none where images are attacked."""
    if threat_model in NORMS:
        return ()
    package = import_robustbench()
    enums = package.model_zoo.enums
    kinds = package.data.CORRUPTIONS_DICT[enums.BenchmarkDataset(dataset)]
    if enums.ThreatModel(threat_model) not in kinds:
        raise ValueError(f"threat_model: RobustBench has no {threat_model} for {dataset}.")
    if attacks != "standard":
        raise ValueError(f"attacks: expected 'standard' for {threat_model}, where nothing attacks, got {attacks!r}.")
    return tuple(kinds[enums.ThreatModel(threat_model)])


def _check_fit(classifier: PyTorchClassifier, images: BenchmarkImages, dataset: str) -> None:
    """Whether the classifier can be given these images at all."""
    shape, own = tuple(images.x.shape[1:]), tuple(classifier.input_shape)
    if own != shape:
        raise ValueError(f"classifier: expected input_shape {shape}, the images of {dataset}, got {own}.")
    if int(images.y.max()) >= classifier.nb_classes:
        expected = f"expected nb_classes {NB_CLASSES[dataset]} for {dataset}, got {classifier.nb_classes}"
        raise ValueError(f"classifier: {expected}, and there are labels up to {int(images.y.max())}.")


def _probe(
    view: TensorView,
    model: UnitModel,
    images: BenchmarkImages,
    batch_size: int,
    seed: int,
    attacks: str | Sequence[str],
) -> dict[str, str]:
    """Flags of what makes a high number meaningless, measured on natural images, whatever is run on them."""
    rows = probed(len(images.x))  # a pass over all images is the attack's, which looks for NaN and Inf too
    x, y = model.to_raw(images.x[rows]), images.y[rows]
    found = measure_health(view, x, y, predict(view, x, batch_size, seed), batch_size, seed)
    if found.nonfinite:
        raise ValueError("classifier: its logits for natural images hold NaN or Inf, so no accuracy has a meaning.")
    if attacks and needs_gradients(attack_names(attacks, view.classifier.nb_classes)[0]):
        require_gradients(found, "classifier")
    return health_flags(found)


def _under_attack(
    view: TensorView, model: UnitModel, images: BenchmarkImages, attack: _Attack, state_path: _Path, verbose: bool
) -> dict[str, Any]:
    """What AutoAttack of ``(eps, norm, attacks, batch_size, seed)`` leaves, as fields of the result."""
    (x, y, _), (eps, norm, _, batch_size, _) = images, attack
    outcome = attack_images(view, model, x, y, *attack, state_path=state_path, verbose=verbose)
    verify(x, outcome.x_adv, eps, norm, (torch.zeros(()), torch.ones(())), 1.0, "AutoAttack")
    flags = dict(outcome.flags)
    with torch.no_grad():  # RobustBench counts by a pass of its own over the adversarial images
        again = _right(model, outcome.x_adv, y, batch_size, view.device)
    if not torch.equal(again, outcome.robust):
        counts = f"{int(outcome.robust.sum())} samples withstood the attacks, but {int(again.sum())}"
        flags.setdefault(RANDOMISED, f"{counts} were right when judged again.")
    return {
        "natural": Accuracy(int(outcome.right.sum()), len(x)),
        "robust": Accuracy(int((again & outcome.robust).sum()), len(x)),
        "attacks": outcome.accuracies,
        "corruptions": {},
        "flags": flags,
        "seconds": outcome.seconds,
        "data_sha256": data_sha256(x, y),
    }


def _under_corruptions(
    view: TensorView,
    model: UnitModel,
    images: BenchmarkImages,
    source: tuple[Dataset, ThreatModel, Sequence[str], str | None, Path],
    batch_size: int,
    state_path: _Path,
    verbose: bool,
) -> dict[str, Any]:
    """The mean accuracy over all kinds and severities (arXiv 1903.12261), as fields of the result.

    RobustBench's own sum fails on CIFAR, whose loaders lack one of its arguments. The interval takes the corrupted
    copies of an image for independent, so it is too narrow. Each process judges all images; the main one records.
    """
    n, (dataset, threat_model, kinds, model_name, data_dir) = len(images.x), source
    load, folder = corrupted_images(dataset, threat_model, model_name, data_dir)
    identity = {} if state_path is None else {
        "threat_model": threat_model,
        "n": n,
        **model_identity(view),
        "data": data_sha256(images.x, images.y),
        "folder": str(folder.resolve()),
    }  # fmt: skip
    digests: list[str] = []
    counts: dict[str, list[Accuracy]] = {}
    seconds: dict[str, float] = {}
    parts = [(NATURAL, 0), *((kind, severity) for kind in kinds for severity in SEVERITIES)]
    with (
        sharing(view.device) as shared,
        shared.every(lambda: Record(state_path if shared.is_main else None, identity)) as record,
        torch.no_grad(),
        tqdm(parts, desc=threat_model, disable=not (verbose and shared.is_main)) as bar,
    ):
        for kind, severity in bar:
            x, y = images[:2] if kind == NATURAL else shared.main_first(partial(load, n, severity, kind))
            digests.append(data_sha256(x, y))
            entry = record.get(kind, severity)
            if entry is None:
                start = time.perf_counter()
                right = _right(model, x, y, batch_size, view.device)
                if model.non_finite:
                    raise ValueError("classifier: its logits hold NaN or Inf, so no accuracy has a meaning.")
                # the empty second tensor says how many there were
                rows, took = right.nonzero().flatten(), time.perf_counter() - start
                entry = record.add(kind, Entry(rows, torch.empty(len(x), 0), {"data": digests[-1]}, took), severity)
            elif entry.flags["data"] != digests[-1]:
                wrong = f"the images of {kind}, severity {severity}, are not those that were recorded"
                raise ValueError(f"state_path: {wrong}. Take another path, or delete the file.")
            counts.setdefault(kind, []).append(Accuracy(len(entry.rows), len(entry.x_adv)))
            seconds[kind] = seconds.get(kind, 0.0) + entry.seconds
            bar.set_postfix_str(f"{kind} {counts[kind][-1].value:.2%}")
    (clean,) = counts.pop(NATURAL)
    robust = [count for each in counts.values() for count in each]
    return {
        "natural": clean,
        "robust": Accuracy(sum(count.correct for count in robust), sum(count.n for count in robust)),
        "attacks": {},
        "corruptions": {kind: tuple(count.value for count in each) for kind, each in counts.items()},
        "flags": {},
        "seconds": seconds,
        "data_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
    }


def _right(model: UnitModel, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Which images are classified as labelled, ``(N,)``, bool."""
    chunks = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    return torch.cat([model(images.to(device)).argmax(dim=1).cpu() == labels for images, labels in chunks])


def _own_differences(published: bool, attacks: str | Sequence[str], nb_classes: int, expected: int) -> Iterator[str]:
    """How a run differs from the standard of RobustBench beside its radius and the number of images."""
    if not published:
        yield "images that are not the published files"
    if attacks != "standard":
        yield f"attacks {attacks if isinstance(attacks, str) else ', '.join(attacks)} instead of AutoAttack standard"
    if nb_classes != expected:
        yield f"{nb_classes} classes instead of {expected}"


def _versions() -> dict[str, str]:
    from art_lbgat import __version__

    names = (*_LIBRARIES, published_package().__name__)  # what is imported from a folder has no version
    found = {name: each.version for name in names for each in metadata.distributions(name=name)}
    return {"art-lbgat": __version__} | found
