"""What a trainer and its ``fit`` are given, checked once, before the first step."""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.data_generators import DataGenerator
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, Dataset

from art_lbgat.checks import KindError, UnsupportedError, check_choice, check_flag, check_inputs, check_labels
from art_lbgat.classifier import TensorView, label_rows
from art_lbgat.data import Images, MixedData, as_stream, split_indices
from art_lbgat.data.stream import Source
from art_lbgat.engine.options import RunOptions, check_keyword
from art_lbgat.engine.perturbation import perturbed_parameters
from art_lbgat.engine.schedule import SCHEDULES
from art_lbgat.engine.validation import Validation
from art_lbgat.preserve import Key, preserved_randomness
from art_lbgat.processes import FEWEST_ROWS, Processes

logger = logging.getLogger(__name__)

_ROWS = 1024  # rows looked at together
_ART_ATTACK = "it belongs to the attack, attack=PGDAttack(classifier, eps=..., eps_step=..., max_iter=...)"
#: Arguments of ART's trainers that have no place here, and what to write instead.
_ARTS = {
    **dict.fromkeys(("eps", "eps_step", "max_iter", "num_random_init"), _ART_ATTACK),
    **dict.fromkeys(("nb_epochs", "batch_size"), "it belongs to fit(x, y, nb_epochs=..., batch_size=...)"),
    "attacks": "write attack=..., which is one attack",
    "ratio": "every sample is attacked, as with ratio=1.0, which MadryTrainer takes",
    "beta": "only TRADESTrainer has it",
    "proxy_classifier": "AWP needs none here, awp_gamma=... turns it on",
    "mode": "take MadryTrainer for 'PGD', TRADESTrainer for 'TRADES', with awp_gamma=...",
    "gamma": "write awp_gamma=...",
    "warmup": "write awp_start_epoch=warmup + 1",
    "use_amp": "write precision='bf16' or 'fp16'",
    "drop_last": "the last partial batch is trained too; give a DataLoader(..., drop_last=True) without",
    "update_batchnorm": "BatchNorm layers learn; put those that must not into eval mode before",
}


#: What ART's AWP trainer and AdversarialTrainerMadryPGD take after the classifier, in their order.
_AWP = ("proxy_classifier", "attack", "mode", "gamma", "beta", "warmup")
_MADRY = ("nb_epochs", "batch_size", "eps", "eps_step", "max_iter", "num_random_init")


def refuse_arts_order(init: Any, args: Sequence[Any]) -> None:
    """Refuse more arguments by position than a method's constructor has, which ART's trainers take, as by name."""
    spec = inspect.getfullargspec(init)
    if spec.varargs is None and len(args) > len(spec.args) - 1 and spec.args[2:3] == ["attack"]:
        refuse_arts(dict(zip(_AWP if isinstance(args[1], PyTorchClassifier) else _MADRY, args[1:], strict=False)))


def refuse_arts(given: Mapping[str, Any]) -> None:
    """Refuse arguments that only ART's trainers have, with what to write instead."""
    if told := [f"{name}: {_ARTS[name]}" for name in given if name in _ARTS]:
        raise TypeError("; ".join(told) + " (see docs/howto-art-pipeline.md).")


def bar_of_fit(given: dict[str, Any], names: Sequence[str], verbose: bool) -> bool:
    """Whether a fit shows its bar; of ART's keywords those are taken that ask for what is done anyway."""
    for name in ("verbose", "display_progress_bar"):
        verbose = check_flag(given.pop(name, verbose), name)
    for name, value in (("drop_last", False), ("update_batchnorm", True)):
        if given.get(name) is value:
            del given[name]
    refuse_arts(given)
    for name in given:
        check_keyword(name, names)
    return verbose


def fit_in_order(validation_data: Any, batch_size: Any, nb_epochs: Any) -> tuple[Any, Any, Any]:
    """These three of ``fit``, also from the order ``batch_size, nb_epochs`` of ART's AdversarialTrainer."""
    number = isinstance(validation_data, Integral) and not isinstance(validation_data, bool)
    if number and None in (batch_size, nb_epochs):
        nb_epochs = batch_size if nb_epochs is None else nb_epochs
        validation_data, batch_size = None, validation_data
        logger.warning("fit: %s is read as batch_size, in the order of ART's AdversarialTrainer.", batch_size)
    return validation_data, 128 if batch_size is None else batch_size, 20 if nb_epochs is None else nb_epochs


