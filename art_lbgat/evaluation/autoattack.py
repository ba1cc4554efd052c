"""AutoAttack (arXiv 2003.01690): the published package's results to the bit, resumable, shared by processes."""

from __future__ import annotations

import importlib
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from art_lbgat import checks
from art_lbgat.attacks.projections import check_scale
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation import subject
from art_lbgat.evaluation.record import Entry, Record, Sharing, model_identity, sharing
from art_lbgat.fingerprint import sha256_of
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

logger = logging.getLogger(__name__)

NATURAL = "natural"
ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
_PACKAGES = ("autoattack", "pyautoattack")  # the first is the authors', in git only; the second its copy on PyPI
_SQUARE_L2_SIDE = 5  # its L2 patches tile a fifth of the height; smaller images end in a division by zero
_TARGETS = 9


class AutoAttackResult(NamedTuple):
    """What AutoAttack found.

    :param x_adv: Adversarial examples, ``(N, ...)``; samples that were not broken keep their natural image.
    :param right: Which samples are right naturally, ``(N,)``, bool.
    :param robust: Which of them withstood every attack, ``(N,)``, bool.
    :param accuracies: Accuracy after each attack, run on what the ones before left, as long as anything was robust.
    :param flags: What was noticed, message by name (``"randomised"``, ``"softmax"``, ``"dynamic"``, ``"zero
        gradients"``, ``"square stronger"``, ``"few classes"``, ``"non-finite logits"``).
    :param seconds: Seconds of work on each attack, those of earlier sessions and of all processes included.
    """

    x_adv: Tensor
    right: Tensor
    robust: Tensor
    accuracies: dict[str, float]
    flags: dict[str, str]
    seconds: dict[str, float]


def auto_attack(
    view: TensorView,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: float = math.inf,
    attacks: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
    *,
    state_path: str | os.PathLike[str] | None = None,
    verbose: bool = False,
) -> AutoAttackResult:
    """Run AutoAttack on a classifier, preprocessing included.

    A run that resumes from a file ends in the same bits, on the same machine, as one that was never stopped. Several
    processes (torchrun's) share the batches of each attack and get the result of one; every one has to call this.

    Other arguments: see :func:`~art_lbgat.evaluation.evaluate`.

    :param view: The classifier; attacked in eval mode, modes restored.
    :param x: Raw natural inputs, ``(N, *input_shape)``, on any device.
    :param y: Index labels, ``(N,)``.
    :param attacks: ``"standard"`` (APGD-CE, targeted APGD-DLR, targeted FAB, Square) or a list of names (custom). With
        fewer than 10 classes there are fewer targets, with 3 untargeted APGD-DLR, with 2 no DLR; this is flagged.
    :param batch_size: Samples attacked together; random starts depend on it.
    :param seed: Seed of every batch.
    :param state_path: A directory for finished batches, from which any number of processes resume. None keeps nothing.
    :param verbose: Whether a progress bar is shown for each attack, by the main process.
    :return: The examples in raw input units, what withstood, and the warnings.
    :raises ValueError: Bad arguments, no or non-uniform ``clip_values``, too few classes or too small images for an
        attack, logits that are not finite, a damaged file or one of another run, processes with other models or data.
    :raises RuntimeError: If another process has ended.
    :raises BlockingIOError: If another run has the file open.
    """
    checks.check_kind(view, "view", TensorView)
    for name, value in (("x", x), ("y", y)):
        checks.check_kind(value, name, Tensor)
    if not x.is_floating_point():
        raise TypeError(f"x: expected floats, got {x.dtype}.")
    x = view.taken(x, "x")
    if y.ndim != 1 or y.dtype != torch.int64:
        raise ValueError(f"y: expected index labels (N,) as int64, got {y.dtype} of shape {tuple(y.shape)}.")
    checks.check_labels(y, view.classifier.nb_classes, length=len(x))
    check_scale(checks.check_number(eps, "eps"), checks.check_norm(norm), view)
    attack_names(attacks, view.classifier.nb_classes)
    checks.check_count(batch_size, "batch_size")
    checks.check_seed(seed)
    checks.check_flag(verbose, "verbose")
    path = None if state_path is None else checks.check_path(state_path, "state_path")
    model = UnitModel(view)
    settings = (eps / model.scale, norm, attacks, batch_size, seed)
    found = attack_images(view, model, model.to_unit(x.cpu()), y, *settings, state_path=path, verbose=verbose)
    broken = (found.right & ~found.robust).to(x.device)
    raw = torch.where(broken.reshape(-1, *[1] * (x.ndim - 1)), model.to_raw(found.x_adv).to(x), x)
    return found._replace(x_adv=raw)


