"""The rules of RobustBench's leaderboards, tried on a classifier."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack import UnitModel, check_defence, published_package
from art_lbgat.evaluation.record import weights_sha256
from art_lbgat.evaluation.subject import DYNAMIC, NON_FINITE, RANDOMISED, SOFTMAX
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness
from art_lbgat.robustbench.comparison import differences
from art_lbgat.robustbench.exported import exported_module
from art_lbgat.robustbench.leaderboard import leaderboard
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.standard import INPUT_SHAPES, NB_CLASSES

_NB_IMAGES = 16
_TOLERANCE = 1e-4  # as AutoAttack's, relative to the largest logit


class Check(NamedTuple):
    """One rule.

    :param rule: What is asked for.
    :param passed: Whether it holds.
    :param found: What was found.
    """

    rule: str
    passed: bool
    found: str


def check_rules(result: BenchmarkResult, classifier: PyTorchClassifier, model_id: str) -> list[Check]:
    """Every rule that can be tried, on the result and on the classifier.

    The classifier is asked about 16 images of uniform noise, in eval mode; modes and random generators are left as
    found. What cannot be tried: an optimisation at inference without autograd, and how many forward passes there are.

    :param result: What a benchmark of it found.
    :param classifier: The classifier, with its present weights.
    :param model_id: The id that it would have on the leaderboard.
    :return: A row for each rule, also for those that hold.
    :raises ValueError: As :func:`~art_lbgat.robustbench.exported.exported_module`, or no single range of inputs.
    :raises TypeError: If it is no ``PyTorchClassifier`` that can be followed on tensors.
    """
    view = TensorView(classifier, "classifier")
    with preserved_randomness(), evaluating(view.module), plain_autograd(view.device):
        model = UnitModel(view)
        exported = exported_module(view, model.scale)
        shape = tuple(classifier.input_shape)
        unit = torch.rand(_NB_IMAGES, *shape, generator=torch.Generator().manual_seed(0)).to(view.device)
        return [
            *_about_the_result(result, model_id),
            _same_weights(result, view),
            _fits(result, shape, classifier.nb_classes),
            *_about_the_forward_pass(result, model, unit),
            _same_logits(model, exported, unit),
        ]


def _about_the_result(result: BenchmarkResult, model_id: str) -> list[Check]:
    found = differences(result)
    checks = [Check("the standard of RobustBench", not found, "; ".join(found) or "standard")]
    try:
        taken = model_id in set(leaderboard(result.dataset, result.threat_model)["model_id"])
    except ValueError as error:
        return [*checks, Check("there is a leaderboard", False, str(error))]
    checks.append(Check("there is a leaderboard", True, f"{result.dataset} {result.threat_model}"))
    return [*checks, Check("the model id is new there", not taken, f"{model_id} is {'taken' if taken else 'new'}")]


def _same_weights(result: BenchmarkResult, view: TensorView) -> Check:
    present = weights_sha256(view.module)
    same = present == result.weights_sha256
    found = f"SHA-256 {present[:12]}..." + ("" if same else f", the result is of {result.weights_sha256[:12]}...")
    return Check("the weights that were judged", same, found)


def _fits(result: BenchmarkResult, shape: tuple[int, ...], nb_classes: int) -> Check:
    # images of ImageNet may have any size, each model brings its own crop
    counted = 1 if result.dataset == "imagenet" else 3
    same = shape[:counted] == INPUT_SHAPES[result.dataset][:counted] and nb_classes == NB_CLASSES[result.dataset]
    return Check(f"inputs and classes of {result.dataset}", same, f"inputs {shape}, {nb_classes} classes")


def _about_the_forward_pass(result: BenchmarkResult, model: UnitModel, unit: Tensor) -> list[Check]:
    checks = importlib.import_module(f"{published_package().__name__}.checks")
    with torch.no_grad():
        logits = model(unit)
    finite = bool(torch.isfinite(logits).all())
    messages = {**check_defence(checks, model, unit, logits.argmax(dim=1)), **result.flags}
    if not finite:
        messages.setdefault(NON_FINITE, "NaN or Inf in the logits")
    rules = {
        RANDOMISED: "deterministic forward pass",
        DYNAMIC: "no autograd call in the forward pass",
        SOFTMAX: "logits, not probabilities",
        NON_FINITE: "finite logits",
    }
    rows = [Check(rule, name not in messages, messages.get(name, "as it should be")) for name, rule in rules.items()]
    zero = _zero_gradients(model, unit)
    return [*rows, Check("gradients at the inputs", zero == 0, f"zero at {zero} of {len(unit)} inputs")]


def _zero_gradients(model: nn.Module, unit: Tensor) -> int:
    """How many inputs have no gradient at all of the margin between their two largest logits."""
    unit = unit.detach().clone().requires_grad_()
    logits = model(unit)
    if not logits.requires_grad:
        return len(unit)
    largest = logits.topk(2, dim=1).values
    (gradient,) = torch.autograd.grad((largest[:, 0] - largest[:, 1]).sum(), unit, allow_unused=True)
    return len(unit) if gradient is None else int((gradient.flatten(1) == 0).all(dim=1).sum())


def _same_logits(model: nn.Module, exported: nn.Module, unit: Tensor) -> Check:
    with torch.no_grad():
        expected, got = model(unit), exported(unit)
    far = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    return Check("logits of the checkpoint", far <= _TOLERANCE, f"differ by {far:.1e} of the largest logit")
