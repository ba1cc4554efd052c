"""What a run was started with, as plain data: resuming with other settings is refused, and told which."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PACKAGES = ("art-lbgat", "torch", "torchvision", "numpy", "adversarial-robustness-toolbox", "safetensors")
_SIMPLE = (bool, int, float, str, type(None), np.ndarray, Tensor, tuple)
MAY_CHANGE = (
    *("nb_epochs", "verbose", "trackers", "on_step"),
    *("checkpoint_dir", "checkpoint_every", "keep_checkpoints", "resume"),
)


def described(value: Any) -> Any:
    """A value as JSON that is equal for equal settings: numbers and text as they are, arrays by their SHA-256."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return sha256_of([value]) if value.ndim else described(value.item())
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__qualname__, **fields}
    if isinstance(value, Mapping):
        return {str(key): described(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [described(each) for each in value]
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    simple = {k: described(v) for k, v in getattr(value, "__dict__", {}).items() if isinstance(v, _SIMPLE)}
    return {"type": type(value).__qualname__, **simple} if simple else type(value).__qualname__


def sha256_of(values: Iterable[Any]) -> str:
    """SHA-256 over dtypes, shapes and bytes of tensors and arrays, and over texts, in their order."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            digest.update(value.encode())
            continue
        data: Any = np.asarray(value) if not isinstance(value, Tensor) else value.detach().cpu().contiguous()
        digest.update(f"torch.{str(data.dtype).removeprefix('torch.')}{tuple(data.shape)}\0".encode())
        if isinstance(data, Tensor):  # as bytes, since some types (bfloat16) have no numpy counterpart
            data = data.reshape(-1).view(torch.uint8).numpy() if data.numel() else np.empty(0)
        digest.update(np.ascontiguousarray(data).data)
    return digest.hexdigest()


def module_layout(module: nn.Module) -> str:
    """SHA-256 over a module's layers as it prints them, and names, shapes and dtypes of its parameters and buffers."""
    state = module.state_dict()
    lines = [f"{k} {tuple(v.shape)} {v.dtype}" if isinstance(v, Tensor) else k for k, v in state.items()]
    printed = re.sub(r" at 0x[0-9a-f]+", "", repr(module))
    return hashlib.sha256("\n".join([printed, *lines]).encode()).hexdigest()


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of the state dict, in order of the names; what is no tensor in it (``get_extra_state``) as it prints."""
    return sha256_of(_leaves(dict(sorted(module.state_dict().items()))))


def _leaves(tree: Any) -> Iterator[Any]:
    """Names, tensors and texts of nested data; a printed tensor would leave most of its values out."""
    tree = dict(enumerate(tree)) if isinstance(tree, (list, tuple)) else tree
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield f"{name}\0"
            yield from _leaves(value)
    else:
        yield (tree.dequantize() if tree.is_quantized else tree) if isinstance(tree, Tensor) else repr(tree)


def optimizer_settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The kind of an optimizer and the settings of its groups; of the learning rate the first, whatever it is now."""
    groups = []
    for group in optimizer.param_groups:
        values = {name: described(value) for name, value in group.items() if name not in ("params", "initial_lr")}
        groups.append(
            {**values, "lr": described(group.get("initial_lr", group["lr"])), "tensors": len(group["params"])}
        )
    return {"type": type(optimizer).__qualname__, "groups": groups}


def surroundings(world: int) -> dict[str, Any]:
    """What the bits of a result may depend on beside the settings: versions, threads, processes, processor."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "threads": torch.get_num_threads(),
        "processes": world,
        "machine": platform.machine(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Lines ``name: old -> new`` for whatever differs between two trees of JSON."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = {**old, **new}
        return [line for n in names for line in differences(old.get(n), new.get(n), f"{path}.{n}" if path else n)]
    if isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str) and len(old) == len(new):
        return [
            line for i, pair in enumerate(zip(old, new, strict=True)) for line in differences(*pair, f"{path}[{i}]")
        ]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text[:12]}...{text[-1]}" if isinstance(value, str) and len(value) == 64 else text[:120]
