"""AutoAttack (arXiv 2003.01690): the attacks of the published package, in a run that can be killed and goes on."""

from __future__ import annotations

import importlib
import inspect
import math
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from art_lbgat.attacks.projections import check_scale
from art_lbgat.checks import (
    check_choice,
    check_count,
    check_flag,
    check_inputs,
    check_kind,
    check_labels,
    check_norm,
    check_number,
    check_path,
    check_seed,
)
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack_checks import FEW_CLASSES
from art_lbgat.evaluation.autoattack_loop import AutoAttackResult, run_attacks
from art_lbgat.evaluation.identity import data_sha256, model_identity
from art_lbgat.evaluation.record import Record
from art_lbgat.evaluation.sharing import sharing
from art_lbgat.evaluation.unit import UnitModel
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness

ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
_PACKAGES = ("autoattack", "pyautoattack")  # the first is the authors', in git only; the second its copy on PyPI
_SQUARE_L2_SIDE = 5  # its L2 patches tile a fifth of the height; smaller images end in a division by zero
_TARGETS = 9


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

    Every batch is a function of the batch and the seed alone, as in the published package on that seed; so a run that
    goes on from a file ends in the same bits, on the same machine, as one that was never stopped. Several processes
    (torchrun's) share the batches of each attack, and all get the result that one process would get; every one of them
    has to call this, with the same arguments.

    :param view: The classifier; attacked in eval mode, modes restored.
    :param x: Raw natural inputs, ``(N, *input_shape)``, on any device.
    :param y: Index labels, ``(N,)``.
    :param eps: Radius in raw input units.
    :param norm: ``math.inf`` or 2.
    :param attacks: ``"standard"`` (APGD-CE, targeted APGD-DLR, targeted FAB, Square) or a list of names (custom). With
        fewer than 10 classes the number of targets is lowered to the classes there are; standard takes untargeted
        APGD-DLR with 3 classes and no DLR with 2. Both are flagged.
    :param batch_size: Samples attacked together; random starts depend on it.
    :param seed: Seed of every batch; the global generators are left as found.
    :param state_path: A file for finished batches: a run that was killed goes on from there, with any number of
        processes, of which the main one has the file. None keeps nothing.
    :param verbose: Whether a progress bar is shown for each attack, by the main process.
    :return: The examples in raw input units, what withstood, and the warnings.
    :raises TypeError: Arguments of another type.
    :raises ValueError: Bad ``x`` or ``y`` (see :mod:`art_lbgat.checks`), no or non-uniform ``clip_values``, unknown
        attacks, too few classes or too small images for an attack, logits that are not finite, a file of another run
        or a damaged one, processes that do not judge the same model on the same data.
    :raises RuntimeError: If another process has ended.
    :raises BlockingIOError: If another run has the file open.
    """
    _check(view, x, y, eps, norm, attacks, batch_size, seed)
    check_flag(verbose, "verbose")
    if state_path is not None:
        state_path = check_path(state_path, "state_path")
    model = UnitModel(view)
    unit_x = model.to_unit(x.cpu()).contiguous()
    settings = (eps / model.scale, norm, attacks, batch_size, seed)
    found = attack_images(view, model, unit_x, y, *settings, state_path=state_path, verbose=verbose)
    broken = (found.right & ~found.robust).to(x.device)
    raw = torch.where(broken.reshape(-1, *[1] * (x.ndim - 1)), model.to_raw(found.x_adv).to(x), x)
    return found._replace(x_adv=raw)


def _check(view: Any, x: Any, y: Any, eps: Any, norm: Any, attacks: Any, batch_size: Any, seed: Any) -> None:
    check_kind(view, "view", TensorView)
    for name, value in (("x", x), ("y", y)):
        check_kind(value, name, Tensor)
    if not x.is_floating_point():
        raise TypeError(f"x: expected floats, got {x.dtype}.")
    check_inputs(x, view.classifier)
    if check_labels(y, view.classifier.nb_classes, length=len(x)).ndim != 1 or y.ndim != 1 or y.dtype != torch.int64:
        raise ValueError(f"y: expected index labels (N,) as int64, got {y.dtype} of shape {tuple(y.shape)}.")
    check_number(eps, "eps")
    check_scale(eps, check_norm(norm), view)
    attack_names(attacks, view.classifier.nb_classes)
    check_count(batch_size, "batch_size")
    check_seed(seed)


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
    """:func:`auto_attack` on images in [0, 1]: the same arguments, ``eps`` in units of that range.

    :param view: The classifier.
    :param model: ``UnitModel(view)``.
    :param x: Images in [0, 1], ``(N, channels, height, width)``, on the CPU.
    :param y: Labels as indices, int64 ``(N,)``.
    :param eps: Radius in units of [0, 1].
    :param norm: ``math.inf`` or 2.
    :param attacks: ``"standard"`` or a list of its attacks.
    :param batch_size: Images per batch.
    :param seed: Seed of every attack.
    :param state_path: The file of what is finished, or None.
    :param verbose: Show a progress bar.
    :return: What was found, in units of [0, 1].
    """
    names, notes = attack_names(attacks, view.classifier.nb_classes)
    if norm != math.inf and min(x.shape[2:]) < _SQUARE_L2_SIDE and "square" in names:
        raise ValueError(
            f"attacks: Square in L2 needs images of at least {_SQUARE_L2_SIDE}x{_SQUARE_L2_SIDE} values, got "
            f"{tuple(x.shape[2:])}; leave 'square' out with a custom list."
        )
    # contiguous and on the CPU, since the attacks use ``view`` and batches are moved one by one
    x, y = x.cpu().contiguous(), y.cpu()
    package = published_package()
    custom = attacks != "standard"
    settings = {"eps": eps, "norm": "Linf" if norm == math.inf else "L2", "seed": seed}
    identity: dict[str, Any] = {}
    with sharing(view.device) as shared:
        if state_path is not None or shared.world > 1:
            identity = {
                **settings,
                "attacks": [*names, "custom" if custom else "standard"],
                "batch_size": batch_size,
                **model_identity(view),
                "data": data_sha256(x, y),
                "package": package.__name__,
            }
        shared.agree(identity)
        with (
            shared.every(lambda: Record(state_path if shared.is_main else None, identity)) as record,
            plain_autograd(view.device),
            torch.no_grad(),
            preserved_randomness(),
            evaluating(view.module),
        ):
            runner = _runner(package, model, names, custom, view, settings)
            checks = importlib.import_module(f"{package.__name__}.checks")
            found = run_attacks(
                runner, checks, model, x, y, batch_size, seed, record, view.device, shared, verbose=verbose
            )
    return found._replace(flags={**found.flags, **notes})


def published_package() -> ModuleType:
    """The AutoAttack package there is: ``autoattack`` where it is installed, else ``pyautoattack``.

    :raises ImportError: If there is neither.
    """
    for name in _PACKAGES:
        try:
            package = importlib.import_module(name)
            checks = importlib.import_module(f"{name}.checks")
        except Exception:  # noqa: S112 (a module of the user's with that name can raise anything)
            continue
        if hasattr(package, "AutoAttack") and hasattr(checks, "check_randomized"):
            return package
    raise ImportError(
        "AutoAttack: expected the package 'pyautoattack' or 'autoattack', neither can be imported; run 'pip install "
        "pyautoattack'.",
        name="pyautoattack",
    )


def attack_names(
    attacks: str | Sequence[str], nb_classes: int, argument: str = "attacks"
) -> tuple[list[str], dict[str, str]]:
    """The attacks to run, and a flag if they are not those of ten classes or more.

    :param attacks: ``"standard"``, a name or a list of names.
    :param nb_classes: Of the classifier.
    :param argument: The name of the argument that ``attacks`` came from, for errors.
    :return: The names, and messages by flag.
    :raises ValueError: No or unknown attacks, or too few classes for one.
    """
    notes = {}
    if nb_classes <= _TARGETS:
        notes[FEW_CLASSES] = f"targeted attacks try {nb_classes - 1} targets, all there are, instead of {_TARGETS}."
    if isinstance(attacks, str) and attacks == "standard":
        names = list(STANDARD)
        if nb_classes < 4:  # the targeted DLR loss divides by a difference of the third and fourth logit
            names[1:2] = ["apgd-dlr"] if nb_classes == 3 else []
            notes[FEW_CLASSES] = f"with {nb_classes} classes there is no targeted DLR loss; attacks run: {names}."
        return names, notes
    given = [attacks] if isinstance(attacks, str) else attacks
    if not isinstance(given, Sequence) or not given:
        raise ValueError(f"{argument}: expected 'standard' or at least one of {list(ATTACKS)}, got {attacks!r}.")
    names = [check_choice(name, argument, ATTACKS) for name in given]
    for name, fewest in (("apgd-t", 4), ("apgd-dlr", 3)):
        if name in names and nb_classes < fewest:
            raise ValueError(
                f"{argument}: the DLR loss of {name} needs at least {fewest} classes, the classifier has {nb_classes}; "
                "use a list such as ['apgd-ce', 'fab-t', 'square']."
            )
    return names, notes if {"apgd-t", "fab-t"} & set(names) else {}


def needs_gradients(names: Sequence[str]) -> bool:
    """Whether any of these attacks, as :func:`attack_names` gives them, differentiates the model.

    :param names: The attacks.
    """
    return set(names) != {"square"}


def _runner(
    package: ModuleType, model: UnitModel, names: list[str], custom: bool, view: TensorView, settings: dict[str, Any]
) -> Any:
    """The published ``AutoAttack`` object, of which the attacks and their settings are used."""
    # standard also for its replacements with few classes, so that the number of restarts is the standard's
    listed = "attacks" if "attacks" in inspect.signature(package.AutoAttack).parameters else "attacks_to_run"
    version = {"version": "custom", listed: names} if custom else {"version": "standard"}
    runner = package.AutoAttack(model, device=view.device, **version, **settings)
    runner.attacks_to_run = names
    runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = min(_TARGETS, view.classifier.nb_classes - 1)
    return runner
