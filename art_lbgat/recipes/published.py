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
_AWP_TABLE = "code of arXiv 2004.05884, auto_attacks/README.md, AutoAttack"
_AWP = "arXiv 2004.05884 and its TRADES-AWP code"
_COMMON = "arXiv 1901.08573 and its code"
_GUIDE = "resnet-18-guide"

# 0.02 in epoch 1, 0.1 up to 75, 0.01 up to 90, then 0.001.
_GENTLE: dict[str, Any] = {"first_epoch_factor": 0.2, "source": _LBGAT}
_EPS_8: dict[str, Any] = {"eps": 8 / 255, "eps_step": 2 / 255}
# lr / 10 at epochs 100 and 150 (counted from 1), so after 99 and 149.
_WITH_AWP: dict[str, Any] = {
    "run": RunOptions(awp_gamma=5e-3, awp_start_epoch=10),
    "nb_epochs": 200,
    "milestones": (99, 149),
    "first_epoch_factor": 1.0,
    "weight_decay": 5e-4,
    **_EPS_8,
}
_SAME_SCHEDULE = "Schedule and weight decay are those of LBGAT, so that a comparison differs only in the objective."
_AWP_NOTE = "The paper reports the result; schedule, gamma and weight decay are those of TRADES-AWP."


def _result(natural: float, autoattack: float | None = None, pgd_20: float | None = None) -> PublishedResult:
    source = _SUBMISSION if autoattack is None else _LEADERBOARD
    return PublishedResult(
        natural, autoattack, pgd_20, source if None in (autoattack, pgd_20) else f"{source}; PGD-20: {_SUBMISSION}"
    )


def _lbgat(name: str, data: str, model: str, alpha: float | None, **changes: Any) -> Recipe:
    regularizer = None if alpha is None else "trades"
    settings = {"guides": (_GUIDE,), "regularizer": regularizer, "weight": alpha, **_GENTLE, **changes}
    return Recipe(f"{name}-{data}-{_short(model)}", "lbgat", data, model, **settings)


def _short(model: str) -> str:
    return model.replace("wrn-", "wrn").replace("resnet-18", "resnet18")


def _pair(
    name: str, method: Any, results: tuple[PublishedResult | None, PublishedResult | None], **changes: Any
) -> list[Recipe]:
    """The same recipe on CIFAR-100 and CIFAR-10."""
    return [
        Recipe(
            f"{name}-{data}-wrn34-10",
            method,
            data,
            "wrn-34-10",
            guide_recipe=f"natural-{data}" if changes.get("guides") else None,
            published=result,
            **changes,
        )
        for data, result in zip(("cifar100", "cifar10"), results, strict=True)
    ]


_BGAT_GUIDES = ("wrn-34-10", "inception-resnet-v2")

