"""The entries of RobustBench's model zoo: what there is under which name, and which files it reads."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from art_lbgat.checks import check_text
from art_lbgat.robustbench.standard import INPUT_SHAPES, NB_CLASSES, check_dataset, check_threat_model
from art_lbgat.robustbench_import import import_robustbench, with_globals

Source = Literal["google drive", "timm", "torchvision"]
_CUDA_ONLY = "Bai2023Improving"  # its networks move tensors to the GPU while they are built


class Entry(NamedTuple):
    """One network of the zoo.

    :param name: Its name there.
    :param dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``.
    :param threat_model: Its zoo: ``"Linf"``, ``"L2"`` or ``"corruptions"``.
    :param published: What RobustBench says about it: ``model`` (builds the network), ``gdrive_id``, ``preprocessing``.
    :param timm_name: The name under which timm builds it, or None.
    """

    name: str
    dataset: str
    threat_model: str
    published: dict[str, Any]
    timm_name: str | None

    @property
    def source(self) -> Source:
        """Where the library downloads the weights."""
        if self.timm_name is not None:
            return "timm"
        return "google drive" if self.published["gdrive_id"] else "torchvision"

    @property
    def nb_classes(self) -> int:
        """Number of outputs."""
        return NB_CLASSES[self.dataset]

    @property
    def needs_cuda(self) -> bool:
        """Whether it cannot be built without a GPU."""
        return self.name.startswith(_CUDA_ONLY)

    @property
    def preprocessing(self) -> str | None:
        """The key of RobustBench's transform for its images, ``"timm"`` for timm's own, None for CIFAR."""
        if self.dataset != "imagenet":
            return None
        return "timm" if self.timm_name is not None else self.published["preprocessing"]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the images that :attr:`preprocessing` gives."""
        if self.timm_name is not None:
            return _timm_config(self.timm_name).input_size  # type: ignore[no-any-return]
        if self.preprocessing is None:
            return INPUT_SHAPES[self.dataset]
        steps = import_robustbench().data.PREPROCESSINGS[self.preprocessing].transforms
        height, width = next(step.size for step in reversed(steps) if hasattr(step, "size"))
        return 3, height, width

    def files(self, model_dir: str | Path) -> dict[Path, str]:
        """The files that hold its weights in a directory of models, each with the address it can be fetched from.

        :param model_dir: The directory of models.
        """
        path = Path(model_dir) / self.dataset / self.threat_model / f"{self.name}.pt"
        drive = self.published["gdrive_id"]
        if self.source != "google drive":
            return {path: self.url}
        if isinstance(drive, list):
            return {path.with_name(f"{path.name}_m{i}.pt"): _drive_url(one) for i, one in enumerate(drive)}
        return {path: _drive_url(drive)}

    @property
    def url(self) -> str:
        """Of the weights that timm or torchvision keeps in torch hub's cache."""
        if self.timm_name is not None:
            return str(_timm_config(self.timm_name).url)
        from torchvision.models import ResNet50_Weights

        return str(ResNet50_Weights.IMAGENET1K_V1.url)

    @property
    def cached(self) -> Path:
        """Where torch hub's cache has those weights, whether it has them or not."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    def present(self, model_dir: str | Path) -> bool:
        """Whether all its weights are on disk, in the directory or (timm, torchvision) in torch hub's cache.

        :param model_dir: The directory of models.
        """
        return all(path.is_file() for path in self.files(model_dir)) or (
            self.source != "google drive" and self.cached.is_file()
        )

    def build(self) -> nn.Module:
        """The network on the default device with initial weights, nothing downloaded."""
        builder: Callable[[], nn.Module] = self.published["model"]
        if self.timm_name is not None:
            import timm

            net: nn.Module = timm.create_model(self.timm_name, pretrained=False, num_classes=self.nb_classes)
            return net
        if self.source == "torchvision":
            from torchvision import models

            # The published function asks for trained weights, which would be downloaded.
            untrained = SimpleNamespace(resnet50=lambda **_: models.resnet50(weights=None))
            builder = with_globals(builder, pt_models=untrained)
        return builder()


def entries(dataset: str | None = None, threat_model: str | None = None) -> list[Entry]:
    """All entries of the zoo, in its order; ``corruptions_3d`` means the ``corruptions`` zoo, as in RobustBench.

    :param dataset: Only those of one data set, or None.
    :param threat_model: Only those of one threat model, or None.
    :raises ValueError: An unknown data set or threat model, or a pair without a zoo.
    """
    if dataset is not None:
        check_dataset(dataset)
    zoo = None if threat_model is None else check_threat_model(threat_model).removesuffix("_3d")
    every = _every()
    found = [entry for entry in every if dataset in (None, entry.dataset) and zoo in (None, entry.threat_model)]
    if not found:
        pairs = dict.fromkeys((entry.dataset, entry.threat_model) for entry in every)
        raise ValueError(
            f"dataset, threat_model: RobustBench has no zoo for {dataset!r} with {threat_model!r}, expected one of "
            f"{', '.join(f'{one} {other}' for one, other in pairs)}."
        )
    return found


def find_entry(name: str, dataset: str, threat_model: str) -> Entry:
    """One entry.

    :param name: Its name, case included.
    :param dataset: Its data set.
    :param threat_model: Its threat model.
    :raises ValueError: If there is none; the nearest names are told, or the zoo that has this one.
    """
    inside = {entry.name: entry for entry in entries(check_dataset(dataset), check_threat_model(threat_model))}
    if check_text(name, "name") in inside:
        return inside[name]
    elsewhere = [f"{e.dataset} {e.threat_model}" for e in entries() if e.name == name]
    lower = {known.lower(): known for known in inside}
    near = [repr(lower[one]) for one in difflib.get_close_matches(str(name).lower(), list(lower), n=3)]
    hint = f"; it is in {', '.join(elsewhere)}" if elsewhere else f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(
        f"name: expected one of the {len(inside)} models that list_models({dataset!r}, {threat_model!r}) shows, got "
        f"{name!r}{hint}."
    )


def _every() -> list[Entry]:
    zoo = import_robustbench().model_zoo.model_dicts
    return [
        Entry(name, dataset.value, threat_model.value, published, _timm_name(name, dataset.value, threat_model.value))
        for dataset, threat_models in zoo.items()
        for threat_model, models in threat_models.items()
        for name, published in models.items()
    ]


def _timm_name(name: str, dataset: str, threat_model: str) -> str | None:
    """The name that RobustBench asks timm for first, if timm has it."""
    import timm

    spelt = f"{name}_{dataset}_{threat_model}".lower().replace("-", "_")
    return spelt if timm.is_model(spelt) else None


def _timm_config(timm_name: str) -> Any:
    import timm

    return timm.get_pretrained_cfg(timm_name)


def _drive_url(identifier: str) -> str:
    return f"https://drive.google.com/uc?id={identifier}"
