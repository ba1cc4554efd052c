"""Evaluation and RobustBench."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from art.attacks.evasion import ProjectedGradientDescent
from PIL import Image
from torch import nn

from art_lbgat import evaluation, robustbench
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation import Accuracy
from art_lbgat.robustbench import BenchmarkResult, Paper
from qa.faults import wrong_values as wrong
from qa.faults.call import Call
from qa.faults.wrong_values import Strategy, changes, each
from tests.conftest import CLASSES, conv_net, make_classifier, make_data, mlp

N = 4
_ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
_RADIUS = [*wrong.number(), each(lambda: 1.5, lambda: 8.0, lambda: 255.0)]
_STEP = wrong.number(exclusive=True, optional=True)
_AUTOATTACK = [*wrong.choice("standard", *_ATTACKS), each(lambda: ["apgd-ce", 3], lambda: [None], lambda: ["apgd"])]
_CLASSIFIER = [
    *wrong.classifier(),
    each(lambda: make_classifier(nn.Flatten(), optimizer=None)),
]
_MAPPED = [*_CLASSIFIER, each(dict, lambda: {"a": None}, lambda: {"a": nn.Linear(2, 2)}, lambda: [make_classifier()])]
_COMMON: dict[str, list[Strategy]] = {
    "x": wrong.images(),
    "y": wrong.labels(CLASSES, soft=False),
    "norm": wrong.norm(),
    "eps_step": _STEP,
    "batch_size": wrong.count(),
    "seed": wrong.seed(),
}


def _evaluation() -> Iterator[Call]:
    def right(name: str, **options: Any) -> tuple[Any, ...]:
        x, y = make_data(N)
        return getattr(evaluation, name), {"classifier": make_classifier(), "x": x, "y": y, "eps": 0.05, **options}

    attacks = [
        *wrong.choice("natural", "noise", "fgsm", "transfer", "autoattack", "worst"),
        each(lambda: ["pgd-0"], lambda: ["pgd"], lambda: ["quantised-1"], lambda: ["worst"], lambda: [None], list),
        each(lambda: [make_classifier()], lambda: [lambda _: None], lambda: [lambda: 3], lambda: 7),
        each(lambda: ProjectedGradientDescent(make_classifier(seed=4), eps=0.1, eps_step=0.1, verbose=False)),
    ]
    sources = [
        *wrong.junk("none"),
        each(lambda: {"a": None}, lambda: [make_classifier()], lambda: {"a": make_classifier(classes=3)}),
        each(lambda: {"a": make_classifier(clip_values=(0.0, 9.0))}, make_classifier, lambda: {3: "text"}),
    ]
    yield Call(
        "evaluate",
        lambda: right("evaluate", attacks=("natural", "transfer"), sources={"other": make_classifier(seed=2)}),
        {
            "classifier": _MAPPED,
            **_COMMON,
            "eps": _RADIUS,
            "attacks": attacks,
            "restarts": wrong.count(),
            "sources": sources,
            "autoattack": _AUTOATTACK,
        },
    )
    radii = [
        *wrong.junk("list"),
        each(
            lambda: [0.1, 0.1], lambda: [-0.1], lambda: [math.nan], lambda: ["a"], list, lambda: [None], lambda: [5.0]
        ),
        each(
            lambda: np.zeros((2, 2)),
            lambda: [[0.1]],
            lambda: [True],
            lambda: [math.inf],
            lambda: 0.1,
            lambda: [0.1, 1j],
        ),
    ]
    named = [
        *wrong.choice("pgd-1", "fgsm", "noise"),
        each(lambda: "natural", lambda: "worst", lambda: "pgd-0", lambda: "transfer"),
    ]
    yield Call(
        "robustness_curve",
        lambda: right("robustness_curve", eps=[0.0, 0.05], attack="fgsm"),
        {
            "classifier": _MAPPED,
            **_COMMON,
            "eps": radii,
            "attack": named,
            "restarts": wrong.count(),
            "autoattack": _AUTOATTACK,
        },
    )
    yield Call(
        "sanity_checks",
        lambda: right("sanity_checks", autoattack=()),
        {
            "classifier": _CLASSIFIER,
            **_COMMON,
            "eps": [*_RADIUS, each(lambda: 0.0)],
            "source": [*wrong.junk("none"), each(lambda: make_classifier(classes=3), lambda: {"a": make_classifier()})],
            "tolerance": wrong.number(),
            "stronger": wrong.number(),
            "autoattack": [*wrong.junk(), each(lambda: ["apgd"], lambda: [3], lambda: "standards", lambda: 3)],
        },
    )
    table = pd.DataFrame({"check": ["a"], "passed": [True], "observed": [0.0], "expected": ["<= 0"], "detail": [""]})
    tables = [*wrong.kind(), each(pd.DataFrame, lambda: table.drop(columns="passed"), lambda: table["passed"])]
    interval = {"share": wrong.number(maximum=1.0), "n": wrong.count()}
    yield Call("wilson_interval", lambda: (evaluation.wilson_interval, {"share": 0.5, "n": 10}), interval)
    pair = {"masks_a": np.ones((2, 5), dtype=bool), "masks_b": np.zeros((2, 5), dtype=bool)}
    masks = [*wrong.junk(), each(lambda: np.ones((2, 5)), lambda: np.ones((2, 4), dtype=bool), lambda: [[True], []])]
    yield Call("paired_difference", lambda: (evaluation.paired_difference, dict(pair)), dict.fromkeys(pair, masks))
    yield Call("masking_report", lambda: (evaluation.masking_report, {"checks": table.copy()}), {"checks": tables})

    def attack() -> tuple[Any, ...]:
        x, y = map(torch.from_numpy, make_data(N))
        arguments = {
            "view": TensorView(make_classifier(), postprocess=True),
            "x": x,
            "y": y,
            "eps": 0.05,
            "attacks": ["apgd-ce"],
        }
        return evaluation.auto_attack, arguments

    yield Call(
        "auto_attack",
        attack,
        {
            "view": [*wrong.kind(), each(make_classifier, conv_net)],
            "x": wrong.image_tensor(),
            "y": wrong.label_tensor(CLASSES, soft=False),
            "eps": _RADIUS,
            "norm": wrong.norm(),
            "attacks": _AUTOATTACK,
            "batch_size": wrong.count(),
            "seed": wrong.seed(),
            "state_path": _state_paths(),
            "verbose": wrong.flag(),
        },
    )

    def examples() -> tuple[Any, ...]:
        x = torch.from_numpy(make_data(N)[0])
        unit = torch.zeros(()), torch.ones(())
        arguments = {
            "x": x,
            "x_adv": x.clone(),
            "eps": 0.1,
            "norm": math.inf,
            "bounds": unit,
            "scale": 1.0,
            "name": "a",
        }
        return evaluation.verify, arguments

    bad = [
        *wrong.junk(),
        changes(lambda x: x[:-1], lambda x: x[0], lambda x: x * math.nan, lambda x: x.numpy(), lambda x: x.long()),
    ]
    yield Call(
        "verify",
        examples,
        {
            "x": bad,
            "x_adv": [*bad, changes(lambda x: x + 0.2, lambda x: x - 2)],
            "eps": wrong.number(),
            "norm": wrong.norm(),
            "bounds": [*wrong.junk("none"), each(lambda: (torch.zeros(()),), lambda: (1, 2, 3), lambda: ("a", "b"))],
            "scale": wrong.number(),
        },
    )


def _state_paths() -> list[Strategy]:
    return [*wrong.junk("none", "text"), each(lambda: "/dev/null/at/all", lambda: "a\0b", lambda: "/", lambda: 3)]


@cache
def folder() -> Path:
    """Test images for a benchmark, four of noise, gone when the process ends."""
    place = tempfile.TemporaryDirectory()
    folder.keep = place  # type: ignore[attr-defined]
    x = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    for label, image in enumerate(x):
        path = Path(place.name) / "test" / str(label) / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    return Path(place.name)


def _judged() -> Any:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, stride=8), nn.Flatten(), nn.Linear(32, 10))
    return make_classifier(model, shape=(3, 32, 32), classes=10)


def _result(**options: Any) -> BenchmarkResult:
    values: dict[str, Any] = {
        "model_name": "tiny",
        "architecture": "Tiny",
        "dataset": "cifar10",
        "threat_model": "Linf",
        "eps": 8 / 255,
        "natural": Accuracy(9000, 10_000),
        "robust": Accuracy(5000, 10_000),
        "attacks": {"apgd-ce": 0.55},
        "corruptions": {},
        "flags": {},
        "differences": (),
        "seed": 0,
        "batch_size": 50,
        "weights_sha256": "1" * 64,
        "data_sha256": "1" * 64,
        "versions": {},
        "device": "cpu",
        "seconds": {},
    }
    return BenchmarkResult(**{**values, **options})


_DATASET = wrong.choice("cifar10", "cifar100", "imagenet")
_THREAT = wrong.choice("Linf", "L2", "corruptions", "corruptions_3d")
_TEXTS = [each(lambda: "", lambda: "{}", lambda: "[]", lambda: "null", lambda: '{"natural": [1, 2]}', lambda: "{")]
_RESULTS = [*wrong.junk("text"), each(lambda: {"natural": 1}, lambda: Accuracy(1, 2), lambda: 0.5)]
_CIFAR = [
    *wrong.classifier(),
    each(make_classifier, lambda: make_classifier(mlp(), shape=(12,)), lambda: _unbounded()),
]


def _unbounded() -> Any:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, stride=8), nn.Flatten(), nn.Linear(32, 10))
    return make_classifier(model, shape=(3, 32, 32), classes=10, clip_values=None)


def _benchmark() -> Iterator[Call]:
    def right() -> tuple[Any, ...]:
        options = {"data_dir": folder(), "n_examples": 2, "attacks": ["apgd-ce"], "verbose": False}
        return robustbench.benchmark, {"classifier": _judged(), **options}

    names = [*wrong.text(optional=True), each(lambda: "")]
    yield Call(
        "benchmark",
        right,
        {
            "classifier": _CIFAR,
            "dataset": _DATASET,
            "threat_model": _THREAT,
            "eps": [*wrong.number(exclusive=True, optional=True, maximum=1.0)],
            "n_examples": [*wrong.count(optional=True), each(lambda: N + 1, lambda: 10**9)],
            "data_dir": wrong.path(),
            "corruptions_data_dir": wrong.no_path(optional=True)[:-1],
            "preprocessing": wrong.junk("none"),
            "attacks": _AUTOATTACK,
            "batch_size": wrong.count(),
            "seed": wrong.seed(),
            "state_path": _state_paths(),
            "model_name": names,
            "architecture": names,
            "verbose": wrong.flag(),
        },
    )


def _leaderboards() -> Iterator[Call]:
    yield Call("leaderboard", lambda: (robustbench.leaderboard, {}), {"dataset": _DATASET, "threat_model": _THREAT})
    yield Call(
        "compare",
        lambda: (robustbench.compare, {"result": _result()}),
        {
            "result": [
                *_RESULTS,
                each(lambda: "no model", lambda: _result(eps=None)),
                each(lambda: _result(eps=math.nan), lambda: _result(robust=Accuracy(9500, 10_000))),
            ],
            "dataset": wrong.choice("cifar10", optional=True),
            "threat_model": wrong.choice("Linf", optional=True),
            "n_rows": wrong.count(),
            "additional_data": wrong.flag(optional=True),
            "synthetic_images": wrong.text(optional=True),
        },
    )
    yield Call(
        "list_models",
        lambda: (robustbench.list_models, {}),
        {
            "dataset": wrong.choice("cifar10", "cifar100", "imagenet", optional=True),
            "threat_model": wrong.choice("Linf", "L2", "corruptions", "corruptions_3d", optional=True),
            "model_dir": [*wrong.junk("none", "text"), each(lambda: 3)],
        },
    )
    yield Call(
        "load_classifier",
        lambda: (robustbench.load_classifier, {"name": "Standard", "model_dir": str(folder() / "none")}),
        {
            "name": wrong.choice("Standard"),
            "dataset": _DATASET,
            "threat_model": _THREAT,
            "model_dir": [*wrong.junk("text"), each(lambda: 3)],
            "trainable": wrong.flag(),
            "device_type": wrong.choice("cpu", "gpu", optional=True),
            "learning_rate": wrong.number(exclusive=True),
        },
        missing=True,
    )
    modules = [*wrong.text(), each(lambda: "none", lambda: "", lambda: "../wide_resnet", lambda: "a.b")]
    yield Call(
        "import_architecture",
        lambda: (robustbench.import_architecture, {"module_name": "wide_resnet"}),
        {"module_name": modules},
        raises=(ImportError,),
    )


def _records() -> Iterator[Call]:
    paper = {"title": "T", "url": "https://example.org", "authors": "A", "venue": "V"}
    urls = [*wrong.line(), each(lambda: "ftp://a", lambda: "example.org")]
    yield Call(
        "Paper",
        lambda: (Paper, dict(paper)),
        {"title": wrong.line(), "url": urls, "authors": wrong.line(), "venue": wrong.line()},
        says={name: f"paper.{name}" for name in paper},
    )
    mapping = wrong.junk("dict")
    accuracies = [*wrong.junk(), each(lambda: Accuracy(5, 0), lambda: Accuracy(-1, 2), lambda: Accuracy(3, 2))]
    yield Call(
        "BenchmarkResult",
        lambda: (_result, {}),
        {
            "model_name": wrong.text(),
            "architecture": wrong.text(),
            "dataset": wrong.text(),
            "threat_model": wrong.text(),
            "eps": wrong.junk("none", "number"),
            "natural": accuracies,
            "robust": accuracies,
            "attacks": mapping,
            "corruptions": mapping,
            "flags": mapping,
            "differences": [*wrong.junk(), each(lambda: (1, 2))],
            "seed": wrong.count(0),
            "batch_size": wrong.count(),
            "weights_sha256": wrong.text(),
            "data_sha256": wrong.text(),
            "versions": mapping,
            "device": wrong.text(),
            "seconds": mapping,
        },
    )
    good = json.loads(_result().to_json())
    more = each(
        *(lambda name=name: json.dumps({**good, name: object.__name__}) for name in ("natural", "seed", "flags"))
    )
    lacking = each(
        *(lambda name=name: json.dumps({k: v for k, v in good.items() if k != name}) for name in ("eps", "seed"))
    )
    texts = [*wrong.text(), *_TEXTS, more, lacking, each(lambda: json.dumps({**good, "other": 1}))]
    yield Call(
        "BenchmarkResult.from_json", lambda: (BenchmarkResult.from_json, {"text": _result().to_json()}), {"text": texts}
    )
    place = tempfile.gettempdir()
    yield Call(
        "BenchmarkResult.save",
        lambda: (_result().save, {"path": folder() / "result.json"}),
        {"path": [*wrong.no_path(), each(lambda: place, lambda: "/dev/null/at/all", lambda: "")]},
    )

    def saved() -> tuple[Any, ...]:
        _result().save(folder() / "result.json")
        return BenchmarkResult.load, {"path": folder() / "result.json"}

    yield Call("BenchmarkResult.load", saved, {"path": [*wrong.path(), each(lambda: place, lambda: "", _not_json)]})


def _not_json() -> str:
    path = folder() / "text.json"
    path.write_text("no result", encoding="utf-8")
    return str(path)


def _submissions() -> Iterator[Call]:
    ids = [*wrong.text(), each(lambda: "", lambda: "a/b", lambda: "Doe", lambda: "../Doe2024Test", lambda: "Doe2024 T")]
    yield Call(
        "check_submission",
        lambda: (
            robustbench.check_submission,
            {"result": _result(), "classifier": _judged(), "model_id": "Doe2024Testing"},
        ),
        {"result": [*_RESULTS, each(lambda: "text")], "classifier": wrong.classifier(), "model_id": ids},
    )

    def export() -> tuple[Any, ...]:
        place = tempfile.mkdtemp(dir=folder())
        arguments = {"result": _result(), "classifier": _judged(), "folder": place, "model_id": "Doe2024Testing"}
        paper = Paper("T", "https://example.org", "A", "V")
        return robustbench.export_submission, {**arguments, "paper": paper, "additional_data": False, "force": True}

    urls = [*wrong.line(optional=True), each(lambda: "ftp://a", lambda: "example.org")]
    yield Call(
        "export_submission",
        export,
        {
            "result": [*_RESULTS, each(lambda: "text")],
            "classifier": wrong.classifier(),
            "folder": [
                *wrong.no_path(),
                each(lambda: str(folder() / "test" / "0" / "0.png" / "a"), _not_json),
            ],
            "paper": wrong.kind(),
            "model_id": ids,
            "additional_data": wrong.flag(),
            "architecture": wrong.line(optional=True),
            "number_forward_passes": wrong.count(),
            "reported": wrong.number(optional=True, maximum=1.0),
            "footnote": wrong.line(optional=True),
            "checkpoint_url": urls,
            "add_to_zoo": wrong.flag(),
            "architecture_url": urls,
            "model_license": urls,
            "force": wrong.flag(),
        },
    )


def calls() -> list[Call]:
    """The part of the table."""
    return [*_evaluation(), *_benchmark(), *_leaderboards(), *_records(), *_submissions()]
