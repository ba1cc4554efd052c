"""Files that run code when they are read carelessly: what they hold, and every form in which it can be packed."""

from __future__ import annotations

import builtins
import os
import pickle  # noqa: TID251 (to make malicious files)
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml


class Evil:
    """What creates ``marker`` when it is unpickled.

    :param marker: The file that tells.
    :param way: One of :data:`WAYS`.
    """

    def __init__(self, marker: Path, way: str) -> None:
        self._call = WAYS[way](str(marker))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


WAYS: Mapping[str, Callable[[str], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "os.system": lambda marker: (os.system, (f"touch {marker}",)),
    "eval": lambda marker: (builtins.eval, (f"open({marker!r}, 'w').close()",)),
    "exec": lambda marker: (builtins.exec, (f"open({marker!r}, 'w').close()",)),
    "open": lambda marker: (builtins.open, (marker, "w")),
    "subprocess": lambda marker: (subprocess.check_call, ([sys.executable, "-S", "-c", f"open({marker!r}, 'w')"],)),
}

Form = Callable[[Path, Evil], None]


def _pickled(protocol: int) -> Form:
    return lambda path, evil: _ignore(path.write_bytes(pickle.dumps({"state_dict": evil}, protocol=protocol)))


def _saved(content: Callable[[Evil], Any], zipped: bool) -> Form:
    def write(path: Path, evil: Evil) -> None:
        with path.open("wb") as file:
            torch.save(content(evil), file, _use_new_zipfile_serialization=zipped)

    return write


def _array(path: Path, evil: Evil) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([evil], dtype=object), allow_pickle=True)


def _archive(path: Path, evil: Evil) -> None:
    names = ("x", "y", "x_train", "y_train", "x_test", "y_test")
    with path.open("wb") as file:
        np.savez(file, **{name: np.array([evil], dtype=object) for name in names})


def _ignore(_: Any) -> None: ...


def _weights(evil: Evil) -> Any:
    """A state dict as it should be, with one more thing."""
    return OrderedDict(weight=torch.ones(2), bias=evil)


FORMS: Mapping[str, Form] = {
    **{f"a pickle of protocol {protocol}": _pickled(protocol) for protocol in range(6)},
    "torch.save": _saved(lambda evil: evil, zipped=True),
    "torch.save beside weights": _saved(lambda evil: {"state_dict": {"w": torch.ones(1)}, "args": evil}, zipped=True),
    "torch.save among weights": _saved(_weights, zipped=True),
    "torch.save of old": _saved(_weights, zipped=False),
    "an .npy of objects": _array,
    "an .npz of objects": _archive,
}
"""Every form by name; each writes to a path."""

YAML_TAGS: Mapping[str, Callable[[str], str]] = {
    "apply": lambda marker: f"!!python/object/apply:os.system ['touch {marker}']",
    "new": lambda marker: f"!!python/object/new:os.system ['touch {marker}']",
    "eval": lambda marker: f"!!python/object/apply:builtins.eval [\"open('{marker}', 'w')\"]",
}


def read_carelessly(path: Path, form: str) -> None:
    """As a reader without the precautions would: the proof that a file is armed."""
    if form in ("an .npy of objects", "an .npz of objects"):
        found = np.load(path, allow_pickle=True)
        _ = [found[name] for name in found.files] if hasattr(found, "files") else found
    elif form.startswith("torch"):
        torch.load(path, weights_only=False)  # noqa: TID251
    elif form.startswith("the tag"):
        yaml.load(path.read_text(), yaml.UnsafeLoader)  # noqa: S506
    else:
        pickle.loads(path.read_bytes())