PUBLISHED: tuple[Recipe, ...] = (
    _lbgat("lbgat0", "cifar10", "wrn-34-10", 0.0, published=_result(88.22, 52.86, 57.55)),
    _lbgat("lbgat0", "cifar10", "wrn-34-20", 0.0, published=_result(88.70, 53.57)),
    _lbgat("lbgat0", "cifar100", "wrn-34-10", 0.0, published=_result(70.25, 27.16)),
    _lbgat("lbgat6", "cifar100", "wrn-34-10", 6.0, published=_result(60.64, 29.33)),
    _lbgat("lbgat6", "cifar100", "wrn-34-20", 6.0, published=_result(62.55, 30.20)),
    _lbgat("lbgat6", "cifar10", "wrn-34-10", 6.0, published=_result(81.98, pgd_20=57.78)),
    _lbgat("lbgat", "cifar100", "wrn-34-10", None, published=_result(66.29, pgd_20=34.30)),
    _lbgat("lbgat", "cifar10", "wrn-34-10", None, published=_result(87.08, pgd_20=56.60)),
    _lbgat(
        "lbgat-alp",
        "cifar100",
        "wrn-34-10",
        None,
        regularizer="alp",
        weight=1.0,
        published=_result(62.67, pgd_20=35.25),
    ),
    _lbgat(
        "lbgat-alp", "cifar10", "wrn-34-10", None, regularizer="alp", weight=1.0, published=_result(85.05, pgd_20=57.60)
    ),
    _lbgat(
        "lbgat-awp",
        "cifar100",
        "wrn-34-10",
        None,
        **_WITH_AWP,
        published=PublishedResult(62.31, 30.44, None, _LBGAT),
        notes=_AWP_NOTE,
    ),
    _lbgat("lbgat9-awp", "cifar100", "wrn-34-10", 9.0, **_WITH_AWP, published=_result(62.99, 31.20), notes=_AWP_NOTE),
    _lbgat(
        "lbgat6",
        "cifar10",
        "resnet-18",
        6.0,
        guides=("resnet-18",),
        **_EPS_8,
        published=PublishedResult(76.40, None, 53.19, "public ResNet-18 result of LBGAT + TRADES, PGD-20"),
    ),
    _lbgat(
        "lbgat0",
        "tiny-imagenet",
        "wrn-34-10",
        0.0,
        image_size=32,
        augmentation="flip",
        learning_rate=0.01,
        notes="The paper resizes to 32, flips, does not crop; the rate is only called smaller: 0.01 is ours.",
    ),
    *_pair(
        "bgat",
        "bgat",
        (_result(67.72, pgd_20=30.20), _result(89.00, pgd_20=56.07)),
        guides=_BGAT_GUIDES,
        source=_LBGAT,
        notes="The guides are an ensemble of a WideResNet and an Inception-ResNet-v2, trained on natural images first.",
    ),
    *_pair(
        "trades6",
        "trades",
        (PublishedResult(56.50, 26.87, None, _LBGAT), PublishedResult(84.92, 52.64, None, _LBGAT)),
        source=_COMMON,
        notes="100 epochs in the schedule of LBGAT; the code of TRADES lowers the rate one epoch earlier.",
    ),
    *_pair("madry", "madry", (_result(60.90, pgd_20=27.46), _result(86.82, pgd_20=52.87)), **_GENTLE),
    Recipe(
        "madry-eps8-cifar10-wrn34-10",
        "madry",
        "cifar10",
        "wrn-34-10",
        **_EPS_8,
        **_GENTLE,
        published=PublishedResult(87.14, 44.04, None, _LBGAT),
    ),
    *_pair(
        "trades6-awp",
        "trades",
        (
            PublishedResult(60.17, 28.80, None, _AWP_TABLE),
            PublishedResult(85.36, 56.17, None, _LEADERBOARD),
        ),
        **_WITH_AWP,
        source=_AWP,
    ),
    *_pair("alp", "alp", (None, None), **{**_GENTLE, "source": "arXiv 1803.06373, schedule of LBGAT"}),
    *_pair(
        "mart",
        "mart",
        (None, None),
        **{**_GENTLE, "source": "OpenReview rklOg6EFwS, schedule of LBGAT"},
        notes=_SAME_SCHEDULE,
    ),
    Recipe(
        "trades6-cifar10-resnet18",
        "trades",
        "cifar10",
        "resnet-18",
        **_EPS_8,
        **_GENTLE,
        notes="The baseline beside lbgat6-cifar10-resnet18, in its schedule.",
    ),
    Recipe(
        "fast-at-cifar10-preact18",
        "fast-at",
        "cifar10",
        "preact-resnet-18",
        eps=8 / 255,
        eps_step=10 / 255,
        max_iter=1,
        nb_epochs=30,
        milestones=(15, 25),
        weight_decay=5e-4,
        source="arXiv 2001.03994",
        published=PublishedResult(83.34, 43.21, None, _LEADERBOARD),
        notes="Steps for the paper's cyclic rate, fp32 for its half precision, the attack in eval for its train mode.",
    ),
    *(
        Recipe(f"natural-{data}", "natural", data, _GUIDE, source=_LBGAT, notes="A frozen guide for BGAT.")
        for data in ("cifar10", "cifar100")
    ),
)
