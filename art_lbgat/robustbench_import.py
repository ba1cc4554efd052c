"""The published ``robustbench`` imported where two of the modules that it asks for are gone.

robustbench 1.1.1 imports ``pkg_resources``, which setuptools 82 dropped, and ``autoattack``, which is not on PyPI (its
wheel depends on ``pyautoattack``). Stand-ins are in ``sys.modules`` for that one import only.
"""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from art_lbgat.checks import check_text
from art_lbgat.preserve import preserved_randomness

_LOCK = threading.RLock()
_Path = Path | str | None


def import_robustbench() -> ModuleType:
    """The published ``robustbench``, imported once; ``sys.modules`` holds no stand-in afterwards.

    A real ``autoattack`` is preferred; global random generators are unchanged.
    """
    with _LOCK:
        package = sys.modules.get("robustbench")
        if package is not None and hasattr(package, "benchmark"):
            return package
        for name in [name for name in sys.modules if name.startswith("robustbench.")]:
            del sys.modules[name]  # of an import that failed: they would be reused without being bound
        # A default device of the caller (meta, cuda) must not reach tensors that modules make when they are imported.
        with preserved_randomness(), torch.device("cpu"), _stand_ins():
            return importlib.import_module("robustbench")


def import_architecture(module_name: str) -> ModuleType:
    """A module of ``robustbench.model_zoo.architectures``.

    :param module_name: Its name there, such as ``"wide_resnet"``.
    """
    check_text(module_name, "module_name")
    with _LOCK, preserved_randomness(), torch.device("cpu"):
        import_robustbench()
        architectures = importlib.import_module("robustbench.model_zoo.architectures")
        known = [module.name for module in pkgutil.iter_modules(architectures.__path__)]
        if module_name not in known:
            raise ModuleNotFoundError(f"module_name: expected one of {known}, got {module_name!r}.")
        return importlib.import_module(f"{architectures.__name__}.{module_name}")


def with_globals(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """The same function, for which some global names of its module mean something else; the module is not touched."""
    module = getattr(function, "__globals__", {})
    unknown = sorted(set(names) - set(module))
    if not isinstance(function, FunctionType) or unknown:
        raise RuntimeError(
            f"robustbench: expected a function whose module has the names {unknown or list(names)}, got {function!r}; "
            "this version of robustbench is not supported."
        )
    parts = function.__name__, function.__defaults__, function.__closure__
    changed = FunctionType(function.__code__, {**module, **names}, *parts)
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Stand-ins for what cannot be imported, taken away (and what was there put back) also after an exception."""
    made: dict[str, ModuleType] = {}
    if not _has("pkg_resources", "resource_filename"):
        made["pkg_resources"] = _module("pkg_resources", resource_filename=_resource_filename)
    if not (_has("autoattack", "AutoAttack") and _has("autoattack.state", "EvaluationState")):
        if not (_has("pyautoattack", "AutoAttack") and _has("pyautoattack.state", "EvaluationState")):
            needed = "robustbench needs AutoAttack: expected the package 'pyautoattack' or 'autoattack'"
            raise ImportError(f"{needed}, neither can be imported; run 'pip install pyautoattack'.", name="autoattack")
        state = made["autoattack.state"] = _module("autoattack.state", EvaluationState=_evaluation_state())
        made["autoattack"] = _module("autoattack", AutoAttack=AutoAttack, state=state, __path__=[])
    found = {name: sys.modules[name] for name in made if name in sys.modules}  # None forbids an import: put back too
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)
        sys.modules.update(found)


def _has(module_name: str, attribute: str) -> bool:
    try:
        return hasattr(importlib.import_module(module_name), attribute)
    except Exception:  # a broken install raises anything: old pkg_resources an AttributeError on Python 3.12
        return False


def _module(module_name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(module_name, "A stand-in of art_lbgat, there only while robustbench is imported.")
    vars(module).update(attributes)
    return module


def _resource_filename(module_name: str, resource: str) -> str:
    """The path of a file beside a module, as ``pkg_resources.resource_filename`` gives it."""
    return str(Path(str(importlib.import_module(module_name).__file__)).parent / resource)


def _evaluation_state() -> type:
    """``pyautoattack``'s state, read from a path or its string, with flags whose mean can be taken."""
    base: Any = importlib.import_module("pyautoattack.state").EvaluationState

    class EvaluationState(base):  # type: ignore[misc]
        @classmethod
        def from_disk(cls, path: Path | str) -> Any:
            return super().from_disk(Path(path))

        @property
        def robust_flags(self) -> Tensor | None:
            return None if self._robust_flags is None else self._robust_flags.double()

    return EvaluationState


class AutoAttack:
    """``pyautoattack.AutoAttack`` as robustbench calls ``autoattack.AutoAttack``; other attributes are its own.

    ``attacks_to_run`` is for ``version="custom"``; with ``log_path`` the log of each run is appended to a file.
    """

    def __init__(
        self, model: nn.Module, *, attacks_to_run: list[str] | None = None, log_path: _Path = None, **settings: Any
    ) -> None:
        from pyautoattack import AutoAttack as Published

        self._attack: Any = Published(model, attacks=attacks_to_run, **{"device": "cuda", **settings})
        self._log_path = log_path

    def __getattr__(self, name: str) -> Any:
        if name == "_attack":  # asked for before __init__ set it, as copying does
            raise AttributeError(name)
        return getattr(self._attack, name)

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False, state_path: _Path = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run the attacks one after the other, each on what the ones before did not break."""
        path = None if state_path is None else Path(state_path)
        if path is not None and path.exists():
            _check_state(path)
        trace = sys.gettrace()
        try:
            with _log_file(self._log_path):
                x = x_orig.contiguous()  # its attacks use ``view``, which channels_last inputs do not allow
                x_adv, y_adv = self._attack.run_standard_evaluation(x, y_orig, batch_size=bs, state_path=path)
        finally:
            sys.settrace(trace)  # its check of the model ends with none, and debuggers and coverage go blind
        return (x_adv, y_adv) if return_labels else x_adv


def _check_state(path: Path) -> None:
    try:
        named = Path(json.loads(path.read_text(encoding="utf-8"))["path"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"state_path: {path} is damaged or no state of AutoAttack ({error!r}).") from error
    if named.resolve() != path.resolve():
        raise ValueError(f"state_path: {path} was written as {named}, where AutoAttack would write on; move it back.")


@contextmanager
def _log_file(path: _Path) -> Iterator[None]:
    """What the logger ``auto-attack`` says, from DEBUG on, appended to a file."""
    logger = logging.getLogger("auto-attack")
    handler, level = logging.NullHandler() if path is None else logging.FileHandler(path), logger.level
    logger.addHandler(handler)
    logger.setLevel(level if path is None else logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