class UnitModel(nn.Module):
    """The classifier as a net on images in [0, 1]: ``x = low + u * (high - low)`` for uniform ``clip_values``."""

    def __init__(self, view: TensorView) -> None:
        super().__init__()
        bounds = view.bounds()
        if bounds is None:
            raise ValueError(f"{view.name}: AutoAttack needs bounded inputs; give it clip_values=(min, max).")
        low, high = (torch.unique(bound) for bound in bounds)
        if len(low) != 1 or len(high) != 1:
            raise ValueError(f"{view.name}: AutoAttack needs one range for all features, not clip_values by feature.")
        self._view, self._low, self.scale = view, float(low), float(high) - float(low)
        self._is_unit = (self._low, self.scale) == (0.0, 1.0)
        with torch.inference_mode(False):  # or it could not be written to outside that mode
            #: Whether a forward pass has given NaN or Inf: kept on the device, so asked for once, at the end.
            self.non_finite = torch.zeros((), dtype=torch.bool, device=view.device)
        self.eval()

    def forward(self, unit: Tensor) -> Tensor:
        """Logits ``(N, C)`` of inputs ``(N, ...)`` in [0, 1], of any shape with the right number of values."""
        logits = self._view.logits(self.to_raw(unit)).float()  # the attacks mix no types
        self.non_finite |= ~torch.isfinite(logits.detach()).all()
        return logits

    def to_raw(self, unit: Tensor) -> Tensor:
        """From [0, 1] to the classifier's own range and shape."""
        unit = unit.movedim(1, -1) if self._view.channels_last and unit.ndim == 4 else unit
        x = unit.reshape(len(unit), *self._view.classifier.input_shape)
        return x if self._is_unit else x * self.scale + self._low

    def to_unit(self, x: Tensor) -> Tensor:
        """From the classifier's own range to [0, 1], as images; flat inputs as the squarest image."""
        unit = x if self._is_unit else (x - self._low) / self.scale
        if unit.ndim == 4:
            return unit.movedim(-1, 1) if self._view.channels_last else unit
        size = unit[0].numel()
        height = max(h for h in range(1, math.isqrt(size) + 1) if size % h == 0)
        return unit.reshape(len(unit), 1, height, size // height)


def unless_unbounded(attacks: Sequence[str], classifier: Any) -> list[str]:
    """Default attacks; without AutoAttack, which is said, where there is no one range of inputs that it needs."""
    for each in classifier.values() if isinstance(classifier, Mapping) else [classifier]:
        clip_values = getattr(each, "clip_values", (0.0, 1.0))
        if clip_values is None or any(np.ptp(value) for value in clip_values):
            logger.warning("AutoAttack is left out: it needs one range of inputs, clip_values of two numbers.")
            return [name for name in attacks if name in ("natural", "pgd-20")]
    return list(attacks)


def published_package() -> ModuleType:
    """The AutoAttack package there is: ``autoattack`` where it is installed, else ``pyautoattack``; or ImportError."""
    for name in _PACKAGES:
        try:
            package = importlib.import_module(name)
            distrust = importlib.import_module(f"{name}.checks")
        except Exception:  # noqa: S112 (a module of the user's with that name can raise anything)
            continue
        if hasattr(package, "AutoAttack") and hasattr(distrust, "check_randomized"):
            return package
    raise ImportError(
        "AutoAttack: expected the package 'pyautoattack' or 'autoattack', neither can be imported; run 'pip install "
        "pyautoattack'.",
        name="pyautoattack",
    )


def attack_names(
    attacks: str | Sequence[str], nb_classes: int, argument: str = "attacks"
) -> tuple[list[str], dict[str, str]]:
    """The attacks to run, and flags if they are not those of ten classes or more; errors name the argument."""
    notes = {}
    if nb_classes <= _TARGETS:
        notes[subject.FEW_CLASSES] = (
            f"targeted attacks try {nb_classes - 1} targets, all there are, instead of {_TARGETS}."
        )
    if isinstance(attacks, str) and attacks == "standard":
        names = list(STANDARD)
        if nb_classes < 4:  # the targeted DLR loss divides by a difference of the third and fourth logit
            names[1:2] = ["apgd-dlr"] if nb_classes == 3 else []
            notes[subject.FEW_CLASSES] = (
                f"with {nb_classes} classes there is no targeted DLR loss; attacks run: {names}."
            )
        return names, notes
    given = [attacks] if isinstance(attacks, str) else attacks
    if not isinstance(given, Sequence) or not given:
        raise ValueError(f"{argument}: expected 'standard' or at least one of {list(ATTACKS)}, got {attacks!r}.")
    names = [checks.check_choice(name, argument, ATTACKS) for name in given]
    for name, fewest in (("apgd-t", 4), ("apgd-dlr", 3)):
        if name in names and nb_classes < fewest:
            raise ValueError(
                f"{argument}: the DLR loss of {name} needs at least {fewest} classes, the classifier has {nb_classes}; "
                "use a list such as ['apgd-ce', 'fab-t', 'square']."
            )
    return names, notes if {"apgd-t", "fab-t"} & set(names) else {}


def needs_gradients(names: Sequence[str]) -> bool:
    """Whether any of these attacks, as :func:`attack_names` gives them, differentiates the model."""
    return set(names) != {"square"}


def attack_images(
    view: TensorView,
    model: UnitModel,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: float,
    attacks: str | Sequence[str],
    batch_size: int,
    seed: int,
    *,
    state_path: str | os.PathLike[str] | None,
    verbose: bool,
) -> AutoAttackResult:
    """:func:`auto_attack` on images in [0, 1], with ``eps`` and the result in units of that range."""
    names, notes = attack_names(attacks, view.classifier.nb_classes)
    if "square" in names:
        view.check_layout("attacks (square)")
    if norm != math.inf and min(x.shape[2:]) < _SQUARE_L2_SIDE and "square" in names:
        raise ValueError(
            f"attacks: Square in L2 needs images of at least {_SQUARE_L2_SIDE}x{_SQUARE_L2_SIDE} values, got "
            f"{tuple(x.shape[2:])}; leave 'square' out with a custom list."
        )
    # contiguous and on the CPU, since the attacks use ``view`` and batches are moved one by one
    x, y = x.cpu().contiguous(), y.cpu()
    package = published_package()
    distrust = importlib.import_module(f"{package.__name__}.checks")
    # standard also for its replacements with few classes, so that the number of restarts is the standard's
    version = "standard" if attacks == "standard" else "custom"
    settings = {"eps": eps, "norm": "Linf" if norm == math.inf else "L2", "seed": seed}
    with sharing(view.device) as shared:
        identity = {} if state_path is None and shared.world == 1 else {
            **settings,
            "attacks": [*names, version],
            "batch_size": batch_size,
            **model_identity(view),
            "data": sha256_of([x, y]),
            "package": package.__name__,
        }  # fmt: skip
        shared.agree(identity)
        with (
            shared.every(lambda: Record(state_path if shared.is_main else None, identity)) as record,
            plain_autograd(view.device),
            torch.no_grad(),
            preserved_randomness(),
            evaluating(view.module),
        ):
            runner = package.AutoAttack(model, device=view.device, version=version, **settings)
            targets = min(_TARGETS, view.classifier.nb_classes - 1)
            runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = targets
            batches = _Batches(runner, distrust, x, y, batch_size)
            found = _run_attacks(batches, names, record, shared, verbose)
    said = _Logger()
    natural = {"clean": float(found.right.double().mean())}
    distrust.check_square_sr({**natural, **found.accuracies}, logger=said)
    if said.message:  # Square, which uses no gradients, found more than the attacks before it left
        notes = {subject.SQUARE_STRONGER: said.message, **notes}
    return found._replace(flags={**found.flags, **notes})


def _run_attacks(
    batches: _Batches, names: Sequence[str], record: Record, shared: Sharing, verbose: bool
) -> AutoAttackResult:
    """The order of AutoAttack, batch by batch: each attack on what the ones before did not break."""
    known = shared.recorded(record, NATURAL, [0])
    (natural,) = shared.round(record, NATURAL, [0], lambda _: batches.natural())
    if known:
        shared.every(lambda: batches.check_same(natural.x_adv))
    right = torch.zeros(len(batches.x), dtype=torch.bool)
    right[natural.rows] = True
    robust, x_adv = right.clone(), batches.x.clone()
    flags, seconds = dict(natural.flags), {NATURAL: natural.seconds}
    accuracies: dict[str, float] = {}
    for name in names:
        left, size = robust.nonzero().flatten(), batches.size
        if not len(left):
            break
        seconds[name] = 0.0
        batches.prepared(name)  # also if all is in the record: fab-t leaves its settings to fab
        attack = partial(batches.attack, name, left)
        places = range(0, len(left), size)
        with tqdm(total=len(left), desc=name, unit=" images", disable=not (verbose and shared.is_main)) as bar:
            for first in range(0, len(places), shared.world):
                now = places[first : first + shared.world]
                for place, entry in zip(now, shared.round(record, name, now, attack), strict=True):
                    robust[entry.rows] = False
                    x_adv[entry.rows] = entry.x_adv.to(x_adv)
                    for flag, message in entry.flags.items():
                        flags.setdefault(flag, message)
                    seconds[name] += entry.seconds
                    bar.update(min(size, len(left) - place))
                    bar.set_postfix_str(f"robust at most {robust.double().mean():.2%}")
        accuracies[name] = float(robust.double().mean())
    return AutoAttackResult(x_adv, right, robust, accuracies, flags, seconds)


@dataclass
class _Batches:
    """The samples of a run and what is done to a batch of them, in eval mode, with randomness preserved."""

    runner: Any  # the published package's AutoAttack
    distrust: ModuleType  # the checks of that package
    x: Tensor
    y: Tensor
    size: int

    def natural(self) -> Entry:
        """Which samples are right naturally, and what AutoAttack's checks say of the first batch."""
        start = time.perf_counter()
        seed_everything(self.runner.seed)
        rows = torch.split(torch.arange(len(self.x)), self.size)
        logits = torch.cat([self.runner.model(self._batch(each)[0]).cpu() for each in rows])
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("classifier: its logits for natural images hold NaN or Inf.")
        right = (logits.argmax(dim=1) == self.y).nonzero().flatten()
        flags = check_defence(self.distrust, self.runner.model, *self._batch(rows[0]))
        return Entry(right, logits[: self.size].clone(), flags, time.perf_counter() - start)

    def check_same(self, recorded: Tensor) -> None:
        """Whether the model still answers as it did: weights and layers alone do not tell, an attribute may count."""
        seed_everything(self.runner.seed)
        logits = self.runner.model(self._batch(slice(0, self.size))[0]).cpu()
        tolerance = 1e-3 * float(recorded.abs().max())
        if logits.shape != recorded.shape or not torch.allclose(logits, recorded, rtol=0, atol=tolerance):
            raise ValueError(
                "state_path: it belongs to another run, so to resume it would mix two: the model gives other logits "
                "for the same images than it recorded. Take another path, or delete the directory."
            )

    def attack(self, name: str, left: Tensor, place: int) -> Entry:
        """One attack on the batch at a place of what is left."""
        start, said, rows = time.perf_counter(), _Logger(), left[place : place + self.size]
        seed_everything(self.runner.seed)
        self.runner.apgd.logger = self.runner.apgd_targeted.logger = said
        images, labels = self._batch(rows)
        adversarial = self.prepared(name).perturb(images, labels)
        logits = self.runner.model(adversarial)
        # logits that are not finite classify nothing, whatever the argmax makes of them
        broken = (logits.max(dim=1)[1] != labels) | ~torch.isfinite(logits).all(dim=1)
        flags = {subject.ZERO_GRADIENTS: said.message} if said.message else {}
        if self.runner.model.non_finite:
            flags[subject.NON_FINITE] = f"the logits of some inputs of {name} hold NaN or Inf, which misleads attacks."
        return Entry(rows[broken.cpu()], adversarial[broken].cpu(), flags, time.perf_counter() - start)

    def prepared(self, name: str) -> Any:
        """The attack object of a name, set as AutoAttack sets it before each batch."""
        runner = self.runner
        named = {"square": runner.square, "apgd-t": runner.apgd_targeted, "fab": runner.fab, "fab-t": runner.fab}
        chosen = named.get(name, runner.apgd)
        if chosen is runner.apgd:
            chosen.loss = name.removeprefix("apgd-")
        if chosen is runner.fab:
            chosen.targeted = name == "fab-t"
        if name == "fab-t":
            chosen.n_restarts = 1
        chosen.seed = runner.seed
        return chosen

    def _batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.x[rows].to(self.runner.device), self.y[rows].to(self.runner.device)


class _Logger:
    """Stands in for the logger of AutoAttack, of either package: keeps the first warning, drops progress."""

    message = ""

    def warning(self, message: str) -> None:
        self.message = self.message or message.split(" See ")[0].removeprefix("Warning: ").strip()

    def log(self, message: str) -> None:
        if message.startswith("Warning: "):
            self.warning(message)

    def debug(self, message: str) -> None: ...

    info = debug


def check_defence(distrust: ModuleType, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """What makes AutoAttack's module ``checks`` distrust a defence, on one natural batch: message by flag."""
    said = {name: _Logger() for name in (subject.RANDOMISED, subject.SOFTMAX, subject.DYNAMIC)}
    distrust.check_randomized(model, x, y, bs=len(x), logger=said[subject.RANDOMISED])
    distrust.check_range_output(model, x, logger=said[subject.SOFTMAX])
    for counter in distrust.funcs:
        distrust.funcs[counter] = 0  # module-global: one hit would flag every later model of the process
    # It ends with sys.settrace(None), which blinds coverage and debuggers; a trace function belongs to its thread.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(distrust.check_dynamic, model, x, False, logger=said[subject.DYNAMIC]).result()
    return {name: logger.message for name, logger in said.items() if logger.message}
