"""The ablations of the paper, each as a few recipes that differ in one thing."""

from __future__ import annotations

from typing import Any

from art_lbgat.checks import check_choice, check_kind
from art_lbgat.recipes.published import PUBLISHED
from art_lbgat.recipes.recipe import Recipe
from art_lbgat.recipes.small import SMALL

ABLATIONS: dict[str, str] = {
    "guidance": "the guidance loss: MSE, MSE + CE, KD, KL",
    "alpha": "the weight of the TRADES term: 0, 1, 6, 9",
    "guide-depth": "the guide's depth: ResNet-18 against WideResNet-34-10 (on digits: small networks)",
    "ensemble": "BGAT with one guide against an ensemble of two",
    "regularizer": "LBGAT alone, with ALP, with TRADES",
}
_PAIRS = {"small-cnn": ("small-cnn", "wrn-10-1")}
_PAPER = ("wrn-34-10", "inception-resnet-v2")


def ablation(name: str, base: Recipe) -> dict[str, Recipe]:
    """The recipes of one ablation, by label.

    :param name: A key of ``ABLATIONS``.
    :param base: The recipe that is varied, of method ``lbgat`` or ``bgat``.
    :return: A recipe per label; all else is that of ``base``.
    :raises ValueError: An unknown name, or a base without a guide.
    """
    check_choice(name, "name", ABLATIONS)
    check_kind(base, "base", Recipe)
    if base.method not in ("lbgat", "bgat"):
        raise ValueError(f"base: expected a recipe of method 'lbgat' or 'bgat', got {base.id!r} ({base.method}).")
    guide = base.guides[0]
    arms: dict[str, dict[str, Any]]
    if name == "guidance":
        arms = {kind: {"guidance": kind} for kind in ("mse", "mse+ce", "kd", "kl")}
    elif name == "alpha":
        arms = {f"alpha = {a}": {"regularizer": "trades", "weight": float(a)} for a in (0, 1, 6, 9)}
    elif name == "guide-depth":
        depths = ("small-cnn", "wrn-10-1", "wrn-16-1") if guide == "small-cnn" else ("resnet-18-guide", "wrn-34-10")
        arms = {f"guide {each}": {"guides": (each,)} for each in depths}
    elif name == "ensemble":
        first, second = _PAIRS.get(guide, _PAPER)
        bgat: dict[str, Any] = {"method": "bgat", "guide_recipe": base.guide_recipe or _natural_recipe(base)}
        arms = {
            f"one guide, {first}": {**bgat, "guides": (first,)},
            f"one guide, {second}": {**bgat, "guides": (second,)},
            "ensemble of both": {**bgat, "guides": (first, second)},
        }
    else:
        arms = {
            "alone": {"regularizer": None, "weight": None},
            "with ALP": {"regularizer": "alp", "weight": 1.0},
            "with TRADES (a=0)": {"regularizer": "trades", "weight": 0.0},
            "with TRADES (a=6)": {"regularizer": "trades", "weight": 6.0},
        }
    return {label: base.override(**changes) for label, changes in arms.items()}


def _natural_recipe(base: Recipe) -> str:
    """The natural recipe of the same family: the same data, and the same start of the id where there are several."""
    found = [recipe.id for recipe in (*PUBLISHED, *SMALL) if recipe.method == "natural" and recipe.data == base.data]
    if not found:
        raise ValueError(f"base: {base.id} has no natural recipe on {base.data} to train frozen guides by.")
    family = base.id.rsplit("-", 1)[0]
    return next((name for name in found if name == f"{family}-natural"), found[0])
