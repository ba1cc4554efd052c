"""Recipes and studies."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from art_lbgat import load, recipes, study
from art_lbgat.losses import GUIDANCE, REGULARIZERS
from art_lbgat.models import create_model
from art_lbgat.recipes import RECIPES, Recipe
from art_lbgat.runs import WEIGHTS, Config
from art_lbgat.study import plan_runs, run
from art_lbgat.trainers import METHODS
from art_lbgat.weights import save_weights
from qa.faults import wrong_values as wrong
from qa.faults.call import Call
from qa.faults.wrong_values import Strategy, each

_FIELDS: dict[str, list[Strategy]] = {
    "id": [*wrong.text(), each(lambda: "", lambda: "a/b", lambda: "../a", lambda: "a b")],
    "method": wrong.choice(*METHODS),
    "data": wrong.choice("digits", "cifar10", "cifar100", "svhn", "tiny-imagenet", "folder", "npz"),
    "model": [*wrong.text(), each(lambda: "")],
    "guides": [*wrong.junk(), each(tuple, lambda: ("a", "b"), lambda: (3,), lambda: "small-cnn", lambda: (None,))],
    "guide_recipe": wrong.text(optional=True),
    "sub_block1": wrong.flag(),
    "guidance": wrong.choice(*GUIDANCE),
    "kd_temperature": wrong.number(exclusive=True),
    "kd_weight": wrong.number(maximum=1.0),
    "guide_ce_weight": wrong.number(),
    "regularizer": wrong.choice(*REGULARIZERS, optional=True),
    "weight": wrong.number(optional=True),
    "norm": wrong.choice("inf", "2", "2.0"),
    "eps": [*wrong.number(exclusive=True), each(lambda: 8.0)],
    "eps_step": wrong.number(optional=True, exclusive=True),
    "max_iter": wrong.count(),
    "attack_mode": wrong.choice("eval"),
    "batch_size": wrong.count(),
    "nb_epochs": wrong.count(),
    "learning_rate": wrong.number(exclusive=True),
    "momentum": wrong.number(),
    "weight_decay": wrong.number(),
    "nesterov": wrong.flag(),
    "milestones": [*wrong.junk(), each(lambda: (2, 1), lambda: (0,), lambda: (1, 1), lambda: (1.5,), lambda: "ab")],
    "lr_gamma": wrong.number(exclusive=True, maximum=1.0),
    "first_epoch_factor": wrong.number(exclusive=True),
    "lr_warmup": [*wrong.number(optional=True), each(lambda: 0.5)],
    "scheduler": wrong.choice("step", "one-cycle", "cosine"),
    "decay_norms": wrong.flag(),
    "label_smoothing": wrong.number(maximum=1.0),
    "augmentation": wrong.choice(
        "crop", "flip", "cutout", "autoaugment", "autoaugment-svhn", "randaugment", "cutmix", "none"
    ),
    "image_size": wrong.count(optional=True),
    "run": wrong.kind(),
    "published": wrong.junk("none"),
    "source": wrong.text(),
    "notes": wrong.text(),
}
_RUN_FIELDS: dict[str, list[Strategy]] = {
    "eps_warmup_epochs": wrong.count(0),
    "eps_warmup": wrong.number(maximum=1.0),
    "ema_start": [*wrong.number(), each(lambda: 1.0)],
    "ema_warmup": wrong.flag(),
    "max_grad_norm": wrong.number(exclusive=True, optional=True),
    "awp_gamma": wrong.number(exclusive=True, optional=True),
    "awp_start_epoch": wrong.count(),
    "ema_decay": wrong.share(optional=True),
    "keep": wrong.choice("best", "last"),
    "patience": wrong.count(optional=True),
    "on_collapse": wrong.choice("warn", "stop"),
    "validate_every": wrong.count(),
    "selection": wrong.choice("validation", "test"),
}
# How fields are taken from a file or a terminal: numbers as text, one value for several.
_LENIENT = ("guides", "milestones", "published")


def _right() -> dict[str, Any]:
    return {"id": "a", "method": "lbgat", "data": "digits", "model": "small-cnn", "guides": ("small-cnn",)}


@cache
def folder() -> Path:
    """A folder with a recipe, gone when the process ends."""
    place = tempfile.TemporaryDirectory()
    folder.keep = place  # type: ignore[attr-defined]
    root = Path(place.name)
    RECIPES["digits-lbgat"].save(root / "recipe.toml")
    (root / "list.toml").write_text("[1, 2]", encoding="utf-8")
    (root / "broken.toml").write_text("a: [", encoding="utf-8")
    (root / "bytes.toml").write_bytes(b"\xff\xfe\x00\x01")
    return root


_DONE: dict[str, Any] = {}


def _done(options: study.StudyOptions) -> dict[str, Any]:
    """The one run of a study, made once, in this process."""
    if not _DONE:
        place = Path(tempfile.mkdtemp(dir=folder()))
        (place / "runs").mkdir()
        (arm, task), *_ = plan_runs(options)[1]
        row = {"arm": arm, **run(task, place / "runs")}
        _DONE.update(options=options, output=place, runs=pd.DataFrame([row]))
    return dict(_DONE)


@cache
def _run_directory() -> Path:
    """The directory of a run, as a training leaves it."""
    directory = folder() / "run"
    Config(RECIPES["digits-natural"], input_shape=(1, 8, 8), nb_classes=10).write(directory)
    save_weights(create_model("small-cnn", 10, (1, 8, 8)), directory / WEIGHTS)
    return directory


def _recipes() -> Iterator[Call]:
    yield Call("Recipe", lambda: (Recipe, _right()), _FIELDS)
    recipe = Recipe(**_right())
    override = {name: strategies for name, strategies in _FIELDS.items() if name not in _LENIENT} | _RUN_FIELDS
    yield Call("Recipe.override", lambda: (recipe.override, {"eps": 0.1}), override)
    yield Call("Recipe.scaled", lambda: (recipe.scaled, {"nb_epochs": 3}), {"nb_epochs": wrong.count()})
    build = {
        "root": [*wrong.junk("none"), each(lambda: 3)],
        "seed": wrong.seed(maximum=2**32 - 1),
        "data": wrong.junk("none"),
        "limit": wrong.count(optional=True),
        "guide_weights": [*wrong.junk("none"), each(dict, lambda: ["a", "b"], lambda: "no such file")],
        "device_type": wrong.choice("cpu", "gpu", optional=True),
        "verbose": wrong.flag(),
    }
    yield Call("Recipe.build", lambda: (RECIPES["digits-lbgat"].build, {"limit": 100}), build)
    files = [each(*(lambda name=name: str(folder() / name) for name in ("list.toml", "broken.toml", "bytes.toml")))]
    yield Call(
        "Recipe.read", lambda: (Recipe.read, {"path": folder() / "recipe.toml"}), {"path": [*wrong.path(), *files]}
    )
    yield Call(
        "Recipe.save",
        lambda: (recipe.save, {"path": folder() / "saved.toml"}),
        {"path": [*wrong.no_path(), each(lambda: str(folder()), lambda: "/dev/null/at/all", lambda: "")]},
    )
    yield Call(
        "load",
        lambda: (load, {"path": _run_directory(), "device_type": "cpu"}),
        {"path": [*wrong.path(), *files], "device_type": wrong.choice("cpu", "gpu", optional=True)},
    )
    names = wrong.choice("guidance", "alpha", "guide-depth", "ensemble", "regularizer")
    bases = [*wrong.junk(), each(lambda: RECIPES["digits-natural"], lambda: "digits-lbgat")]
    yield Call(
        "ablation",
        lambda: (recipes.ablation, {"name": "guidance", "base": RECIPES["digits-lbgat"]}),
        {"name": names, "base": bases},
    )
    percent = [*wrong.number(maximum=100.0)]
    optional = wrong.number(optional=True, maximum=100.0)
    yield Call(
        "PublishedResult",
        lambda: (recipes.PublishedResult, {"natural": 90.0}),
        {"natural": percent, "autoattack": optional, "pgd_20": optional, "source": wrong.text()},
    )


def _studies() -> Iterator[Call]:
    arms = {"a": RECIPES["digits-natural"]}
    yield Call(
        "StudyOptions",
        lambda: (study.StudyOptions, {"arms": dict(arms)}),
        {
            "arms": [*wrong.junk(), each(dict, lambda: {"a": "digits"}, lambda: {1: arms["a"]}, lambda: {"a": None})],
            "seeds": [
                *wrong.junk(),
                each(tuple, lambda: (0, 0), lambda: (-1,), lambda: (0.5,), lambda: 3, lambda: (None,)),
            ],
            "root": [*wrong.junk("none", "text"), each(lambda: 3)],
            "limit": wrong.count(optional=True),
            "nb_epochs": wrong.count(optional=True),
            "part": wrong.choice("test", "validation"),
            "n_test": wrong.count(optional=True),
            "n_autoattack": wrong.count(0, optional=True),
            "workers": wrong.count(optional=True),
        },
    )
    options = study.StudyOptions(arms, seeds=(0,), nb_epochs=1, limit=200, n_test=10, n_autoattack=0, workers=1)
    yield Call(
        "run_study",
        lambda: (study.run_study, {"options": options, "output": Path(tempfile.mkdtemp(dir=folder()))}),
        {
            "options": wrong.kind(),
            "output": [
                *wrong.junk("none", "text"),
                each(lambda: 3, lambda: "a\0b", lambda: str(folder() / "list.toml")),
            ],
            "report": wrong.junk("none", "function", "type"),
        },
    )
    yield Call(
        "study_content",
        lambda: (study.study_content, {**_done(options), "title": "A study"}),
        {
            "options": wrong.kind(),
            "output": [*wrong.junk("text"), each(lambda: 3, lambda: "a\0b")],
            "runs": [*wrong.kind(), each(pd.DataFrame)],
            "title": wrong.text(),
            "data": wrong.junk("none"),
            "commands": [*wrong.junk("list", "tuple"), each(lambda: "one", lambda: [3])],
        },
    )
    runs = pd.DataFrame(
        {"arm": ["a", "b"], "eps": 0.1, "seed": 0, "natural": 0.9, "train_seconds": 1.0, "judge_seconds": 1.0}
    )
    tables = [
        *wrong.kind(),
        each(pd.DataFrame, lambda: runs.drop(columns="arm"), lambda: runs["arm"], lambda: {"arm": []}),
    ]
    yield Call(
        "summarize",
        lambda: (study.summarize, {"runs": runs.copy()}),
        {"runs": tables, "baseline": [*wrong.choice("a", "b", optional=True), each(lambda: math.nan)]},
    )


def calls() -> list[Call]:
    """The part of the table."""
    return [*_recipes(), *_studies()]
