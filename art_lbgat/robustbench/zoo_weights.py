"""Weights of the zoo: fetched whole or not at all, read without running code, loaded by RobustBench's own rules."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from art_lbgat.robustbench.entries import Entry
from art_lbgat.robustbench_import import import_robustbench, with_globals
from art_lbgat.weights import read_weights

_HASH = re.compile(r"-([0-9a-f]{8,})\.")  # of its content, in the name of a file of torchvision's
_SHOWN = 300  # characters of another library's message
# What RobustBench leaves as built where a file lacks it: normalisation, and the counters of BatchNorm.
_MAY_BE_MISSING = ("mu", "sigma", "mean", "std", "num_batches_tracked")


def load_network(entry: Entry, model_dir: str | Path) -> nn.Module:
    """The network of an entry with its weights, in eval mode, on the default device.

    :param entry: Which.
    :param model_dir: Where the files are, or are downloaded to; timm's and torchvision's may be in torch hub's cache.
    :raises FileNotFoundError: A file is neither on disk nor can it be downloaded.
    :raises ValueError: A file that cannot be read, or that does not fit the network.
    :raises RuntimeError: RobustBench cannot build the network.
    """
    load = _from_drive if entry.source == "google drive" else _from_hub
    return load(entry, Path(model_dir)).eval()


def fetch(target: Path, url: str, download: Callable[[str], Any], place: Path) -> None:
    """Download weights to ``target``, which appears only when the file is whole and can be read.

    :param target: The file.
    :param url: Where it comes from, to be told.
    :param download: Writes to the path it is given.
    :param place: The file that the user may put there by hand, to be told.
    :raises FileNotFoundError: If the file did not come.
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
        reason = _short(f"{type(error).__name__}: {error}".replace(str(part), "what came"))
        raise FileNotFoundError(
            f"weights: there is no file {place}, and downloading it from {url} failed ({reason}). Get it by "
            f"other means, such as a browser, and put it at {place}."
        ) from error


def _from_drive(entry: Entry, model_dir: Path) -> nn.Module:
    """Through RobustBench's own ``load_model``, which reads and downloads by the functions here."""
    utils = import_robustbench().utils
    files = entry.files(model_dir)

    def download(identifier: str, path: str | Path) -> None:
        """Fetch one of the files."""
        path = Path(path)
        url = files.get(path, f"https://drive.google.com/uc?id={identifier}")
        fetch(path, url, lambda part: utils.download_gdrive_new(identifier, part), path)

    for path, url in files.items():  # before the network is built, which can take long
        if not path.is_file():
            download(url.rpartition("=")[2], path)
    reader = _Torch()
    load_model = with_globals(
        utils.load_model,
        torch=reader,
        download_gdrive_new=download,
        _safe_load_state_dict=_whole(utils._safe_load_state_dict),
    )
    try:
        net: nn.Module = load_model(entry.name, model_dir, entry.dataset, entry.threat_model)
    except Exception as error:  # KeyError, RuntimeError, AttributeError, ...: whatever meets a file of other content
        if reader.path is None:
            raise _cannot_build(entry, error) from error
        if reader.failed:
            raise
        raise _does_not_fit(reader.path, entry, error) from error
    return net


def _from_hub(entry: Entry, model_dir: Path) -> nn.Module:
    """From a file of the user's, else from torch hub's cache, where timm and torchvision keep theirs."""
    (path,) = entry.files(model_dir)
    place = path
    if not path.is_file():
        path = entry.cached
    if not path.is_file():
        known = _HASH.search(entry.url)
        checked: dict[str, Any] = {"hash_prefix": known[1]} if known else {}
        fetch(path, entry.url, lambda part: torch.hub.download_url_to_file(entry.url, part, **checked), place)
    state = _state(read_weights(path))
    try:
        net = entry.build()
    except Exception as error:
        raise _cannot_build(entry, error) from error
    try:
        if set(state) == set(net.state_dict()):
            net.load_state_dict(state)
        elif entry.timm_name is not None:
            net = _timm(entry.timm_name, entry.nb_classes, state)
        else:
            net.get_submodule("model").load_state_dict(state)
    except Exception as error:
        raise _does_not_fit(path, entry, error) from error
    return net


def _timm(timm_name: str, nb_classes: int, state: dict[str, Any]) -> nn.Module:
    """By timm, which renames what older files call otherwise; strict."""
    import timm

    overlay = {"state_dict": state}
    net: nn.Module = timm.create_model(
        timm_name, num_classes=nb_classes, pretrained=True, pretrained_cfg_overlay=overlay
    )
    return net


def _state(found: Mapping[str, Any]) -> dict[str, Any]:
    inner = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), Mapping)), found)
    return dict(inner)


class _Torch:
    """``torch`` for RobustBench's loader: its ``load`` reads without running code; all else is torch's.

    Attributes: ``path`` is the file read last, ``failed`` whether it could not be read.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.failed = False

    def load(self, path: str | Path, **_: Any) -> Mapping[str, Any]:
        """What the file holds, on the CPU."""
        self.path, self.failed = Path(path), True
        state = read_weights(path)
        self.failed = False
        return state

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _whole(published: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """RobustBench's ``_safe_load_state_dict``, which must not leave part of a network as it was initialised.

    For some names it loads what fits and keeps the rest.
    """

    def load(model: nn.Module, model_name: str, state: Mapping[str, Tensor], dataset: Any) -> nn.Module:
        """What is missing is an error; the rest is RobustBench's."""
        missing = [n for n in model.state_dict() if n not in state and n.rpartition(".")[2] not in _MAY_BE_MISSING]
        if missing:
            raise ValueError(f"{len(missing)} missing: {', '.join(missing[:5])}{', ...' if missing[5:] else ''}")
        return published(model, model_name, state, dataset)

    return load


def _cannot_build(entry: Entry, error: Exception) -> RuntimeError:
    return RuntimeError(
        f"name: RobustBench cannot build {entry.name!r} ({entry.dataset} {entry.threat_model}) here: "
        f"{type(error).__name__}: {_short(str(error))}"
    )


def _does_not_fit(path: Path, entry: Entry, error: Exception) -> ValueError:
    return ValueError(
        f"weights: {path} does not fit {entry.name!r} ({entry.dataset} {entry.threat_model}): "
        f"{type(error).__name__}: {_short(str(error))} Remove the file to have it downloaded anew."
    )


def _short(message: str) -> str:
    words = " ".join(message.split())
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]} ..."
