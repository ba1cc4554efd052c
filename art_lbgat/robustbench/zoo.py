"""Networks of RobustBench's model zoo as ART classifiers: guide, source of attacks, or start of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.checks import check_choice, check_flag, check_number, check_path
from art_lbgat.models import create_classifier
from art_lbgat.preserve import preserved_randomness
from art_lbgat.robustbench.entries import entries, find_entry
from art_lbgat.robustbench.zoo_weights import load_network
from art_lbgat.robustbench_import import import_robustbench


def load_classifier(
    name: str,
    dataset: str = "cifar10",
    threat_model: str = "Linf",
    model_dir: str | Path = "./models",
    *,
    trainable: bool = False,
    device_type: str | None = None,
    **sgd: Any,
) -> PyTorchClassifier:
    """A network of the zoo with its published weights: inputs in [0, 1], normalised inside the network, logits out.

    Files are looked for at ``<model_dir>/<dataset>/<threat_model>/<name>.pt`` (ensembles ``<name>.pt_m0.pt``, ``_m1``,
    ...), for timm's and torchvision's networks also in torch hub's cache; what is there is used without network, also
    weights of your own that fit the architecture. What is missing is downloaded by RobustBench's own function. Global
    random generators are left as found.

    :param name: One of :func:`list_models`, case included.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"`` (the zoo of corruptions).
    :param model_dir: Directory of weights.
    :param trainable: False turns the gradients of its parameters off and gives no optimizer: a fixed guide or source
        (gradients with respect to inputs work). True gives the SGD of the published recipes: a start of training, or a
        guide that is trained along.
    :param device_type: As :func:`~art_lbgat.models.create_classifier`.
    :param sgd: With ``trainable``, ``learning_rate``, ``momentum``, ``weight_decay`` and ``nesterov`` for
        :func:`~art_lbgat.models.create_classifier`.
    :return: The classifier, in eval mode.
    :raises ValueError: An unknown name, data set or threat model; a file that is truncated, holds objects other than
        tensors or does not fit the network (it is named); SGD's arguments without ``trainable``.
    :raises FileNotFoundError: A file that is missing and cannot be downloaded: which, from where, and where to put it.
    :raises RuntimeError: A network that cannot be built here, as those that need CUDA.
    """
    check_flag(trainable, "trainable")
    check_choice(device_type, "device_type", (None, "cpu", "gpu"))
    model_dir = check_path(model_dir, "model_dir")
    _check_sgd(sgd)
    if sgd and not trainable:
        raise ValueError(f"{', '.join(sgd)}: expected trainable=True, without it there is no optimizer.")
    entry = find_entry(name, dataset, threat_model)
    if entry.needs_cuda and (device_type == "cpu" or not torch.cuda.is_available()):
        raise RuntimeError(
            f"name: {name!r} of RobustBench runs on CUDA alone, which is not available or not asked for."
        )
    # A default device of the caller (meta, cuda) must not reach what is built.
    with preserved_randomness(), torch.device("cpu"):
        network = load_network(entry, model_dir)
        if entry.needs_cuda:
            network.cuda()  # before it is tried: part of it is there since it was built
        if not trainable:
            network.requires_grad_(requires_grad=False)
        classifier = create_classifier(network, entry.nb_classes, entry.input_shape, device_type=device_type, **sgd)
    if not trainable:
        classifier.set_params(optimizer=None)
    return classifier


def _check_sgd(sgd: dict[str, Any]) -> None:
    """Before a network is built or fetched."""
    for name, value in sgd.items():
        check_choice(name, "sgd", ("learning_rate", "momentum", "weight_decay", "nesterov"))
        if name == "nesterov":
            check_flag(value, name)
        else:
            check_number(value, name, exclusive=name == "learning_rate")


def preprocessing(name: str, dataset: str = "imagenet", threat_model: str = "Linf") -> Callable[[Any], torch.Tensor]:
    """The transform that RobustBench applies to a PIL image for this network: resizing, cropping, ``[0, 1]`` tensors.

    :param name: One of :func:`list_models`.
    :param dataset: Its data set.
    :param threat_model: Its threat model.
    :raises ValueError: An unknown name, data set or threat model.
    """
    entry = find_entry(name, dataset, threat_model)
    package = import_robustbench()
    enums = package.model_zoo.enums
    keys = enums.BenchmarkDataset(entry.dataset), enums.ThreatModel(entry.threat_model)
    with preserved_randomness(), torch.device("cpu"):  # RobustBench builds timm's networks to ask them
        found: Callable[[Any], torch.Tensor] = package.data.get_preprocessing(*keys, name, None)
    return found


def list_models(
    dataset: str | None = None, threat_model: str | None = None, model_dir: str | Path | None = None
) -> pd.DataFrame:
    """The networks of the zoo, a row each: 206 in RobustBench 1.1. Nothing is built or downloaded.

    :param dataset: Only those of one data set, or None.
    :param threat_model: Only those of one threat model, or None; ``"corruptions_3d"`` is judged on the networks of
        ``"corruptions"``.
    :param model_dir: A directory of weights, to tell which are on disk; or None.
    :return: Columns ``name``, ``dataset``, ``threat_model``, ``source`` (``"google drive"``, ``"timm"`` or
        ``"torchvision"``), ``n_files``, ``input_shape``, ``preprocessing`` (key of RobustBench's transform, ``"timm"``
        for timm's own, missing for CIFAR), ``cpu`` (False where CUDA is needed), and with ``model_dir`` ``on_disk``
        (True if all files are there, or in torch hub's cache for timm and torchvision).
    :raises ValueError: An unknown data set or threat model, or a pair without a zoo.
    """
    if model_dir is not None:
        model_dir = check_path(model_dir, "model_dir")
    rows = [
        {
            "name": entry.name,
            "dataset": entry.dataset,
            "threat_model": entry.threat_model,
            "source": entry.source,
            "n_files": len(entry.files(".")),
            "input_shape": entry.input_shape,
            "preprocessing": entry.preprocessing,
            "cpu": not entry.needs_cuda,
            **({} if model_dir is None else {"on_disk": entry.present(model_dir)}),
        }
        for entry in entries(dataset, threat_model)
    ]
    return pd.DataFrame(rows)
