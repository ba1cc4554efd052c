"""Every public function with one argument wrong: an error that names the argument, at once, and nothing changed."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from torch import nn

from art_lbgat.data import Images
from qa.faults.public_calls import AWAITING, CALLS, Call
from qa.faults.row import Row

LIMIT = 10.0  # seconds that a try may take
_SETTINGS = settings(
    database=None,
    derandomize=False,  # each pair has a seed of its own instead
    deadline=None,
    phases=[Phase.generate],
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)


class Pair(NamedTuple):
    """One argument of one function.

    :param call: The function.
    :param argument: The argument.
    """

    call: Call
    argument: str

    def __str__(self) -> str:
        return f"{self.call.name}({self.argument}=)"


def pairs() -> list[Pair]:
    """All of them: the first argument of each function, then the second of each, and so on."""
    most = max(len(call.wrong) for call in CALLS)
    every = [Pair(call, list(call.wrong)[i]) for i in range(most) for call in CALLS if i < len(call.wrong)]
    return [pair for pair in every if str(pair) not in AWAITING]


def run(examples: int) -> Row:
    """Try wrong values of every argument of every public function in turn.

    :param examples: How many tries; more than once through the table where there are more of them than arguments.
    :return: The row; failures by name.
    """
    every = pairs()
    tried, failures = 0, []
    with elsewhere():
        for turn in range(100):
            left = examples - tried
            if left <= 0:
                break
            for place, pair in enumerate(every):
                here = left // len(every) + (place < left % len(every))
                for value, fault in _tries(pair, here, number=turn * len(every) + place):
                    tried += 1
                    if fault:
                        failures.append(f"{pair}: {value}: {fault}")
    good = tried - len(failures)
    waiting = [f"{len(AWAITING)} more not tried: {', '.join(AWAITING)}"] if AWAITING else []
    return Row(
        "a wrong value for one argument of a public function (type, shape, dtype, range, NaN, length, path)",
        "ValueError, TypeError or OSError that names the argument; no hang; inputs bit-equal",
        tried,
        good,
        "; ".join([f"{len(CALLS)} functions, {len(every)} arguments", *waiting, *failures]).replace("|", "/"),
    )


def _tries(pair: Pair, examples: int, number: int) -> list[tuple[str, str]]:
    """What was tried, and what was wrong with how it ended, empty if nothing was."""
    found: list[tuple[str, str]] = []
    if not examples:
        return found
    strategies = pair.call.wrong[pair.argument]
    first = number % len(strategies)  # so that few examples of many arguments are not all of the first kind

    @seed(number)
    @settings(_SETTINGS, max_examples=examples)
    @given(st.one_of(*strategies[first:], *strategies[:first]))
    def test(change: Callable[[Any], Any]) -> None:
        found.append(attempt(pair, change))

    test()
    return found


def attempt(pair: Pair, change: Callable[[Any], Any]) -> tuple[str, str]:
    """One call.

    :param pair: The function and the argument.
    :param change: From the right value to a wrong one.
    :return: The value in short, and what was wrong with how it ended.
    """
    function, arguments, *watched = pair.call.make()
    arguments[pair.argument] = change(arguments.get(pair.argument))
    shown = _short(arguments[pair.argument])
    before = frozen([arguments, watched])
    try:
        with _in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
        fault = "accepted"
    except (ValueError, TypeError, OSError, *pair.call.raises) as error:
        name = pair.call.says.get(pair.argument, pair.argument)
        fault = "" if _names(error, name, arguments[pair.argument]) else f"does not name it: {_short(error)}"
        if isinstance(error, KeyError | IndexError):
            fault = f"bare {_short(error)}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = f"raised {_short(error)}"
    if frozen([arguments, watched]) != before:
        fault = f"{fault}; inputs changed".removeprefix("; ")
    return shown, fault


def _names(error: BaseException, argument: str, value: Any) -> bool:
    text = str(error)
    if isinstance(error, OSError) and isinstance(value, str) and (value in text or str(Path(value)) in text):
        return True
    return re.search(rf"(?<!\w)({argument})(?!\w)", text) is not None


class Hang(BaseException):
    """Raised where a call takes too long."""


@contextmanager
def _in_time() -> Iterator[None]:
    """Raise :class:`Hang` after :data:`LIMIT` seconds (in the main thread, where signals are)."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: Any) -> None:
        raise Hang(f"took more than {LIMIT:g} s")

    found = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, found)


@contextmanager
def elsewhere() -> Iterator[None]:
    """In an empty folder, where a name that a function should have refused does no harm, and without a network."""
    found = Path.cwd()
    offline = mock.patch("socket.getaddrinfo", side_effect=OSError("no network"))
    with tempfile.TemporaryDirectory() as folder, offline:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(found)


def frozen(value: Any) -> Any:
    """What is equal for two values exactly if their bits are.

    :param value: Arrays, tensors, modules, classifiers, data, tables and containers of them.
    """
    if isinstance(value, np.ndarray):
        data = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
        return "array", str(value.dtype), value.shape, data
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return "tensor", str(value.dtype), tuple(value.shape), value.requires_grad, value.grad is None, data
    if isinstance(value, PyTorchClassifier):
        optimizer = value.optimizer and value.optimizer.state_dict()
        return "classifier", frozen(value.model), frozen(optimizer), repr(value.clip_values), value.input_shape
    if isinstance(value, nn.Module):
        grads = [(p.requires_grad, p.grad is None) for p in value.parameters()]
        return "module", frozen(dict(value.state_dict())), [m.training for m in value.modules()], grads
    if isinstance(value, Mapping):
        return "mapping", type(value).__name__, [(key, frozen(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [frozen(each) for each in value]
    if isinstance(value, Images):
        return "images", frozen(value.x), frozen(value.y), value.scale
    if isinstance(value, pd.DataFrame):
        return "frame", value.to_json(), list(map(str, value.dtypes))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, [(f.name, frozen(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if isinstance(value, (int, float, complex, str, bytes, np.generic, type(None))):
        return type(value).__name__, repr(value)
    return id(value)


def _short(value: Any) -> str:
    if isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim:
        return f"{type(value).__name__}{tuple(value.shape)} {value.dtype}"
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    return re.sub(r"\s+", " ", text)[:160]
