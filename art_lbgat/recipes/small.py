"""Recipes that two cores run in seconds (digits) or minutes (a part of CIFAR-10, a folder of some thousand photos)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from art_lbgat.checks import check_choice, check_kind
from art_lbgat.engine.options import RunOptions
from art_lbgat.recipes.recipe import RECIPES, Recipe
from art_lbgat.trainers import METHODS

_METHODS: dict[str, dict[str, Any]] = {
    "natural": {"method": "natural"},
    "madry": {"method": "madry"},
    "alp": {"method": "alp"},
    "trades6": {"method": "trades", "weight": 6.0},
    "mart": {"method": "mart"},
    "fast-at": {"method": "fast-at", "max_iter": 1},
    "n-fgsm": {"method": "n-fgsm", "max_iter": 1},
    "adr": {"method": "adr", "run": {"ema_decay": 0.98}},
    "hat": {"method": "hat"},
    "bgat": {"method": "bgat"},
    "bgat-nuclear": {"method": "bgat", "guidance": "nuclear"},
    # Its divergences are means over ten classes too.
    "rslad": {"method": "bgat", "guidance": "rslad", "guide_recipe": "trades6", "rate": 10},
    "lbgat": {"method": "lbgat"},
    "lbgat-alp": {"method": "lbgat", "regularizer": "alp", "weight": 1.0},
    "lbgat0": {"method": "lbgat", "regularizer": "trades", "weight": 0.0},
    "lbgat6": {"method": "lbgat", "regularizer": "trades", "weight": 6.0},
    # Without clipping the weight of 20 makes the first epochs diverge.
    "lbgat-ikl": {"method": "lbgat", "guidance": "ikl", "run": {"max_grad_norm": 5.0}},
    "lbgat-gkl": {"method": "lbgat", "guidance": "gkl", "run": {"max_grad_norm": 5.0}},
}

_DIGITS: dict[str, Any] = {
    "data": "digits", "model": "small-cnn", "eps": 0.3, "eps_step": None, "max_iter": 5, "batch_size": 64,
    "nb_epochs": 25, "learning_rate": 0.05, "milestones": (15, 22), "first_epoch_factor": 0.2, "augmentation": "none",
    "run": RunOptions(eps_warmup_epochs=12, keep="last"), "guide_ce_weight": 4.0, "source": "docs/results.md",
}  # fmt: skip
_CIFAR10: dict[str, Any] = {
    **_DIGITS, "data": "cifar10", "eps": 8 / 255, "nb_epochs": 10, "learning_rate": 0.02, "milestones": (6, 9),
    "run": RunOptions(keep="last"), "augmentation": "crop+flip", "guide_ce_weight": 1.0,
}  # fmt: skip
# Chosen on the validation part of 2,000 photos (docs/results.md).
_FOLDER: dict[str, Any] = {
    **_CIFAR10, "data": "folder", "image_size": 32, "nb_epochs": 30, "learning_rate": 0.05, "milestones": (18, 26),
    "run": RunOptions(keep="last", max_grad_norm=1.0), "guide_ce_weight": 4.0,
}  # fmt: skip

# Guided and unguided alike: two attack steps, later three, while eps grows; one cycle of the learning rate.
_QUICK: dict[str, Any] = {
    "scheduler": "one-cycle", "milestones": (), "first_epoch_factor": 1.0, "learning_rate": 0.1, "nesterov": True,
    "decay_norms": False, "guide_ce_weight": 1.0, "max_iter": 3, "eps_step": None,
    "source": "docs/when-a-guide-helps.md",
    "run": RunOptions(
        keep="last", eps_warmup=0.3, max_iter_schedule=((0.0, 2), (0.5, 3)), max_grad_norm=5.0
    ),
}  # fmt: skip
_QUICK_METHODS: dict[str, dict[str, Any]] = {
    **{name: _METHODS[name] for name in ("natural", "madry", "trades6", "hat", "adr")},
    "bgat": {"method": "bgat", "guidance": "mse+ce", "guide_rms": 1.0},
    "lbgat": {"method": "lbgat", "guidance": "mse+ce"},
    "lbgat-mse": {"method": "lbgat"},
    "lbgat-ikl": {"method": "lbgat", "guidance": "ikl"},
}
_ON_GPU: dict[str, Any] = {
    **_QUICK, "model": "resnet-18", "eps": 8 / 255, "batch_size": 128, "nb_epochs": 40, "weight_decay": 5e-4,
    "augmentation": "crop+flip", "run": replace(_QUICK["run"], ema_decay=0.999, ema_start=0.2, ema_warmup=True),
}  # fmt: skip


def _family(prefix: str, common: dict[str, Any], methods: dict[str, dict[str, Any]] | None = None) -> list[Recipe]:
    recipes = []
    for name, own in (methods or _METHODS).items():
        method, settings = METHODS[own["method"]], {**common, **own}
        settings["run"] = replace(common["run"], **own.get("run", {}))
        settings["learning_rate"] *= settings.pop("rate", 1)
        if method.takes_guide:
            settings["guides"] = (common["model"],)
            settings["guide_recipe"] = None if method.train_guides else f"{prefix}-{own.get('guide_recipe', 'natural')}"
        if method.attack_kind == "none":
            settings["run"] = replace(settings["run"], eps_warmup_epochs=0, eps_warmup=None, max_iter_schedule=())
        recipes.append(Recipe(id=f"{prefix}-{name}", **settings))
    return recipes


SMALL: tuple[Recipe, ...] = (
    *_family("digits", _DIGITS),
    *_family("cifar10-small", _CIFAR10),
    *_family("folder", _FOLDER),
    *_family("quick-digits", {**_DIGITS, **_QUICK, "nb_epochs": 20}, _QUICK_METHODS),
    *_family("quick-folder", {**_FOLDER, **_QUICK}, _QUICK_METHODS),
    *_family("quick-cifar10", {**_ON_GPU, "data": "cifar10"}, _QUICK_METHODS),
    *_family("quick-cifar100", {**_ON_GPU, "data": "cifar100"}, _QUICK_METHODS),
)

ABLATIONS: dict[str, str] = {
    "guidance": "the guidance loss: MSE, MSE + CE, KD, KL",
    "alpha": "the weight of the TRADES term: 0, 1, 6, 9",
    "guide-depth": "the guide's depth: ResNet-18 against WideResNet-34-10 (on digits: small networks)",
    "ensemble": "BGAT with one guide against an ensemble of two",
    "regularizer": "LBGAT alone, with ALP, with TRADES",
}


def ablation(name: str, base: Recipe) -> dict[str, Recipe]:
    """The recipes of one ablation of the paper, by label: they differ in one thing.

    :param name: A key of ``ABLATIONS``.
    :param base: The recipe that is varied, of method ``lbgat`` or ``bgat``.
    :return: A recipe per label; all else is that of ``base``.
    :raises ValueError: An unknown name, or a base without a guide.
    """
    check_choice(name, "name", ABLATIONS)
    check_kind(base, "base", Recipe)
    if not base.guides:
        raise ValueError(f"base: expected a recipe of method 'lbgat' or 'bgat', got {base.id!r} ({base.method}).")
    small = base.guides[0] == "small-cnn"
    depths = ("small-cnn", "wrn-10-1", "wrn-16-1") if small else ("resnet-18-guide", "wrn-34-10")
    first, second = ("small-cnn", "wrn-10-1") if small else ("wrn-34-10", "inception-resnet-v2")
    alphas = {a: {"regularizer": "trades", "weight": float(a)} for a in (0, 1, 6, 9)}
    arms: dict[str, dict[str, dict[str, Any]]] = {
        "guidance": {kind: {"guidance": kind} for kind in ("mse", "mse+ce", "kd", "kl")},
        "alpha": {f"alpha = {a}": changes for a, changes in alphas.items()},
        "guide-depth": {f"guide {each}": {"guides": (each,)} for each in depths},
        "ensemble": {
            f"one guide, {first}": {"guides": (first,)},
            f"one guide, {second}": {"guides": (second,)},
            "ensemble of both": {"guides": (first, second)},
        },
        "regularizer": {
            "alone": {"regularizer": None, "weight": None},
            "with ALP": {"regularizer": "alp", "weight": 1.0},
            "with TRADES (a=0)": alphas[0],
            "with TRADES (a=6)": alphas[6],
        },
    }
    common: dict[str, Any] = {}
    if name == "ensemble":
        common = {"method": "bgat", "guide_recipe": base.guide_recipe or _natural_recipe(base)}
    return {label: base.override(**common, **changes) for label, changes in arms[name].items()}


def _natural_recipe(base: Recipe) -> str:
    """The natural recipe on the same data, of the same family where there are several."""
    found = [recipe.id for recipe in RECIPES.values() if recipe.method == "natural" and recipe.data == base.data]
    if not found:
        raise ValueError(f"base: {base.id} has no natural recipe on {base.data} to train frozen guides by.")
    own = f"{base.id.rsplit('-', 1)[0]}-natural"
    return own if own in found else found[0]
