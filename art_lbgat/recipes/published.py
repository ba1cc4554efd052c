"""The recipes of the papers, with what they reported.

Numbers of LBGAT are those of arXiv 2011.11164 and of the RobustBench leaderboard; PGD-20 (eps 0.031, step 0.003) those
of the CVPR 2020 submission of the same work, means of two runs. All at eps 0.031 unless the id says otherwise.
"""

from __future__ import annotations

from typing import Any

from art_lbgat.engine.options import RunOptions
from art_lbgat.recipes.recipe import PublishedResult, Recipe

_LBGAT = "arXiv 2011.11164 and its code"
_SUBMISSION = "CVPR 2020 submission of arXiv 2011.11164, PGD-20"
_LEADERBOARD = "RobustBench leaderboard, AutoAttack"
_BOTH = f"{_LEADERBOARD}; PGD-20: {_SUBMISSION}"
_AWP_TABLE = "code of arXiv 2004.05884, auto_attacks/README.md, AutoAttack"
_RESNET_18 = "public ResNet-18 result of LBGAT + TRADES, PGD-20"

# Percent: natural, under AutoAttack, under PGD-20.
_REPORTED: dict[str, tuple[float, float | None, float | None, str]] = {
    "lbgat0-cifar10-wrn34-10": (88.22, 52.86, 57.55, _BOTH),
    "lbgat0-cifar10-wrn34-20": (88.70, 53.57, None, _LEADERBOARD),
    "lbgat0-cifar100-wrn34-10": (70.25, 27.16, None, _LEADERBOARD),
    "lbgat6-cifar100-wrn34-10": (60.64, 29.33, None, _LEADERBOARD),
    "lbgat6-cifar100-wrn34-20": (62.55, 30.20, None, _LEADERBOARD),
    "lbgat6-cifar10-wrn34-10": (81.98, None, 57.78, _SUBMISSION),
    "lbgat-cifar100-wrn34-10": (66.29, None, 34.30, _SUBMISSION),
    "lbgat-cifar10-wrn34-10": (87.08, None, 56.60, _SUBMISSION),
    "lbgat-alp-cifar100-wrn34-10": (62.67, None, 35.25, _SUBMISSION),
    "lbgat-alp-cifar10-wrn34-10": (85.05, None, 57.60, _SUBMISSION),
    "lbgat-awp-cifar100-wrn34-10": (62.31, 30.44, None, _LBGAT),
    "lbgat9-awp-cifar100-wrn34-10": (62.99, 31.20, None, _LEADERBOARD),
    "lbgat6-cifar10-resnet18": (76.40, None, 53.19, _RESNET_18),
    "bgat-cifar100-wrn34-10": (67.72, None, 30.20, _SUBMISSION),
    "bgat-cifar10-wrn34-10": (89.00, None, 56.07, _SUBMISSION),
    "trades6-cifar100-wrn34-10": (56.50, 26.87, None, _LBGAT),
    "trades6-cifar10-wrn34-10": (84.92, 52.64, None, _LBGAT),
    "madry-cifar100-wrn34-10": (60.90, None, 27.46, _SUBMISSION),
    "madry-cifar10-wrn34-10": (86.82, None, 52.87, _SUBMISSION),
    "madry-eps8-cifar10-wrn34-10": (87.14, 44.04, None, _LBGAT),
    "trades6-awp-cifar100-wrn34-10": (60.17, 28.80, None, _AWP_TABLE),
    "trades6-awp-cifar10-wrn34-10": (85.36, 56.17, None, _LEADERBOARD),
    "fast-at-cifar10-preact18": (83.34, 43.21, None, _LEADERBOARD),
}

