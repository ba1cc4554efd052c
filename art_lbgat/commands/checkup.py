"""What ``art-lbgat doctor`` looks at."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional

State = Literal["ok", "missing", "broken", "note"]
_NEEDED = ("torch", "torchvision", "adversarial-robustness-toolbox", "numpy", "pandas", "scipy", "scikit-learn",
           "safetensors", "robustbench", "pyautoattack", "timm", "accelerate", "filelock", "jinja2", "pyyaml", "rich",
           "tomli-w", "tqdm", "typer")  # fmt: skip
_OPTIONAL = {
    "matplotlib": "plots of art_lbgat.diagnostics",
    "tensorboard": "--tracker tensorboard",
    "wandb": "--tracker wandb",
    "mlflow": "--tracker mlflow",
    "autoattack": "the authors' AutoAttack, used in place of pyautoattack",
}
_TOLERANCE = 1e-6


class Finding(NamedTuple):
    """One line.

    :param group: What it belongs to.
    :param name: What was looked at.
    :param state: ``"ok"``, ``"missing"`` (and not needed), ``"note"``, or ``"broken"``.
    :param text: What was found.
    """

    group: str
    name: str
    state: State
    text: str


def check_up() -> list[Finding]:
    """Everything, in the order in which it is shown; nothing is raised."""
    parts: list[Callable[[], Iterator[Finding]]] = [_versions, _optional, _devices, _robustbench, _self_test]
    found: list[Finding] = []
    for part in parts:
        try:
            found.extend(part())
        except Exception as error:  # noqa: PERF203 (what is broken is what is looked for)
            found.append(Finding("failed", part.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}"))
    return found


def _versions() -> Iterator[Finding]:
    from art_lbgat import __version__

    yield Finding("versions", "art-lbgat", "ok", __version__)
    yield Finding(
        "versions", "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    for name in _NEEDED:
        try:
            yield Finding("versions", name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:  # noqa: PERF203
            yield Finding("versions", name, "broken", f"not installed: pip install {name}")


def _optional() -> Iterator[Finding]:
    for name, use in _OPTIONAL.items():
        there = find_spec(name) is not None
        version = "no version"
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
        yield Finding(
            "optional", name, "ok" if there else "missing", f"{version if there else 'not installed'} ({use})"
        )


def _devices() -> Iterator[Finding]:
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    variable = os.environ.get("OMP_NUM_THREADS")
    yield Finding("devices", "cpu", "ok", threads + (f", OMP_NUM_THREADS={variable}" if variable else ""))
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        memory = properties.total_memory / 2**30
        text = f"{properties.name}, {memory:.0f} GiB, compute capability {properties.major}.{properties.minor}"
        yield Finding("devices", f"cuda:{i}", "ok", text)
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Finding("devices", "cuda", "missing", f"no GPU that torch can use; {built}")
    world = os.environ.get("WORLD_SIZE", "1")
    yield Finding("devices", "processes", "ok", f"WORLD_SIZE={world}")


def _robustbench() -> Iterator[Finding]:
    """Which of the breaks of the published package apply here, and whether it works in spite of them."""
    from art_lbgat.evaluation.autoattack import published_package
    from art_lbgat.robustbench import import_robustbench, list_models

    breaks = {
        "pkg_resources": ("pkg_resources", "it is imported, and setuptools dropped it in release 82"),
        "autoattack": ("autoattack.state", "it is imported, and is not on PyPI; pyautoattack takes its place"),
    }
    for name, (module, why) in breaks.items():
        applies = not _importable(module)
        yield Finding(
            "robustbench", name, "note" if applies else "ok", f"{why}: {'stepped round' if applies else 'here'}"
        )
    start = time.perf_counter()
    package = import_robustbench()
    version = metadata.version("robustbench")
    yield Finding("robustbench", "import", "ok", f"{version} in {time.perf_counter() - start:.1f} s")
    yield Finding("robustbench", "zoo", "ok", f"{len(list_models())} models")
    left = [
        name
        for name in ("pkg_resources", "autoattack")
        if "stand-in" in str(getattr(sys.modules.get(name), "__doc__", ""))
    ]
    yield Finding(
        "robustbench", "stand-ins", "broken" if left else "ok", f"left behind: {left}" if left else "none left"
    )
    callable_ = callable(getattr(package, "benchmark", None))
    yield Finding(
        "robustbench", "benchmark", "ok" if callable_ else "broken", f"AutoAttack of {published_package().__name__}"
    )


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # a broken install raises anything
        return False
    return True


def _self_test() -> Iterator[Finding]:
    """Two steps of LBGAT on the digits, the attack and the loss of a step against their equations."""
    from art_lbgat.attacks import PGDAttack
    from art_lbgat.data import load_digits
    from art_lbgat.models import create_classifier
    from art_lbgat.preserve import preserved_randomness
    from art_lbgat.trainers import LBGATTrainer

    data = load_digits()
    x, y = data.train
    with preserved_randomness():
        torch.manual_seed(0)
        models = [
            create_classifier("small-cnn", 10, (1, 8, 8), learning_rate=0.05, device_type="cpu") for _ in range(2)
        ]
    classifier, guide = models
    expected_x, expected_loss = _reference(classifier.model, guide.model, x[:64], y[:64])
    attack = PGDAttack(classifier, eps=0.2, eps_step=0.05, max_iter=2, num_random_init=0)
    found_x = attack.generate(x[:64], y[:64])
    difference = float(np.abs(found_x - expected_x).max())
    yield _equal("x_adv", difference, "two PGD steps against x + eps_step * sign(gradient)")
    trainer = LBGATTrainer(classifier, guide, attack, seed=0, verbose=False)
    trainer.fit(x[:64], y[:64], batch_size=64, nb_epochs=1)
    # the batch is in another order, which moves the last bits of a mean
    difference = abs(float(trainer.history["loss"].iloc[0]) - expected_loss)
    yield _equal("loss", difference, "a step's loss against MSE(M_r(x_adv), M_n(x)) + CE(M_n(x), y)", 1e-4)
    start = time.perf_counter()
    trainer.fit(x[:128], y[:128], batch_size=64, nb_epochs=1)
    seconds, last = time.perf_counter() - start, float(trainer.history["loss"].iloc[-1])
    state: State = "ok" if np.isfinite(last) else "broken"
    yield Finding("self test", "two steps", state, f"LBGAT on the digits in {seconds:.2f} s, loss {last:.4f}")


def _equal(name: str, difference: float, text: str, tolerance: float = _TOLERANCE) -> Finding:
    equal = "equal to the bit" if difference == 0 else f"largest difference {difference:.1e}"
    return Finding("self test", name, "ok" if difference <= tolerance else "broken", f"{text}: {equal}")


def _reference(model: Any, guide: Any, x: Any, y: Any) -> tuple[Any, float]:
    """The adversarial examples and the loss of the first step, in the slow and obvious way; models as found."""
    import copy

    model, guide = copy.deepcopy(model), copy.deepcopy(guide)
    natural, labels = torch.from_numpy(x), torch.from_numpy(y)
    model.eval()
    x_adv = natural.clone()
    for _ in range(2):
        x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(x_adv), labels), x_adv)
        step = x_adv.detach() + 0.05 * gradient.sign()
        x_adv = torch.clamp(torch.min(torch.max(step, natural - 0.2), natural + 0.2), 0.0, 1.0)
    model.train()
    guide.train()
    logits, guide_logits = model(x_adv), guide(natural)
    loss = functional.mse_loss(logits, guide_logits) + functional.cross_entropy(guide_logits, labels)
    return x_adv.numpy(), float(loss.detach())
