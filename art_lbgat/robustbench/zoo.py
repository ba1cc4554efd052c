"""RobustBench's model zoo: its networks as ART classifiers, to be a guide, a source of attacks or a start of training.

Weights are fetched whole or not at all, read without running code, and loaded by RobustBench's own rules.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from art_lbgat.checks import check_choice, check_flag, check_number, check_path, check_text
from art_lbgat.models import create_classifier
from art_lbgat.preserve import preserved_randomness
from art_lbgat.robustbench.result import INPUT_SHAPES, NB_CLASSES, THREAT_MODELS, check_board
from art_lbgat.robustbench_import import import_robustbench, with_globals
from art_lbgat.weights import read_weights

_CUDA_ONLY = "Bai2023Improving"  # its networks move tensors to the GPU while they are built
_DRIVE = "https://drive.google.com/uc?id="
_HASH = re.compile(r"-([0-9a-f]{8,})\.")  # of its content, in the name of a file of torchvision's
_SHOWN = 300  # characters of another library's message
_CANNOT_BUILD = "name: RobustBench cannot build {} here: {}"
_DOES_NOT_FIT = "weights: {} does not fit {}: {} Remove it to have it downloaded anew."
# What RobustBench leaves as built where a file lacks it: normalisation, and the counters of BatchNorm.
_MAY_BE_MISSING = ("mu", "sigma", "mean", "std", "num_batches_tracked")


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

    Files at ``<model_dir>/<dataset>/<threat_model>/<name>.pt`` (ensembles ``<name>.pt_m0.pt``, ``_m1``, ...), or in
    torch hub's cache for timm's and torchvision's networks, are used without network; what is missing RobustBench
    downloads. Global random generators are unchanged.

    :param name: One of :func:`list_models`, case included.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: ``"Linf"``, ``"L2"``, ``"corruptions"`` or ``"corruptions_3d"`` (the zoo of corruptions).
    :param model_dir: Directory of weights.
    :param trainable: True gives the SGD of the published recipes; False no optimizer and no gradients of parameters.
    :param device_type: As :func:`~art_lbgat.models.create_classifier`.
    :param sgd: With ``trainable``, its ``learning_rate``, ``momentum``, ``weight_decay`` and ``nesterov``.
    :return: The classifier, in eval mode.
    :raises ValueError: An unknown name; a file (named) that is damaged, not of tensors alone or of another network.
    :raises FileNotFoundError: A file that is missing and cannot be downloaded: which, from where, and where to put it.
    :raises RuntimeError: A network that cannot be built here, as those that need CUDA.
    """
    check_flag(trainable, "trainable")
    check_choice(device_type, "device_type", (None, "cpu", "gpu"))
    model_dir = check_path(model_dir, "model_dir")
    for option, value in sgd.items():  # before a network is built or fetched
        check_choice(option, "sgd", ("learning_rate", "momentum", "weight_decay", "nesterov"))
        if option == "nesterov":
            check_flag(value, option)
        else:
            check_number(value, option, exclusive=option == "learning_rate")
    if sgd and not trainable:
        raise ValueError(f"{', '.join(sgd)}: expected trainable=True, without it there is no optimizer.")
    entry = find_entry(name, dataset, threat_model)
    if not entry.cpu and (device_type == "cpu" or not torch.cuda.is_available()):
        raise RuntimeError(f"name: {name!r} of RobustBench runs on CUDA alone, which is not there or not asked for.")
    # A default device of the caller (meta, cuda) must not reach what is built.
    with preserved_randomness(), torch.device("cpu"):
        network = load_network(entry, model_dir)
        if not entry.cpu:
            network.cuda()  # before it is tried: part of it is there since it was built
        if not trainable:
            network.requires_grad_(requires_grad=False)
        classifier = create_classifier(network, entry.nb_classes, entry.input_shape, device_type=device_type, **sgd)
    if not trainable:
        classifier.set_params(optimizer=None)
    return classifier


