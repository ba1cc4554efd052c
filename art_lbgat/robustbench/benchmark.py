"""RobustBench's benchmark for any ART classifier: the same number, and what it needs to be believed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from art.estimators.classification import PyTorchClassifier

from art_lbgat.checks import check_count, check_flag, check_number, check_path, check_seed, check_text
from art_lbgat.classifier import JudgedView
from art_lbgat.evaluation.autoattack import UnitModel, attack_names, published_package
from art_lbgat.evaluation.record import sharing, weights_sha256
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness
from art_lbgat.robustbench.adversarial import Settings, measure_adversarial
from art_lbgat.robustbench.corruptions import corruption_kinds, measure_corruptions
from art_lbgat.robustbench.images import BenchmarkImages, Preprocessing, load_images
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.standard import (
    EPS,
    N_EXAMPLES,
    NB_CLASSES,
    NORMS,
    check_dataset,
    check_threat_model,
    is_published_eps,
)
from art_lbgat.robustbench_import import import_robustbench

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

    RobustBench's own ``benchmark`` is run, on its images and with AutoAttack's published attacks; ours is that each
    finished batch is kept, and what is noted beside the two numbers. The classifier is judged as a whole, preprocessing
    and ``clip_values`` included, in eval mode; modes and global generators are left as found. Several processes
    (torchrun's) share the batches of AutoAttack; each has to call this, and gets the result that one would get.

    :param classifier: The classifier. It is given images in its own ``clip_values``.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"``.
    :param eps: Radius in units of images in [0, 1], whatever the ``clip_values``; None for that of the leaderboard.
    :param n_examples: How many of the first images; None for all, which the standard wants.
    :param data_dir: Where torchvision looks for CIFAR; for ImageNet the folder that holds ``val``.
    :param corruptions_data_dir: Holds ``CIFAR-10-C`` and its like; None for ``data_dir``.
    :param preprocessing: For ImageNet, see ``art_lbgat.robustbench.images.load_images``.
    :param attacks: ``"standard"`` or a list of AutoAttack's attacks, which is labelled.
    :param batch_size: Images judged together; random starts of AutoAttack depend on it.
    :param seed: Seed of each batch of each attack.
    :param state_path: A file for finished batches: killed at any moment, the same call goes on from there and ends in
        the same result. Another model, data or setting is refused. None keeps nothing.
    :param model_name: What to call the model; None for the name of its class. For an ImageNet model of the zoo the
        name that it has there decides its preprocessing.
    :param architecture: What to call its architecture; None for the name of its class.
    :param verbose: Whether progress bars are shown, with the accuracy so far and the time left.
    :return: The numbers with their intervals, and whether they are RobustBench standard.
    :raises ValueError: Bad arguments; a classifier of another input shape or with too few classes; logits that are not
        finite; a state file of another run.
    :raises FileNotFoundError: If the images are not there and cannot be fetched, with what to put where.
    :raises ImportError: See :func:`~art_lbgat.robustbench.import_robustbench`.
    """
    _check_options(data_dir, corruptions_data_dir, state_path, model_name, architecture, verbose)
    view = JudgedView(classifier)
    attack_names(attacks, classifier.nb_classes)  # before anything is loaded
    settings = Settings(
        dataset=check_dataset(dataset),
        threat_model=check_threat_model(threat_model),
        eps=_radius(dataset, threat_model, eps),
        attacks=attacks if isinstance(attacks, str) else tuple(attacks),
        batch_size=check_count(batch_size, "batch_size"),
        seed=check_seed(seed),
        state_path=state_path,
        preprocessing=preprocessing,
        model_name=model_name,
        verbose=verbose,
    )
    model = UnitModel(view)
    package = import_robustbench()
    if threat_model not in NORMS:
        corruption_kinds(package, settings.dataset, settings.threat_model)
        if attacks != "standard":
            raise ValueError(
                f"attacks: expected 'standard' for {threat_model}, where nothing attacks, got {attacks!r}."
            )
    wanted = (settings.dataset, settings.threat_model, n_examples, Path(data_dir), preprocessing, model_name)
    with sharing(view.device) as shared:
        images = shared.main_first(lambda: load_images(*wanted))  # they may have to be fetched
    _check_fit(classifier, images, dataset)
    with plain_autograd(view.device), preserved_randomness(), evaluating(view.module):
        if threat_model in NORMS:
            measured = measure_adversarial(package, view, model, images, settings)
        else:
            folder = Path(corruptions_data_dir or data_dir)
            measured = measure_corruptions(package, view, model, images, settings, folder)
        weights = weights_sha256(view.module)
    return BenchmarkResult(
        model_name=model_name or type(classifier.model).__name__,
        architecture=architecture or type(classifier.model).__name__,
        dataset=settings.dataset,
        threat_model=settings.threat_model,
        eps=settings.eps,
        **measured._asdict(),
        differences=_differences(settings, images, classifier.nb_classes),
        seed=seed,
        batch_size=batch_size,
        weights_sha256=weights,
        versions=_versions(),
        device=str(view.device),
    )


