"""What a fit was asked for, as plain data that a checkpoint keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from art.attacks.attack import EvasionAttack

from art_lbgat.classifier import TensorView
from art_lbgat.data import Stream
from art_lbgat.fingerprint import MAY_CHANGE, described, module_layout, module_weights, optimizer_settings
from art_lbgat.trainers.validation import Validation

if TYPE_CHECKING:
    from art_lbgat.trainers.base import BaseTrainer

#: What changes in a scheduler as it goes on.
_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "best", "num_bad_epochs",
             "cooldown_counter", "base_lrs", "max_lrs", "T_cur", "T_i", "_is_initial")  # fmt: skip
_NO_SETTINGS = ("options", "seed", "kept_weights", "guide", "verbose")


def described_fit(
    trainer: BaseTrainer,
    stream: Stream,
    validation: Validation | None,
    optimizers: Sequence[torch.optim.Optimizer],
    schedulers: Sequence[Any],
) -> dict[str, Any]:
    """Everything that the bits of a fit depend on, by what the user calls it.

    Weights of what is trained are no part of it, since a checkpoint brings them; those of frozen guides are, by their
    SHA-256.

    :param trainer: The trainer.
    :param stream: The data.
    :param validation: The validation data, or None.
    :param optimizers: The optimizers.
    :param schedulers: What ``fit`` was given, and the schedulers that came of it.
    """
    options = {f.name: getattr(trainer.options, f.name) for f in dataclasses.fields(trainer.options)}
    public = {name: value for name, value in vars(trainer).items() if not name.startswith("_")}
    frozen = not trainer._train_guides
    return {
        "trainer": type(trainer).__qualname__,
        "method": {name: described(value) for name, value in public.items() if name not in _NO_SETTINGS},
        "options": {name: described(value) for name, value in options.items() if name not in MAY_CHANGE},
        "attack": None if trainer.attack is None else _attack(trainer.attack),
        "classifier": _classifier(trainer._view, frozen=False),
        "guides": [_classifier(guide, frozen=frozen) for guide in trainer._guides],
        "optimizers": [optimizer_settings(optimizer) for optimizer in optimizers],
        "scheduler": [_scheduler(each) for each in schedulers],
        "data": stream.fingerprint(),
        "validation_data": None if validation is None else validation.fingerprint(),
    }


def _scheduler(scheduler: Any) -> Any:
    """A scheduler by its kind and settings, however far it has come."""
    if not hasattr(scheduler, "state_dict"):
        return described(scheduler)
    return {"type": type(scheduler).__qualname__, **_settings_of(scheduler.state_dict())}


def _settings_of(state: Any) -> Any:
    if isinstance(state, dict):
        return {str(k): _settings_of(v) for k, v in state.items() if k not in _PROGRESS}
    return [_settings_of(each) for each in state] if isinstance(state, (list, tuple)) else described(state)


def _attack(attack: EvasionAttack) -> dict[str, Any]:
    names = [name for name in attack.attack_params if name not in _NO_SETTINGS]
    return {"type": type(attack).__qualname__, **{name: described(getattr(attack, name, None)) for name in names}}


def _classifier(view: TensorView, *, frozen: bool) -> dict[str, Any]:
    classifier = view.classifier
    found = {
        "layout": module_layout(view.module),
        "input_shape": described(tuple(classifier.input_shape)),
        "nb_classes": classifier.nb_classes,
        "clip_values": described(classifier.clip_values),
        "preprocessing": [
            [type(each).__qualname__, {k: described(v) for k, v in vars(each).items() if k != "_device"}]
            for each in view.operations
        ],
    }
    return {**found, "weights": module_weights(view.module)} if frozen else found
