"""The ablations of the paper, each as a few recipes that differ in one thing."""

from __future__ import annotations

from typing import Any

from art_lbgat.checks import check_choice
from art_lbgat.recipes.recipe import Recipe

ABLATIONS: dict[str, str] = {
    "guidance": "the guidance loss: MSE, MSE + CE, KD, KL",
    "alpha": "the weight of the TRADES term: 0, 1, 6, 9",
    "guide-depth": "the guide's depth: the usual one against a deeper one",
    "ensemble": "BGAT with one guide against an ensemble of two",
    "regularizer": "LBGAT alone, with ALP, with TRADES",
}
_DEEPER = {"small-cnn": ("wrn-10-1", "wrn-16-1")}


def ablation(name: str, base: Recipe) -> dict[str, Recipe]:
    """The recipes of one ablation, by label.

    :param name: One of :data:`ABLATIONS`.
    :param base: The recipe that is varied, of method ``lbgat`` or ``bgat``.
    :return: A recipe per label; all else is that of ``base``.
    :raises ValueError: An unknown name, or a base without a guide.
    """
    check_choice(name, "ablation", ABLATIONS)
    if base.method not in ("lbgat", "bgat"):
        raise ValueError(f"base: expected a recipe of method 'lbgat' or 'bgat', got {base.id!r} ({base.method}).")
    guide = base.guides[0]
    trained = base.guide_recipe or _natural_recipe(base)
    arms: dict[str, dict[str, Any]]
    if name == "guidance":
        arms = {kind: {"guidance": kind} for kind in ("mse", "mse+ce", "kd", "kl")}
    elif name == "alpha":
        arms = {f"alpha = {a}": {"regularizer": "trades", "weight": float(a)} for a in (0, 1, 6, 9)}
    elif name == "guide-depth":
        deeper = _DEEPER.get(guide, ("wrn-34-10",))
        arms = {f"guide {each}": {"guides": (each,)} for each in (guide, *deeper)}
    elif name == "ensemble":
        second = _DEEPER.get(guide, ("inception-resnet-v2",))[0]
        bgat: dict[str, Any] = {"method": "bgat", "guide_recipe": trained}
        arms = {
            f"one guide, {guide}": {**bgat, "guides": (guide,)},
            f"one guide, {second}": {**bgat, "guides": (second,)},
            "ensemble of both": {**bgat, "guides": (guide, second)},
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
    return "digits-natural" if base.data == "digits" else f"natural-{base.data}"