def _check_options(
    data_dir: Any, corruptions_data_dir: Any, state_path: Any, model_name: Any, architecture: Any, verbose: Any
) -> None:
    check_path(data_dir, "data_dir")
    for name, path in (("corruptions_data_dir", corruptions_data_dir), ("state_path", state_path)):
        if path is not None:
            check_path(path, name)
    for name, text in (("model_name", model_name), ("architecture", architecture)):
        if text is not None and not check_text(text, name):
            raise ValueError(f"{name}: expected a text or None, got an empty one.")
    check_flag(verbose, "verbose")


def _radius(dataset: str, threat_model: str, eps: float | None) -> float | None:
    """The radius to attack with; None where nothing attacks.

    :raises ValueError: If there is none to be had, or one is given where there is nothing to do with it.
    """
    if threat_model not in NORMS:
        if eps is not None:
            raise ValueError(f"eps: expected None for {threat_model}, got {eps}.")
        return None
    if eps is not None:
        if check_number(eps, "eps", exclusive=True) > 1 and threat_model == "Linf":
            raise ValueError(f"eps: expected at most 1, in units of images in [0, 1] (such as 8/255), got {eps:g}.")
        return float(eps)
    published = EPS.get((dataset, threat_model))
    if published is None:
        raise ValueError(f"eps: there is no leaderboard for {dataset} {threat_model}, expected a radius, got None.")
    return published.value


def _check_fit(classifier: PyTorchClassifier, images: BenchmarkImages, dataset: str) -> None:
    """Whether the classifier can be given these images at all."""
    if tuple(classifier.input_shape) != tuple(images.x.shape[1:]):
        raise ValueError(
            f"classifier: expected input_shape {tuple(images.x.shape[1:])}, the images of {dataset}, got "
            f"{tuple(classifier.input_shape)}."
        )
    if int(images.y.max()) >= classifier.nb_classes:
        raise ValueError(
            f"classifier: expected nb_classes {NB_CLASSES[dataset]} for {dataset}, got {classifier.nb_classes}, and "
            f"there are labels up to {int(images.y.max())}."
        )


def _differences(settings: Settings, images: BenchmarkImages, nb_classes: int) -> tuple[str, ...]:
    """How a run differs from the standard of RobustBench; nothing if it does not."""
    dataset, threat_model, eps = settings.dataset, settings.threat_model, settings.eps
    found = []
    if threat_model in NORMS and (dataset, threat_model) not in EPS:
        found.append(f"there is no leaderboard for {dataset} {threat_model}")
    elif not is_published_eps(dataset, threat_model, eps):
        found.append(f"eps {eps:.6g} instead of {EPS[dataset, threat_model].text}")
    if len(images.x) != N_EXAMPLES[dataset]:
        found.append(f"{len(images.x):,} images instead of {N_EXAMPLES[dataset]:,}")
    if not images.published:
        found.append("images that are not the published files")
    if settings.attacks != "standard":
        names = settings.attacks if isinstance(settings.attacks, str) else ", ".join(settings.attacks)
        found.append(f"attacks {names} instead of AutoAttack standard")
    if nb_classes != NB_CLASSES[dataset]:
        found.append(f"{nb_classes} classes instead of {NB_CLASSES[dataset]}")
    return tuple(found)


def _versions() -> dict[str, str]:
    from art_lbgat import __version__

    names = (*_LIBRARIES, published_package().__name__)
    installed = {name: version for name in names if (version := _version(name)) is not None}
    return {"art-lbgat": __version__, **installed}


def _version(name: str) -> str | None:
    """The version of a distribution; None for what is imported from a folder."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