_WRN = "wrn-34-10"
_GUIDE = "resnet-18-guide"
_EPS_8: dict[str, Any] = {"eps": 8 / 255, "eps_step": 2 / 255}
# 0.02 in epoch 1, 0.1 up to 75, 0.01 up to 90, then 0.001.
_GENTLE: dict[str, Any] = {"first_epoch_factor": 0.2, "source": _LBGAT}
# lr / 10 at epochs 100 and 150 (counted from 1), so after 99 and 149.
_WITH_AWP: dict[str, Any] = {
    "run": RunOptions(awp_gamma=5e-3, awp_start_epoch=10), "nb_epochs": 200, "milestones": (99, 149),
    "weight_decay": 5e-4, **_EPS_8,
}  # fmt: skip
_LBGAT_AWP = {
    **_WITH_AWP,
    "first_epoch_factor": 1.0,
    "notes": "The paper reports the result; schedule, gamma and weight decay are those of TRADES-AWP.",
}
_ALP = {"regularizer": "alp", "weight": 1.0}
_TINY = {
    "image_size": 32, "augmentation": "flip", "learning_rate": 0.01,
    "notes": "The paper resizes to 32, flips, does not crop; the rate is only called smaller: 0.01 is ours.",
}  # fmt: skip
_ENSEMBLE: dict[str, Any] = {
    "guides": (_WRN, "inception-resnet-v2"),
    "source": _LBGAT,
    "notes": "The guides are an ensemble of a WideResNet and an Inception-ResNet-v2, trained on natural images first.",
}
_TRADES = {
    "source": "arXiv 1901.08573 and its code",
    "notes": "100 epochs in the schedule of LBGAT; the code of TRADES lowers the rate one epoch earlier.",
}
_MART = {
    **_GENTLE,
    "source": "OpenReview rklOg6EFwS, schedule of LBGAT",
    "notes": "Schedule and weight decay are those of LBGAT, so that a comparison differs only in the objective.",
}
_BASELINE = {**_EPS_8, **_GENTLE, "notes": "The baseline beside lbgat6-cifar10-resnet18, in its schedule."}
_FAST = {
    "eps": 8 / 255, "eps_step": 10 / 255, "max_iter": 1, "nb_epochs": 30, "milestones": (15, 25), "weight_decay": 5e-4,
    "source": "arXiv 2001.03994",
    "notes": "Steps for the paper's cyclic rate, fp32 for its half precision, the attack in eval for its train mode.",
}  # fmt: skip


def _recipe(name: str, method: str, data: str, model: str = _WRN, **settings: Any) -> Recipe:
    short = model.replace("wrn-", "wrn").replace("preact-resnet-18", "preact18").replace("resnet-18", "resnet18")
    name = f"{name}-{data}-{short}"
    result = PublishedResult(*_REPORTED[name]) if name in _REPORTED else None
    return Recipe(name, method, data, model, published=result, **settings)


def _lbgat(name: str, data: str, model: str, alpha: float | None, **settings: Any) -> Recipe:
    regularizer = None if alpha is None else "trades"
    own = {"guides": (_GUIDE,), "regularizer": regularizer, "weight": alpha, **_GENTLE}
    return _recipe(name, "lbgat", data, model, **{**own, **settings})


def _pair(name: str, method: str, **settings: Any) -> list[Recipe]:
    """The same recipe on CIFAR-100 and CIFAR-10."""
    return [_recipe(name, method, data, **settings) for data in ("cifar100", "cifar10")]


PUBLISHED: tuple[Recipe, ...] = (
    _lbgat("lbgat0", "cifar10", _WRN, 0.0),
    _lbgat("lbgat0", "cifar10", "wrn-34-20", 0.0),
    _lbgat("lbgat0", "cifar100", _WRN, 0.0),
    _lbgat("lbgat6", "cifar100", _WRN, 6.0),
    _lbgat("lbgat6", "cifar100", "wrn-34-20", 6.0),
    _lbgat("lbgat6", "cifar10", _WRN, 6.0),
    _lbgat("lbgat", "cifar100", _WRN, None),
    _lbgat("lbgat", "cifar10", _WRN, None),
    _lbgat("lbgat-alp", "cifar100", _WRN, None, **_ALP),
    _lbgat("lbgat-alp", "cifar10", _WRN, None, **_ALP),
    _lbgat("lbgat-awp", "cifar100", _WRN, None, **_LBGAT_AWP),
    _lbgat("lbgat9-awp", "cifar100", _WRN, 9.0, **_LBGAT_AWP),
    _lbgat("lbgat6", "cifar10", "resnet-18", 6.0, **_EPS_8, guides=("resnet-18",)),
    _lbgat("lbgat0", "tiny-imagenet", _WRN, 0.0, **_TINY),
    *(_recipe("bgat", "bgat", data, **_ENSEMBLE, guide_recipe=f"natural-{data}") for data in ("cifar100", "cifar10")),
    *_pair("trades6", "trades", **_TRADES),
    *_pair("madry", "madry", **_GENTLE),
    _recipe("madry-eps8", "madry", "cifar10", **_EPS_8, **_GENTLE),
    *_pair("trades6-awp", "trades", **_WITH_AWP, source="arXiv 2004.05884 and its TRADES-AWP code"),
    *_pair("alp", "alp", **{**_GENTLE, "source": "arXiv 1803.06373, schedule of LBGAT"}),
    *_pair("mart", "mart", **_MART),
    _recipe("trades6", "trades", "cifar10", "resnet-18", **_BASELINE),
    _recipe("fast-at", "fast-at", "cifar10", "preact-resnet-18", **_FAST),
    *(
        Recipe(f"natural-{data}", "natural", data, _GUIDE, source=_LBGAT, notes="A frozen guide for BGAT.")
        for data in ("cifar10", "cifar100")
    ),
)