def list_models(
    dataset: str | None = None, threat_model: str | None = None, model_dir: str | Path | None = None
) -> pd.DataFrame:
    """The networks of the zoo, a row each: 206 in RobustBench 1.1. Nothing is built or downloaded.

    :param dataset: Only those of one data set, or None.
    :param threat_model: Only those of one threat model, or None; ``"corruptions_3d"`` means those of ``"corruptions"``.
    :param model_dir: A directory of weights, to tell which are ``on_disk`` there or in torch hub's cache; or None.
    :return: Columns ``name``, ``dataset``, ``threat_model``, ``source`` (``"google drive"``, ``"timm"`` or
        ``"torchvision"``), ``n_files``, ``input_shape``, ``preprocessing`` (key of RobustBench's transform, ``"timm"``
        for timm's own, missing for CIFAR), ``cpu`` (False where CUDA is needed), and with ``model_dir`` ``on_disk``.
    """
    folder = None if model_dir is None else check_path(model_dir, "model_dir")
    found = entries(dataset, threat_model)
    table = pd.DataFrame(found).assign(n_files=[len(entry.files(".")) for entry in found])
    columns = ["name", "dataset", "threat_model", "source", "n_files", "input_shape", "preprocessing", "cpu"]
    on_disk = {} if folder is None else {"on_disk": [entry.present(folder) for entry in found]}
    return table[columns].assign(**on_disk)


def preprocessing(name: str, dataset: str = "imagenet", threat_model: str = "Linf") -> Callable[[Any], Tensor]:
    """The transform of RobustBench from a PIL image to what this network takes: resized, cropped, in ``[0, 1]``."""
    entry = find_entry(name, dataset, threat_model)
    with preserved_randomness(), torch.device("cpu"):  # RobustBench builds timm's networks to ask them
        published = import_robustbench().data.get_preprocessing
        return published(*board_keys(entry.dataset, entry.threat_model), name, None)  # type: ignore[no-any-return]


def board_keys(dataset: str, threat_model: str) -> tuple[Any, Any]:
    """A data set and a threat model as RobustBench's tables are indexed by them."""
    enums = import_robustbench().model_zoo.enums
    return enums.BenchmarkDataset(dataset), enums.ThreatModel(threat_model)


class Entry(NamedTuple):
    """One network of the zoo: its place there, what RobustBench says about it, and where its weights come from."""

    name: str
    dataset: str
    threat_model: str
    published: dict[str, Any]  # ``model`` (builds the network), ``gdrive_id``, ``preprocessing``
    source: str  # "google drive", "timm" or "torchvision"
    url: str  # of the file that timm or torchvision keeps in torch hub's cache; empty for Google Drive
    timm_name: str  # what RobustBench asks timm for before anything else
    preprocessing: str | None  # the key of RobustBench's transform, "timm" for timm's own, None for CIFAR
    input_shape: tuple[int, int, int]
    nb_classes: int
    cpu: bool  # False if it cannot be built without a GPU

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dataset} {self.threat_model})"

    def files(self, model_dir: str | Path) -> dict[Path, str]:
        """The files that hold its weights in a directory of models, each with its address."""
        path, drive = Path(model_dir, self.dataset, self.threat_model, f"{self.name}.pt"), self.published["gdrive_id"]
        if self.url:
            return {path: self.url}
        if isinstance(drive, list):
            return {path.with_name(f"{path.name}_m{i}.pt"): _DRIVE + one for i, one in enumerate(drive)}
        return {path: _DRIVE + drive}

    @property
    def cached(self) -> Path:
        """Where torch hub's cache has those weights, whether it has them or not."""
        return Path(torch.hub.get_dir(), "checkpoints", self.url.rpartition("/")[2])

    def present(self, model_dir: str | Path) -> bool:
        """Whether all its weights are on disk, in the directory or (timm, torchvision) in torch hub's cache."""
        return all(path.is_file() for path in self.files(model_dir)) or bool(self.url and self.cached.is_file())

    def build(self) -> nn.Module:
        """The network on the default device with initial weights, nothing downloaded."""
        builder: Callable[[], nn.Module] = self.published["model"]
        if self.source == "timm":
            builder = partial(_timm().create_model, self.timm_name, pretrained=False, num_classes=self.nb_classes)
        elif self.source == "torchvision":
            from torchvision import models

            # The published function asks for trained weights, which would be downloaded.
            untrained = SimpleNamespace(resnet50=lambda **_: models.resnet50(weights=None))
            builder = with_globals(builder, pt_models=untrained)
        return builder()