def in_order(nb_epochs: Any, validation_data: Any, scheduler: Any) -> tuple[Any, Any, Any]:
    """These three of ``fit_generator``, also from the order of ART's TRADES and AWP trainers."""
    if scheduler is None and hasattr(validation_data, "step"):
        return nb_epochs, None, validation_data
    epochs_third = isinstance(validation_data, Integral) and not isinstance(validation_data, bool)
    pair = isinstance(nb_epochs, (tuple, list)) and all(np.ndim(each) for each in nb_epochs)
    if epochs_third or pair:
        return validation_data or 20, nb_epochs, scheduler
    return nb_epochs, validation_data, scheduler


def check_attack(attack: Any, view: TensorView) -> EvasionAttack:
    """An untargeted ART evasion attack on the classifier that is trained; it may come in a list of one."""
    attack = attack[0] if isinstance(attack, (list, tuple)) and len(attack) == 1 else attack
    if not isinstance(attack, EvasionAttack):
        art = {list: "attacks", PyTorchClassifier: "proxy_classifier", int: "nb_epochs", float: "eps"}.get(type(attack))
        hint = f"; as {art} of ART's trainers: {_ARTS[art]}" if art else ""
        raise KindError(f"attack: expected an ART EvasionAttack, got {type(attack).__name__}{hint}.")
    kind, pool = type(attack).__name__, getattr(attack, "parallel_pool_size", 0)
    if attack.targeted:
        raise UnsupportedError(f"attack: {kind} is targeted; adversarial training expects targeted=False.")
    if pool:
        raise ValueError(f"attack: parallel_pool_size of {kind} starts processes in each step; expected 0, got {pool}.")
    # AutoPGD with loss_type wraps the same module in a second estimator: the module decides.
    if getattr(attack.estimator, "model", None) is not view.module:
        raise ValueError(
            "attack: it is bound to another model than the classifier being trained, so it would train on transferred "
            "examples; build it with estimator=classifier."
        )
    return attack


def check_guide(guide: TensorView, student: TensorView) -> None:
    """A guide that can stand beside the student: another network with the same inputs and classes."""
    own, other, name = student.classifier, guide.classifier, guide.name
    shared = {id(p) for p in student.module.parameters()} & {id(p) for p in guide.module.parameters()}
    if other is own or guide.module is student.module or shared:
        raise ValueError(
            f"{name}: it is, or shares parameters with, the classifier being trained; expected another model."
        )
    declared = (  # the same raw images go to both
        ("nb_classes", other.nb_classes, own.nb_classes),
        ("input_shape", tuple(other.input_shape), tuple(own.input_shape)),
        ("clip_values", _as_lists(other.clip_values), _as_lists(own.clip_values)),
        ("device", other.device, own.device),
    )
    for attribute, theirs, ours in declared:
        if theirs != ours:
            found, expected = reprlib.repr(theirs), reprlib.repr(ours)
            raise ValueError(f"{name}: its {attribute} is {found}, the classifier's {expected}; expected the same.")
    for view in (student, guide):
        if view.mixes_samples:
            raise ValueError(
                f"{view.name}: its preprocessing defences mix samples (mixup or cutmix), so guide and robust model "
                "would see different images; mix in the data instead (augmentation= or the generator)."
            )


def _as_lists(clip_values: Any) -> Any:
    return None if clip_values is None else [np.asarray(value).tolist() for value in clip_values]


def check_optimizers(views: Sequence[TensorView]) -> list[torch.optim.Optimizer]:
    """The optimizers of all trained classifiers; one that several share (one SGD over both nets) is there once."""
    for view in views:
        if view.classifier.optimizer is None:
            raise ValueError(
                f"{view.name}: it has no optimizer; build the PyTorchClassifier with optimizer=... to train it."
            )
        held = {id(p) for group in view.classifier.optimizer.param_groups for p in group["params"]}
        if not any(id(p) in held for p in view.module.parameters() if p.requires_grad):
            raise ValueError(
                f"{view.name}: its optimizer holds no trainable parameter of its model; build it from "
                "model.parameters()."
            )
    optimizers: list[torch.optim.Optimizer] = list(dict.fromkeys(view.classifier.optimizer for view in views))
    every = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    if len(every) != len(set(every)):
        raise ValueError(
            "guide: its optimizer and that of the classifier are two that hold the same parameter, which would be "
            "stepped twice; expected one optimizer for each, or one object for both."
        )
    return optimizers


