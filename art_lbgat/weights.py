"""Weights read from files that cannot run code, loaded whole or not at all; and written in one piece."""

from __future__ import annotations

import logging
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from art_lbgat.checks import check_kind, check_path
from art_lbgat.files import write_bytes

logger = logging.getLogger(__name__)

State: TypeAlias = Mapping[str, Any]

_CONTAINERS = ("state_dict", "model", "model_state_dict", "net")
_PREFIXES = ("module.", "_orig_mod.")  # of nn.DataParallel and of torch.compile
_SHOWN = 300  # letters of a line that may name every tensor


def load_weights(model: nn.Module, path_or_state: str | os.PathLike[str] | State) -> None:
    """Load weights into ``model``: every tensor of the right shape, or nothing.

    A state dict under ``state_dict``, ``model``, ``model_state_dict`` or ``net`` is found. The prefixes ``module.`` and
    ``_orig_mod.`` of wrapped networks are taken off names that the model does not have, and so is any other that all
    names share. Layouts that torch's own modules upgrade (no counters of batches, ``weight_g``) load as in torch.

    :param model: Changed in place, on whatever device it is on; not changed if anything is wrong.
    :param path_or_state: A safetensors file, one of ``torch.save`` that holds only tensors, or a state dict.
    :raises ValueError: A file that is damaged or holds objects (it is never unpickled); tensors that do not fit.
    """
    check_kind(model, "model", nn.Module)
    if isinstance(path_or_state, Mapping):
        source, state = "the state dict", path_or_state
    else:
        source, state = str(path_or_state), read_weights(path_or_state)
    own = model.state_dict()
    if any(isinstance(value, Tensor) and value.is_meta for value in own.values()):
        raise ValueError("model: its parameters are on the meta device and hold no values; build it on a real device.")
    found = _without_prefixes(_tensors(state, source), own, source)
    _check_values(found, own, {name for name, _ in model.named_parameters()}, source)
    kept = {name: value.clone() if isinstance(value, Tensor) else value for name, value in own.items()}
    # What fits is torch's to say: its modules know names and layouts of older versions.
    try:
        model.load_state_dict(found, strict=True)
    except BaseException as error:
        model.load_state_dict(kept)
        if not isinstance(error, RuntimeError):
            raise
        raise ValueError(_does_not_fit(error, found, own, source)) from error


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the state dict of ``model`` as a safetensors file; readers see the old file or the new one, never a part.

    :param model: Its parameters and buffers are written under their own names, from whatever device.
    :param path: The file; one that exists is replaced.
    :raises ValueError: If the state dict holds anything but tensors with values.
    """
    check_kind(model, "model", nn.Module)
    target = check_path(path, "path")
    if target.is_dir():
        raise IsADirectoryError(f"path: expected a file, got the directory {target}.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: there is no directory {target.parent} to write {target.name} to.")
    write_bytes(target, save(copied_tensors(model)))


def copied_tensors(model: nn.Module, name: str = "model") -> dict[str, Tensor]:
    """What :func:`save_weights` writes: contiguous copies on the CPU. As :func:`save_weights`; errors say ``name``."""
    state = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.is_meta:
            kind = "a tensor on the meta device" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name}: expected tensors with values in its state dict, got {kind} under {key!r}.")
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def read_weights(path: str | os.PathLike[str]) -> State:
    """What a file of weights holds, read without running code: tensors and plain containers, containers not undone.

    :param path: A safetensors file or one of ``torch.save``.
    :return: The mapping in the file, tensors on the CPU.
    """
    path = check_path(path, "weights")
    if not path.exists():
        raise FileNotFoundError(f"weights: there is no file {path}.")
    if not path.is_file():
        raise ValueError(f"weights: expected a file, got the directory {path}.")
    with path.open("rb") as file:
        head = file.read(9)
    is_safetensors = head[8:9] == b"{"
    if not is_safetensors and head[:4] != b"PK\x03\x04" and head[:1] != b"\x80":
        page = " (a web page: the download failed)" if head.lstrip()[:1] == b"<" else ""
        expected = "expected a safetensors file or one of torch.save"
        raise ValueError(f"weights: {expected}, got {path}, which starts with {head!r}{page}.")
    try:
        state = load_file(path) if is_safetensors else _read_torch(path)
    except Exception as error:  # both readers raise many types for a damaged file, struct.error among them
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            raise ValueError(
                f"weights: {path} holds objects other than tensors ({foreign[1]}), so reading it could run code; it is "
                "refused. Open it where you trust it, and save the state dict alone."
            ) from error
        reason = str(error).split("\n")[0] or type(error).__name__
        damaged = "cannot be read, it is truncated or damaged, or no file of weights"
        raise ValueError(f"weights: {path} {damaged} ({reason}).") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"weights: expected a state dict in {path}, got {type(state).__name__}.")
    return state


def _read_torch(path: Path) -> Any:
    if torch.__version__ < "2.10":
        logger.warning(
            "weights: torch %s has known holes through which a file can run code in spite of weights_only "
            "(CVE-2025-32434, CVE-2026-24747): read %s only if you trust it, or use torch 2.10 or newer.",
            torch.__version__,
            path,
        )
    # Torch refuses both with weights_only, but not in all versions.
    if tarfile.is_tarfile(path):
        raise ValueError("it is a tar archive, a format of torch before 0.4")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
                raise ValueError("it is a TorchScript archive, which holds code")
    return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (the one place; tensors only)


def _tensors(state: State, source: str) -> dict[str, Tensor]:
    """The state dict itself, out of the containers it may be in."""
    for key in _CONTAINERS:
        if isinstance(state.get(key), Mapping):
            return _tensors(state[key], source)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"weights: expected names and tensors, got {type(value).__name__} under {name!r} in {source}; pass the "
                f"state dict itself, or a file that holds it under one of {list(_CONTAINERS)}."
            )
    return dict(state)


def _without_prefixes(state: dict[str, Tensor], own: State, source: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    bare = state
    while len({name.partition(".")[0] for name in bare}) == 1 < len(bare) and not own.keys() & bare.keys():
        bare = {name.partition(".")[2]: value for name, value in bare.items()}
    state = bare if own.keys() & bare.keys() else state
    for name, value in state.items():
        while name not in own and name.startswith(_PREFIXES):
            name = name.partition(".")[2]
        if name in found:
            raise ValueError(f"weights: {source} holds {name!r} twice, with and without a prefix such as 'module.'.")
        found[name] = value
    return found


def _check_values(found: State, own: State, parameters: set[str], source: str) -> None:
    """Refuse NaN anywhere, infinite parameters, and whole numbers where the model has floats."""
    for name, value in found.items():
        here = own.get(name)
        floats = value.is_floating_point() or value.is_complex()
        if isinstance(here, Tensor) and here.is_floating_point() and not floats:
            raise ValueError(
                f"weights: {source} holds {value.dtype} under {name!r}; expected floats, as the model has."
            )
        if floats and bool(value.isnan().any() or (name in parameters and value.isinf().any())):
            raise ValueError(f"weights: {source} holds NaN or Inf under {name!r}; nothing was loaded.")


def _does_not_fit(error: Exception, found: State, own: State, source: str) -> str:
    said = "; ".join(line.strip()[:_SHOWN] for line in str(error).splitlines()[1:6])
    here, there = (any(name.startswith("sub_block1.") for name in names) for names in (own, found))
    block = "the unused block of TRADES-era WideResNets is in one of the two: build the model with"
    hint = "" if here == there else f" ({block} sub_block1={there}.)"
    return f"weights: {source} does not fit the model, nothing was loaded. {said}{hint}"