def _entry(name: str, dataset: str, threat_model: str, published: dict[str, Any]) -> Entry:
    timm_name = f"{name}_{dataset}_{threat_model}".lower().replace("-", "_")
    source, url, preprocessing, shape = "google drive", "", published.get("preprocessing"), INPUT_SHAPES[dataset]
    if _timm().is_model(timm_name):
        config = _timm().get_pretrained_cfg(timm_name)
        source, url, preprocessing, shape = "timm", config.url, "timm", config.input_size
    elif not published["gdrive_id"]:
        from torchvision.models import ResNet50_Weights

        source, url = "torchvision", ResNet50_Weights.IMAGENET1K_V1.url
    if dataset != "imagenet":
        preprocessing = None
    elif source != "timm":
        steps = import_robustbench().data.PREPROCESSINGS[preprocessing].transforms
        shape = (3, *next(step.size for step in reversed(steps) if hasattr(step, "size")))
    facts = (preprocessing, shape, NB_CLASSES[dataset], not name.startswith(_CUDA_ONLY))
    return Entry(name, dataset, threat_model, published, source, url, timm_name, *facts)


def entries(dataset: str | None = None, threat_model: str | None = None) -> list[Entry]:
    """The entries of the zoo, in its order; ``corruptions_3d`` means the ``corruptions`` zoo, as in RobustBench."""
    check_choice(dataset, "dataset", (None, *NB_CLASSES))
    check_choice(threat_model, "threat_model", (None, *THREAT_MODELS))
    zoo = threat_model and threat_model.removesuffix("_3d")
    every = [
        _entry(name, data.value, threat.value, published)
        for data, threats in import_robustbench().model_zoo.model_dicts.items()
        for threat, models in threats.items()
        for name, published in models.items()
    ]
    found = [entry for entry in every if dataset in (None, entry.dataset) and zoo in (None, entry.threat_model)]
    if not found:
        pairs = dict.fromkeys(f"{entry.dataset} {entry.threat_model}" for entry in every)
        asked = f"RobustBench has no zoo for {dataset!r} with {threat_model!r}"
        raise ValueError(f"dataset, threat_model: {asked}, expected one of {', '.join(pairs)}.")
    return found


def find_entry(name: str, dataset: str, threat_model: str) -> Entry:
    """One entry; where there is none, the error names the nearest ones, or the zoo that has it."""
    check_board(dataset, threat_model)
    inside = {entry.name: entry for entry in entries(dataset, threat_model)}
    if check_text(name, "name") in inside:
        return inside[name]
    elsewhere = [f"{e.dataset} {e.threat_model}" for e in entries() if e.name == name]
    lower = {known.lower(): known for known in inside}
    near = [repr(lower[one]) for one in difflib.get_close_matches(name.lower(), list(lower), n=3)]
    hint = f"; it is in {', '.join(elsewhere)}" if elsewhere else f"; nearest: {', '.join(near)}" if near else ""
    known = f"the {len(inside)} models that list_models({dataset!r}, {threat_model!r}) shows"
    raise ValueError(f"name: expected one of {known}, got {name!r}{hint}.")


def _timm() -> Any:
    import timm

    return timm


def load_network(entry: Entry, model_dir: str | Path) -> nn.Module:
    """The network of an entry with its weights, in eval mode, on the default device; errors as for a classifier."""
    load = _from_drive if entry.source == "google drive" else _from_hub
    return load(entry, Path(model_dir)).eval()