def check_schedulers(scheduler: Any, optimizers: Sequence[torch.optim.Optimizer]) -> list[Any]:
    """The schedulers of a fit as a list; a function from an optimizer to a scheduler is called for each optimizer."""
    given = list(scheduler) if isinstance(scheduler, (list, tuple)) else [] if scheduler is None else [scheduler]
    schedulers = []
    for each in given:
        is_factory = isinstance(each, type) or (callable(each) and not hasattr(each, "step"))
        schedulers += [_made(each, optimizer) for optimizer in optimizers] if is_factory else [each]
    for each in schedulers:
        if not callable(getattr(each, "step", None)):
            raise TypeError(f"scheduler: expected an object with a step() method, got {type(each).__name__}.")
        driven = getattr(each, "optimizer", None)
        if driven is not None and not any(driven is optimizer for optimizer in optimizers):
            raise ValueError(
                f"scheduler: {type(each).__name__} drives an optimizer that no trained classifier holds; build it from "
                "classifier.optimizer (or that of the guide)."
            )
    return schedulers


def read_schedule(scheduler: Any, nb_epochs: int) -> Any:
    """``scheduler`` of ``fit``, a name being what it stands for."""
    if not isinstance(scheduler, str):
        return scheduler
    return SCHEDULES[check_choice(scheduler, "scheduler", SCHEDULES)](nb_epochs)


def intervals(schedulers: Sequence[Any], asked: str | None, nb_epochs: int, steps: int | None) -> list[str]:
    """When each scheduler steps: as asked, or as its ``total_steps`` fits the run; else at the end of an epoch.

    ``T_max`` of half a cosine counts too where it is the number of all steps.
    """
    check_choice(asked, "scheduler_interval", (None, "epoch", "batch"))
    found = []
    for each in schedulers:
        counts = {"epoch": nb_epochs, "batch": nb_epochs * (steps or 0)}
        total = getattr(each, "total_steps", None)
        fitting = [name for name, count in counts.items() if count in (total, getattr(each, "T_max", None))]
        interval = asked or next(iter(fitting), "epoch")
        if total is not None and (total < counts[interval] if asked else not fitting):
            every = counts["batch"] or "with a loader that has a length"
            raise ValueError(
                f"scheduler: {type(each).__name__} has total_steps={total}; expected {counts['epoch']}, the epochs, or "
                f"{every}, the steps of all epochs, to know when it steps; or scheduler_interval=."
            )
        plateau = isinstance(each, torch.optim.lr_scheduler.ReduceLROnPlateau)  # it is given validation errors
        found.append("epoch" if plateau else interval)
    return found


def _made(factory: Any, optimizer: torch.optim.Optimizer) -> Any:
    try:
        return factory(optimizer)
    except Exception as error:
        raise TypeError(
            f"scheduler: expected a function from an optimizer to a scheduler; {factory!r} raised "
            f"{type(error).__name__}: {error}"
        ) from error


def check_run(
    options: RunOptions,
    student: TensorView,
    optimizers: Sequence[torch.optim.Optimizer],
    schedulers: Sequence[Any],
    processes: Processes,
    batch_size: int,
    validated: bool,
) -> None:
    """Refuse options that this fit could not follow.

    :raises TypeError: With ``checkpoint_dir``, a scheduler without a state.
    :raises ValueError: ``patience`` or ``on_collapse="stop"`` without validation data; AWP on a model without weights
        that it could move; a ``batch_size`` of less than two samples a process.
    """
    if options.checkpoint_dir is not None:
        for each in schedulers:
            if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict")):
                raise TypeError(
                    f"scheduler: {type(each).__name__} has no state_dict and load_state_dict, so no checkpoint could "
                    "hold it; expected both with checkpoint_dir."
                )
    if not validated and options.patience is not None:
        raise ValueError(f"patience: expected validation_data with patience={options.patience!r}, got none.")
    if not validated and options.on_collapse == "stop":
        raise ValueError("on_collapse: expected validation_data with on_collapse='stop', got none.")
    if validated and options.selection == "test":
        logger.warning("The epoch is selected on test data (selection='test'): a reproduction, not a fair result.")
    if options.awp_gamma is not None and not perturbed_parameters(student.module, optimizers):
        raise ValueError(
            "awp_gamma: expected a model of which the optimizer trains a tensor of more than one dimension, which AWP "
            "could move; got none."
        )
    fewest = FEWEST_ROWS * processes.world
    if processes.world > 1 and batch_size < fewest:
        raise ValueError(
            f"batch_size: it is that of all {processes.world} processes together; expected at least {fewest}, got "
            f"{batch_size}."
        )


