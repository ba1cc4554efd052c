"""What a trainer refuses before its first step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from torch import Tensor, nn

from art_lbgat.classifier import TensorView, check_logits
from art_lbgat.data.stream import ArrayStream, Stream
from art_lbgat.engine.awp import perturbed_parameters
from art_lbgat.engine.options import RunOptions
from art_lbgat.processes import FEWEST_ROWS, Processes

logger = logging.getLogger(__name__)

_SUM_TOLERANCE = 1e-5


def check_attack(attack: Any, view: TensorView) -> EvasionAttack:
    """An untargeted ART evasion attack on the classifier that is trained.

    :param attack: What came.
    :param view: The classifier.
    :raises TypeError: If it is no ``EvasionAttack``.
    :raises ValueError: If it is targeted, or bound to another model.
    """
    if not isinstance(attack, EvasionAttack):
        raise TypeError(f"attack: expected an ART EvasionAttack, got {type(attack).__name__}.")
    if attack.targeted:
        raise ValueError(f"attack: {type(attack).__name__} is targeted; adversarial training expects targeted=False.")
    # AutoPGD with loss_type wraps the same module in a second estimator: the module decides.
    if getattr(attack.estimator, "model", None) is not view.module:
        raise ValueError(
            "attack: it is bound to another model than the classifier being trained, so it would train on transferred "
            "examples; build it with estimator=classifier."
        )
    return attack


def check_guide(guide: TensorView, student: TensorView) -> None:
    """A guide that can stand beside the student: another network with the same inputs and classes.

    :param guide: The guide.
    :param student: The classifier that is made robust.
    :raises ValueError: Shared modules or parameters; different nb_classes, input_shape, clip_values or device; a
        defence that mixes samples, so that student and guide would not see the same image.
    """
    own, name = student.classifier, guide.name
    other = guide.classifier
    shared = {id(p) for p in student.module.parameters()} & {id(p) for p in guide.module.parameters()}
    if other is own or guide.module is student.module or shared:
        raise ValueError(
            f"{name}: it is, or shares parameters with, the classifier being trained; expected another model."
        )
    for attribute in ("nb_classes", "input_shape"):
        theirs, ours = getattr(other, attribute), getattr(own, attribute)
        if attribute == "input_shape":
            theirs, ours = tuple(theirs), tuple(ours)
        if theirs != ours:
            raise ValueError(
                f"{name}: its {attribute} is {theirs}, that of the classifier is {ours}; expected the same."
            )
    if not _same_clip_values(other.clip_values, own.clip_values):
        raise ValueError(
            f"{name}: its clip_values are {_shown(other.clip_values)}, those of the classifier "
            f"{_shown(own.clip_values)}; expected the same, since both are given the same raw images."
        )
    if other.device != own.device:
        raise ValueError(f"{name}: it is on {other.device}, the classifier on {own.device}; expected the same device.")
    for view in (student, guide):
        if view.mixes_samples:
            raise ValueError(
                f"{view.name}: its preprocessing defences mix samples (mixup or cutmix), so guide and robust model "
                "would see different images; mix in the data instead (augmentation= or the generator)."
            )


def check_optimizer(view: TensorView) -> torch.optim.Optimizer:
    """The optimizer of a classifier that is to be trained.

    :param view: The classifier.
    :raises ValueError: If there is none, or it holds none of the model's parameters.
    """
    optimizer = view.classifier.optimizer
    if optimizer is None:
        raise ValueError(
            f"{view.name}: it has no optimizer; build the PyTorchClassifier with optimizer=... to train it."
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in view.module.parameters() if p.requires_grad):
        raise ValueError(
            f"{view.name}: its optimizer holds no trainable parameter of its model; build it from model.parameters()."
        )
    return optimizer  # type: ignore[no-any-return]


def check_optimizers(views: Sequence[TensorView]) -> list[torch.optim.Optimizer]:
    """The optimizers of all trained classifiers; one that several share (one SGD over both nets) is there once.

    :param views: The classifiers.
    :raises ValueError: If one is missing or foreign (:func:`check_optimizer`), or two different ones hold a parameter.
    """
    optimizers = list(dict.fromkeys(check_optimizer(view) for view in views))
    held = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    if len(held) != len(set(held)):
        raise ValueError(
            "guide: its optimizer and that of the classifier are two that hold the same parameter, which would be "
            "stepped twice; expected one optimizer for each, or one object for both."
        )
    return optimizers


def check_schedulers(scheduler: Any, optimizers: Sequence[torch.optim.Optimizer]) -> list[Any]:
    """The schedulers of a fit as a list; a function from an optimizer to a scheduler is called for each optimizer.

    :param scheduler: None, a scheduler, a list of them, or a function.
    :param optimizers: The optimizers that are stepped.
    :raises TypeError: If one has no ``step``.
    :raises ValueError: If one drives an optimizer that is not trained here.
    """
    given = list(scheduler) if isinstance(scheduler, (list, tuple)) else [] if scheduler is None else [scheduler]
    made = []
    for each in given:
        is_factory = callable(each) and not hasattr(each, "step")
        made += [_made(each, optimizer) for optimizer in optimizers] if is_factory else [each]
    given = made
    for each in given:
        if not callable(getattr(each, "step", None)):
            raise TypeError(f"scheduler: expected an object with a step() method, got {type(each).__name__}.")
        driven = getattr(each, "optimizer", None)
        if driven is not None and not any(driven is optimizer for optimizer in optimizers):
            raise ValueError(
                f"scheduler: {type(each).__name__} drives an optimizer that no trained classifier holds; build it from "
                "classifier.optimizer (or that of the guide)."
            )
    return given


def _made(factory: Any, optimizer: torch.optim.Optimizer) -> Any:
    try:
        return factory(optimizer)
    except Exception as error:
        raise TypeError(
            f"scheduler: expected a function from an optimizer to a scheduler; {factory!r} raised "
            f"{type(error).__name__}: {error}"
        ) from error


def check_schedulers_kept(schedulers: Sequence[Any]) -> None:
    """What a checkpoint needs of schedulers.

    :param schedulers: The schedulers.
    :raises TypeError: If one has no ``state_dict`` and ``load_state_dict``.
    """
    for each in schedulers:
        if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict")):
            raise TypeError(
                f"scheduler: {type(each).__name__} has no state_dict and load_state_dict, so no checkpoint could hold "
                "it; expected both with checkpoint_dir."
            )


def check_processes(
    options: RunOptions, processes: Processes, cache_guide: bool, device: torch.device, batch_size: int | None
) -> None:
    """Options that several processes cannot follow, or that only they can.

    :param options: How to run.
    :param processes: The processes.
    :param cache_guide: Whether the guide's logits are kept.
    :param device: Where the models are.
    :param batch_size: Samples of the global batch, or None where the data say.
    :raises ValueError: ``cache_guide``, ``warm_start`` or a ``batch_size`` of less than two samples a process with
        several processes; ``sync_batchnorm`` on a CPU.
    """
    if options.sync_batchnorm and device.type != "cuda":
        raise ValueError(f"sync_batchnorm: needs CUDA devices, the classifier is on {device.type}; expected False.")
    if processes.world == 1:
        return
    fewest = FEWEST_ROWS * processes.world
    if batch_size is not None and batch_size < fewest:
        raise ValueError(
            f"batch_size: it is that of all {processes.world} processes together; expected at least {fewest}, got "
            f"{batch_size}."
        )
    for name, value in (("cache_guide", cache_guide), ("warm_start", options.warm_start)):
        if value:
            raise ValueError(
                f"{name}: expected False with {processes.world} processes, since each epoch gives a sample to another."
            )


def check_selection(options: RunOptions, validated: bool) -> None:
    """Options that mean nothing without validation data.

    :param options: How to run.
    :param validated: Whether there are validation data.
    :raises ValueError: ``patience``, ``on_collapse="stop"`` or ``keep="both"`` without validation data.
    """
    if validated:
        if options.selection == "test":
            logger.warning("The epoch is selected on test data (selection='test'): a reproduction, not a fair result.")
        return
    for name, value in (("patience", options.patience is not None), ("keep", options.keep == "both")):
        if value:
            raise ValueError(f"{name}: expected validation_data with {name}={getattr(options, name)!r}, got none.")
    if options.on_collapse == "stop":
        raise ValueError("on_collapse: expected validation_data with on_collapse='stop', got none.")


def check_unaugmented(augmentation: Any, option: str) -> None:
    """What a cached guide and a warm start need: the same image in every epoch.

    :param augmentation: The augmentation of the fit, or None.
    :param option: ``"cache_guide"`` or ``"warm_start"``.
    :raises ValueError: If there is an augmentation.
    """
    if augmentation not in (None, "none"):
        raise ValueError(
            f"{option}: expected no augmentation, which makes another image in each epoch; got "
            f"augmentation={augmentation!r}."
        )


def check_rows(stream: Stream, option: str) -> ArrayStream:
    """What a cached guide and a warm start need: a stream that says which samples it yields.

    :param stream: The data.
    :param option: ``"cache_guide"`` or ``"warm_start"``.
    :return: The stream.
    :raises ValueError: If it does not.
    """
    if not isinstance(stream, ArrayStream):
        raise ValueError(
            f"{option}: expected arrays or Images, of which every sample is known by its index; loaders, generators "
            "and mixed data do not say which samples they yield."
        )
    return stream


def check_free_of_the_loop(options: RunOptions, reason: str) -> None:
    """Options that only the tensor loop can follow, for an attack that runs through ``attack.generate``.

    :param options: The options of the run.
    :param reason: Why the attack runs so.
    :raises ValueError: If one is on.
    """
    for name in ("eps_warmup_epochs", "max_iter_warmup_epochs", "warm_start"):
        value = getattr(options, name)
        if value:
            off = type(value)()
            raise ValueError(
                f"{name}: expected {off} for an attack that runs through attack.generate ({reason}), got {value}."
            )


def check_perturbable(view: TensorView, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """What AWP needs: a trained tensor of more than one dimension.

    :param view: The classifier.
    :param optimizers: The optimizers that are stepped.
    :raises ValueError: If there is none.
    """
    if not perturbed_parameters(view.module, optimizers):
        raise ValueError(
            "awp_gamma: expected a model of which the optimizer trains a tensor of more than one dimension, which AWP "
            "could move; got none."
        )


def check_outputs(logits: dict[str, Tensor], inputs: int, nb_classes: int) -> None:
    """What the first step's forwards gave: a row per sample, a column per class, and logits rather than probabilities.

    :param logits: The outputs, ``(N, C)`` each, under ``"adversarial"``, ``"natural"``, ``"guide"``.
    :param inputs: How many samples went in.
    :param nb_classes: ``C`` as the classifiers declare it.
    :raises ValueError: If not.
    """
    for name, values in logits.items():
        owner = "guide" if name == "guide" else "classifier"
        check_logits(values, nb_classes, owner)
        if len(values) != inputs:
            raise ValueError(
                f"{owner}: {inputs} samples gave {len(values)} {name} outputs; a preprocessing defence that changes "
                "the number of samples cannot be used here."
            )
        rows = values.detach()
        if bool((rows >= 0).all() and ((rows.sum(dim=1) - 1).abs() < _SUM_TOLERANCE).all()):
            raise ValueError(
                f"{owner}: its {name} outputs are probabilities (each row sums to 1); expected raw logits, so remove "
                "the final softmax."
            )
        if bool((rows.logsumexp(dim=1).abs() < _SUM_TOLERANCE).all()):
            raise ValueError(
                f"{owner}: its {name} outputs are log-probabilities; expected raw logits, so remove the final "
                "log-softmax and train with CrossEntropyLoss."
            )


def log_foreign_loss(view: TensorView) -> None:
    """Say that the classifier's own loss is not what is trained, where it is more than plain cross-entropy.

    :param view: The classifier.
    """
    loss = view.classifier.loss
    plain = isinstance(loss, nn.CrossEntropyLoss) and loss.weight is None and loss.label_smoothing == 0
    if not plain:
        logger.warning(
            "The objective uses plain cross-entropy; the loss of the %s (%s) is used by ART's own attacks only.",
            view.name,
            loss,
        )


def _same_clip_values(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return bool(np.shape(first) == np.shape(second) and np.all(np.asarray(first) == np.asarray(second)))


def _shown(clip_values: Any) -> str:
    return "None" if clip_values is None else f"({np.min(clip_values[0]):g}, {np.max(clip_values[1]):g})"