def _from_drive(entry: Entry, model_dir: Path) -> nn.Module:
    """Through RobustBench's own ``load_model``, which is given files that were read without running code."""
    utils = import_robustbench().utils
    files = entry.files(model_dir)
    for path, url in files.items():  # before the network is built, which can take long
        if not path.is_file():
            _fetch(path, url, partial(utils.download_gdrive_new, url.removeprefix(_DRIVE)), path)
    states = {path: read_weights(path) for path in files}
    given: list[Path] = []

    def load(path: str | Path, **_: Any) -> Mapping[str, Any]:
        given.append(Path(path))
        return states.pop(given[-1])

    def load_whole(net: nn.Module, name: str, state: Mapping[str, Tensor], dataset: Any) -> nn.Module:
        """For some names RobustBench loads what fits and keeps the rest as built."""
        missing = [n for n in net.state_dict() if n not in state and n.rpartition(".")[2] not in _MAY_BE_MISSING]
        if missing:
            raise ValueError(f"{len(missing)} missing: {', '.join(missing[:5])}{', ...' if missing[5:] else ''}")
        return published_load(net, name, state, dataset)

    published_load: Callable[..., nn.Module] = utils._safe_load_state_dict
    torch_of_files = SimpleNamespace(**{**vars(torch), "load": load})
    load_model = with_globals(utils.load_model, torch=torch_of_files, _safe_load_state_dict=load_whole)
    try:
        net: nn.Module = load_model(entry.name, model_dir, entry.dataset, entry.threat_model)
    except Exception as error:  # KeyError, RuntimeError, AttributeError, ...: whatever meets a file of other content
        if not given:
            raise RuntimeError(_CANNOT_BUILD.format(entry, _short(error))) from error
        raise ValueError(_DOES_NOT_FIT.format(given[-1], entry, _short(error))) from error
    return net


def _from_hub(entry: Entry, model_dir: Path) -> nn.Module:
    """From a file of the user's, else from torch hub's cache, where timm and torchvision keep theirs."""
    (place,) = entry.files(model_dir)
    path = place if place.is_file() else entry.cached
    if not path.is_file():
        known = _HASH.search(entry.url)
        checked: dict[str, Any] = {"hash_prefix": known[1]} if known else {}
        _fetch(path, entry.url, lambda part: torch.hub.download_url_to_file(entry.url, part, **checked), place)
    found = read_weights(path)
    state = dict(next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), Mapping)), found))
    try:
        net = entry.build()
    except Exception as error:
        raise RuntimeError(_CANNOT_BUILD.format(entry, _short(error))) from error
    try:
        if set(state) == set(net.state_dict()):
            net.load_state_dict(state)
        elif entry.source == "timm":  # timm renames what older files call otherwise, and is strict
            options = {"num_classes": entry.nb_classes, "pretrained_cfg_overlay": {"state_dict": state}}
            net = _timm().create_model(entry.timm_name, pretrained=True, **options)
        else:
            net.get_submodule("model").load_state_dict(state)
    except Exception as error:
        raise ValueError(_DOES_NOT_FIT.format(path, entry, _short(error))) from error
    return net


def _fetch(target: Path, url: str, download: Callable[[str], Any], place: Path) -> None:
    """Download weights to ``target``, which appears only when the file is whole and can be read.

    The error names ``place``, where the user may put the file by hand.
    """
    part = Path(target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A directory of its own, as the downloaders leave parts of files beside the one that they were to write.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            download(str(part))
            read_weights(part)
            part.replace(target)
    except Exception as error:  # offline, over quota, a web page, a full disk: each library raises types of its own
        reason = _short(error, str(part))
        raise FileNotFoundError(
            f"weights: there is no file {place}, and downloading it from {url} failed ({reason}). Get it by "
            f"other means, such as a browser, and put it at {place}."
        ) from error


def _short(error: Exception, part: str = "\0") -> str:
    """One line of another library's error, in which a temporary file is not named."""
    name, words = type(error).__name__, " ".join(str(error).replace(part, "what came").split())
    return f"{name}: {words}" if len(words) <= _SHOWN else f"{name}: {words[:_SHOWN]} ..."