def check_loss(view: TensorView, taken: bool, alone: bool, processes: Processes) -> None:
    """Refuse a loss that the cross-entropy of the objective cannot follow; say where it is not followed.

    ``taken``: whether the objective has the classifier's own cross-entropy; ``alone``: and no other term.
    """
    loss, settings = view.classifier.loss, view.loss_settings
    what = f"the loss of the {view.name} ({' with '.join([type(loss).__name__, *settings])})"
    if not taken or type(loss) is not nn.CrossEntropyLoss:
        if settings or type(loss) is not nn.CrossEntropyLoss:
            logger.warning("The objective does not use %s, which ART's own attacks do.", what)
        return
    if loss.reduction == "none":
        raise ValueError(f"{view.name}: the objective cannot use {what}; expected reduction='mean' or 'sum'.")
    if processes.world > 1 and {"weight", "ignore_index", "reduction"}.intersection(settings):
        reason = "it divides by what a whole batch holds, of which each process sees a part"
        raise ValueError(f"{view.name}: the objective cannot use {what}: {reason}.")
    if loss.reduction == "sum" and not alone:
        logger.warning("%s is a sum over the batch, and the other terms of the objective are means.", what)


def read_validation(data: Any, view: TensorView, batch_size: int) -> Any:
    """``validation_data`` as it is, or of a loader, data set or generator: arrays ``(x, y)`` of all its samples."""
    if isinstance(data, Images) or not isinstance(data, (DataLoader, Dataset, DataGenerator)):
        return data
    try:
        stream = as_stream(data, None, batch_size, view)
        found = stream.state(at_start=True)
        with preserved_randomness():
            batches = list(stream.epoch(Key(0)))  # keyed, so that a shuffling loader gives one order
        stream.load(found, Key(0))
        if not batches:
            raise ValueError("x: no batch came; expected at least one.")
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"validation_data: {error}") from error
    soft = any(batch.y.ndim == 2 for batch in batches)
    y = [label_rows(batch.y, view.classifier.nb_classes) if soft else batch.y for batch in batches]
    return torch.cat([batch.x for batch in batches]), torch.cat(y)


def as_validation(data: Any, view: TensorView, batch_size: int) -> Validation | None:
    """``validation_data`` of ``fit``, checked; None stays None."""
    data = read_validation(data, view, batch_size)
    return None if data is None else Validation(*_pair(data), view, batch_size)


def held_out(
    x: Any, y: Any, validation_data: Any, fraction: float, view: TensorView, seed: int | None
) -> tuple[Any, Any, Any]:
    """Split ``(x, y)`` into what is trained on and what is held out, with the same share of each class."""
    if validation_data is not None:
        raise ValueError("validation_split: expected either validation_split or validation_data, got both.")
    if isinstance(x, Images) and y is None:
        first, second = split_indices(x.y, fraction, seed or 0, "validation_split")
        return x.subset(first), None, x.subset(second)
    if y is None:
        raise ValueError(f"validation_split: expected arrays (x, y) or Images to split, got {type(x).__name__}.")
    inputs = check_inputs(x, view.classifier)
    labels = check_labels(y, view.classifier.nb_classes, length=len(inputs))
    hard = labels if labels.ndim == 1 else labels.argmax(axis=1)
    first, second = split_indices(hard, fraction, seed or 0, "validation_split")
    return inputs[first], labels[first], (inputs[second], labels[second])


def warn_overlap(x: Any, y: Any, validation_data: Any, view: TensorView) -> None:
    """Warn when samples of ``validation_data`` are training samples too, so that selection is blind to overfitting."""
    held = _pair(validation_data)
    parts: list[tuple[Any, Any]] = [x.data, x.extra] if isinstance(x, MixedData) else [(x, y)]
    if not all(isinstance(each, (np.ndarray, torch.Tensor, Images)) for each, _ in [held, *parts]):
        return
    hashes = set(_row_hashes(*held, view, ("validation_data[0]", "validation_data[1]")))
    shared = len(hashes.intersection(value for part in parts for value in _row_hashes(*part, view)))
    if shared:
        logger.warning(
            "validation_data: %d of its %d different samples are in the training data too; expected held-out samples.",
            shared,
            len(hashes),
        )


def _pair(data: Any) -> tuple[Any, Any]:
    if isinstance(data, Images):
        return data, None
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        got = type(data).__name__
        raise ValueError(f"validation_data: expected a pair (x, y), a DataLoader or a Dataset, got {got}.")
    return data[0], data[1]


def _row_hashes(x: Any, y: Any, view: TensorView, names: tuple[str, str] = ("x", "y")) -> Iterator[int]:
    source = Source(x, y, view, names)
    for first in range(0, len(source), _ROWS):
        for row in source.batch(np.arange(first, min(first + _ROWS, len(source)))).x.cpu().numpy():
            yield hash(row.tobytes())
