"""Recipes that two cores run in seconds (digits) or minutes (a part of CIFAR-10, a folder of some thousand photos)."""

from __future__ import annotations

from typing import Any

from art_lbgat.recipes.recipe import Recipe

_METHODS: dict[str, dict[str, Any]] = {
    "natural": {"method": "natural"},
    "madry": {"method": "madry"},
    "alp": {"method": "alp"},
    "trades6": {"method": "trades", "weight": 6.0},
    "mart": {"method": "mart"},
    "fast-at": {"method": "fast-at", "max_iter": 1},
    "bgat": {"method": "bgat"},
    "lbgat": {"method": "lbgat"},
    "lbgat-alp": {"method": "lbgat", "regularizer": "alp", "weight": 1.0},
    "lbgat0": {"method": "lbgat", "regularizer": "trades", "weight": 0.0},
    "lbgat6": {"method": "lbgat", "regularizer": "trades", "weight": 6.0},
}

_DIGITS: dict[str, Any] = {
    "data": "digits",
    "model": "small-cnn",
    "eps": 0.3,
    "eps_step": None,
    "max_iter": 5,
    "batch_size": 64,
    "nb_epochs": 25,
    "learning_rate": 0.05,
    "milestones": (15, 22),
    "first_epoch_factor": 0.2,
    "augmentation": "none",
    "eps_warmup_epochs": 12,
    "guide_ce_weight": 4.0,
    "keep": "last",
    "source": "docs/results.md",
}


def _family(prefix: str, common: dict[str, Any]) -> list[Recipe]:
    recipes = []
    for name, own in _METHODS.items():
        settings = {**common, **own}
        if own["method"] in ("bgat", "lbgat"):
            settings["guides"] = (common["model"],)
        if own["method"] == "bgat":
            settings["guide_recipe"] = f"{prefix}-natural"
        if own["method"] == "natural":
            settings["eps_warmup_epochs"] = 0
        recipes.append(Recipe(id=f"{prefix}-{name}", **settings))
    return recipes


_CIFAR10: dict[str, Any] = {
    **_DIGITS,
    "data": "cifar10",
    "eps": 8 / 255,
    "nb_epochs": 10,
    "learning_rate": 0.02,
    "milestones": (6, 9),
    "eps_warmup_epochs": 0,
    "augmentation": "crop+flip",
    "guide_ce_weight": 1.0,
}

# Chosen on the validation part of 2,000 photos (docs/results.md).
_FOLDER: dict[str, Any] = {
    **_CIFAR10,
    "data": "folder",
    "image_size": 32,
    "nb_epochs": 30,
    "milestones": (18, 26),
    "learning_rate": 0.05,
    "guide_ce_weight": 4.0,
    "max_grad_norm": 1.0,
}

SMALL: tuple[Recipe, ...] = (
    *_family("digits", _DIGITS),
    *_family("cifar10-small", _CIFAR10),
    *_family("folder", _FOLDER),
)
