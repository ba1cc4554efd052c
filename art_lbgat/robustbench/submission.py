"""The files that a submission to RobustBench's leaderboard and model zoo consists of, and the rules that it keeps."""

from __future__ import annotations

import importlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from art.preprocessing.standardisation_mean_std.utils import broadcastable_mean_std
from torch import Tensor, nn

from art_lbgat.checks import check_count, check_flag, check_kind, check_number, check_path
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack import UnitModel, check_defence, published_package
from art_lbgat.evaluation.record import weights_sha256
from art_lbgat.evaluation.subject import DYNAMIC, NON_FINITE, RANDOMISED, SOFTMAX
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness
from art_lbgat.robustbench.leaderboard import leaderboard
from art_lbgat.robustbench.result import (
    INPUT_SHAPES,
    NB_CLASSES,
    NORMS,
    BenchmarkResult,
    all_differences,
    check_dataset,
    check_threat_model,
    eps_text,
)

NOT_STANDARD = "NOT_STANDARD"
MODEL_ID = re.compile(r"[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*)*(19|20)[0-9]{2}[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
"""``<FirstAuthor><Year><FirstWordOfTitle>[_variant]``: letters, digits, ``-`` and ``_`` only, so safe in a path."""

_TO_FILL_IN = "(to be filled in)"
_ACCURACY_KEYS = {"corruptions": "corruptions_acc", "corruptions_3d": "corruptions_acc_3d"}
_STANDARDISATIONS = (StandardisationMeanStd, StandardisationMeanStdPyTorch)
_NB_IMAGES = 16
_TOLERANCE = 1e-4  # as AutoAttack's, relative to the largest logit


@dataclass(frozen=True)
class Paper:
    """The paper that a model belongs to.

    :param title: Its title.
    :param url: Where it can be read, ``https://...``.
    :param authors: Their names as they are to be shown, such as ``"Jane Doe, John Roe"``.
    :param venue: Where it appeared, such as ``"ICCV 2021"`` or ``"arXiv, Nov 2020"``.
    :raises ValueError: If one is empty or of several lines, or the URL is none.
    """

    title: str
    url: str
    authors: str
    venue: str

    def __post_init__(self) -> None:
        for name in ("title", "url", "authors", "venue"):
            _check_line(getattr(self, name), f"paper.{name}")
        _check_url(self.url, "paper.url")


@dataclass(frozen=True)
class Submission:
    """What was written.

    :param model_info: The row of the leaderboard, as JSON.
    :param issue: The text of the "new model" issue, as Markdown.
    :param checkpoint: The weights, a plain state dict of ``torch.save``.
    :param result: The result, as :meth:`BenchmarkResult.load` reads it.
    :param standard: Whether every rule holds; if not, every file has ``NOT_STANDARD`` in its name.
    :param checks: A row per rule: ``rule``, ``passed``, ``found``.
    """

    model_info: Path
    issue: Path
    checkpoint: Path
    result: Path
    standard: bool
    checks: pd.DataFrame = field(compare=False, repr=False)


def check_submission(result: BenchmarkResult, classifier: PyTorchClassifier, model_id: str) -> pd.DataFrame:
    """The rules of the leaderboard, tried and not enforced; nothing is written.

    :param result: What a benchmark of the classifier found.
    :param classifier: The classifier; modes, weights and random generators are left as found.
    :param model_id: As in :func:`export_submission`.
    :return: A row per rule: ``rule``, ``passed``, ``found``.
    :raises ValueError: As :func:`export_submission`, except for rules that do not hold.
    """
    return pd.DataFrame(_check_rules(result, classifier, model_id), columns=list(Check._fields))


def export_submission(
    result: BenchmarkResult,
    classifier: PyTorchClassifier,
    folder: str | os.PathLike[str],
    *,
    paper: Paper,
    model_id: str,
    additional_data: bool,
    architecture: str | None = None,
    number_forward_passes: int = 1,
    reported: float | None = None,
    footnote: str | None = None,
    checkpoint_url: str | None = None,
    add_to_zoo: bool = False,
    architecture_url: str | None = None,
    model_license: str | None = None,
    force: bool = False,
) -> Submission:
    """Check the rules of the leaderboard and write the files of a submission, all or none; nothing is sent anywhere.

    Written are, with ``<dataset>/<threat model>`` for ``...``, ``model_info/.../<model_id>.json`` and
    ``models/.../<model_id>.pt`` (RobustBench's layouts), ``submissions/.../<model_id>/issue.md`` and ``result.json``
    beside it. The checkpoint is that of the network on images in [0, 1]: a standardisation of ART's goes into it as
    buffers ``mu`` and ``sigma``, with the network's own names behind ``model.``.

    :param result: What a benchmark of this classifier found.
    :param classifier: The classifier; modes, weights and random generators are left as found.
    :param folder: Where to; made if it does not exist.
    :param paper: The paper.
    :param model_id: ``<FirstAuthor><Year><FirstWordOfTitle>[_variant]``.
    :param additional_data: Whether extra data was used; generated images alone belong in the footnote instead.
    :param architecture: Such as ``"WideResNet-34-10"``; None is that of the result.
    :param number_forward_passes: Forward passes for one prediction.
    :param reported: The robust accuracy that the paper claims, in [0, 1]; None is left empty.
    :param footnote: What a reader of the leaderboard has to know.
    :param checkpoint_url: Where checkpoint and code can be had; None leaves the place to be filled in.
    :param add_to_zoo: Whether to ask for the model to be added to the zoo.
    :param architecture_url: Where its code is, for an architecture that neither RobustBench nor timm has.
    :param model_license: ``"MIT"``, or the URL of another licence; None leaves both boxes open.
    :param force: Write also what breaks a rule: marked ``NOT_STANDARD`` in every file name, with the reasons inside.
    :return: The paths and what was checked.
    :raises ValueError: A bad id, text or URL; rules that do not hold (unless ``force``), each with what was found;
        preprocessing that cannot be part of a checkpoint.
    :raises FileExistsError: If one of the files is there already.
    """
    check_kind(result, "result", BenchmarkResult)
    check_kind(paper, "paper", Paper)
    root = check_path(folder, "folder")
    check_flag(force, "force")
    claim = _checked_claim(
        model_id=model_id,
        architecture=result.architecture if architecture is None else architecture,
        additional_data=additional_data,
        number_forward_passes=number_forward_passes,
        reported=reported,
        footnote=footnote,
        checkpoint_url=checkpoint_url,
        add_to_zoo=add_to_zoo,
        architecture_url=architecture_url,
        model_license=model_license,
    )
    checks = _check_rules(result, classifier, model_id)
    reasons = [f"{check.rule}: {check.found}" for check in checks if not check.passed]
    if reasons and not force:
        raise ValueError("result: not fit for the leaderboard (force=True writes it marked). " + "; ".join(reasons))
    info = json.dumps(_model_info(result, paper, claim, reasons), indent=2) + "\n"
    issue = _issue_text(result, paper, claim, checks)
    view = TensorView(classifier)
    state = _state(exported_module(view, UnitModel(view).scale))
    paths = _paths(root, result, model_id, f"_{NOT_STANDARD}" if reasons else "")
    _write_all({
        paths["model_info"]: lambda path: path.write_text(info, encoding="utf-8"),
        paths["issue"]: lambda path: path.write_text(issue, encoding="utf-8"),
        paths["checkpoint"]: lambda path: torch.save(state, path),
        paths["result"]: result.save,
    })  # fmt: skip
    return Submission(**paths, standard=not reasons, checks=pd.DataFrame(checks, columns=list(Check._fields)))


def _paths(root: Path, result: BenchmarkResult, model_id: str, mark: str) -> dict[str, Path]:
    place = Path(result.dataset) / result.threat_model.removesuffix("_3d")
    texts = root / "submissions" / place / model_id
    return {
        "model_info": root / "model_info" / place / f"{model_id}{mark}.json",
        "issue": texts / f"issue{mark}.md",
        "checkpoint": root / "models" / place / f"{model_id}{mark}.pt",
        "result": texts / f"result{mark}.json",
    }


def _write_all(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write every file or none: first beside their places, then all of them moved there."""
    existing = [str(path) for path in writers if path.exists()]
    if existing:
        raise FileExistsError(f"folder: nothing was written, since these files exist: {', '.join(existing)}.")
    drafts = {path: path.with_name(f".{uuid.uuid4().hex}.tmp") for path in writers}
    try:
        for path, write in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(drafts[path])
        for path, draft in drafts.items():
            draft.replace(path)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _checked_claim(**claim: Any) -> dict[str, Any]:
    """What is said of the model beside its result: arguments of :func:`export_submission`."""
    _check_line(claim["architecture"], "architecture")
    check_count(claim["number_forward_passes"], "number_forward_passes")
    for name in ("additional_data", "add_to_zoo"):
        check_flag(claim[name], name)
    if claim["reported"] is not None and check_number(claim["reported"], "reported") > 1:
        raise ValueError(f"reported: expected an accuracy in [0, 1], got {claim['reported']}.")
    if claim["footnote"] is not None:
        _check_line(claim["footnote"], "footnote")
    for name in ("checkpoint_url", "architecture_url", "model_license"):
        if claim[name] is not None and (name, claim[name]) != ("model_license", "MIT"):
            _check_url(claim[name], name)
    return claim


def _model_info(
    result: BenchmarkResult, paper: Paper, claim: Mapping[str, Any], reasons: Sequence[str]
) -> dict[str, Any]:
    """A row of the leaderboard by RobustBench's keys, in its order; what others measure is left out."""
    notes = [f"{NOT_STANDARD}: {'; '.join(reasons)}."] if reasons else []
    notes += [claim["footnote"]] if claim["footnote"] else []
    info: dict[str, Any] = {
        "link": paper.url,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": claim["additional_data"],
        "number_forward_passes": claim["number_forward_passes"],
        "dataset": result.dataset,
        "venue": paper.venue,
        "architecture": claim["architecture"],
        "eps": eps_text(result.dataset, result.threat_model, result.eps),
        "clean_acc": _percent(result.natural.value),
        "reported": "" if claim["reported"] is None else _percent(claim["reported"]),
        _ACCURACY_KEYS.get(result.threat_model, "autoattack_acc"): _percent(result.robust.value),
    }
    if notes:
        info["footnote"] = " ".join(notes)
    if result.threat_model in NORMS:
        info["unreliable"] = bool(result.flags)
    return info


_ISSUE = """\
<!-- Title: [New Model] {model_id} -->

{warning}# Paper Information

- **Paper Title**: {paper.title}
- **Paper URL**: {paper.url}
- **Paper authors**: {paper.authors}
- **Venue**: {paper.venue}

# Leaderboard Claim(s)

## Model 1: {model_id}

- **Architecture**: {architecture}
- **Dataset**: {result.dataset}
- **Threat Model**: {result.threat_model}
- **eps**: {eps}
- **Clean accuracy**: {natural} %
- **Robust accuracy**: {robust} %
- **Additional data**: {additional_data}
- **Number of forward passes**: {number_forward_passes}
- **Evaluation method**: {method}
- **Checkpoint and code**: {checkpoint}
{note}
# Model Zoo

{zoo} Add this model to the model zoo.
{own_architecture} Its architecture is in neither RobustBench nor timm: {code}
{mit} The model is released under the MIT licence, **or**
{own_licence} under a licence of its own: {licence_url}

# Checks

{checks}
"""


def _issue_text(result: BenchmarkResult, paper: Paper, claim: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """The "new model" issue as Markdown; boxes are ticked only for what the claim says, broken rules come first."""
    failed = "".join(f"> - {check.rule}: {check.found}\n" for check in checks if not check.passed)
    # more than result.label, which has what the benchmark noted only
    differences = "; ".join(all_differences(result))
    standard = f"not RobustBench standard: {differences}" if differences else "RobustBench standard"
    attack = "AutoAttack" if result.threat_model in NORMS else "mean over all kinds and severities"
    flags = "; ".join(f"{name} ({message})" for name, message in result.flags.items()) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items()) or "versions unknown"
    own_licence = claim["model_license"] not in (None, "MIT")
    filled = {
        "warning": f"> **{NOT_STANDARD}**: this is no number for the leaderboard.\n{failed}\n" if failed else "",
        "eps": eps_text(result.dataset, result.threat_model, result.eps) or "none",
        "natural": _percent(result.natural.value),
        "robust": _percent(result.robust.value),
        "additional_data": str(claim["additional_data"]).lower(),
        "method": f"{attack} on {result.natural.n:,} images, seed {result.seed}, batches of {result.batch_size}; "
        f"{standard}; flags: {flags}; {versions}",
        "checkpoint": claim["checkpoint_url"] or _TO_FILL_IN,
        "note": f"- **Footnote**: {claim['footnote']}\n" if claim["footnote"] else "",
        "zoo": _box(claim["add_to_zoo"]),
        "own_architecture": _box(claim["architecture_url"] is not None),
        "code": claim["architecture_url"] or _TO_FILL_IN,
        "mit": _box(claim["model_license"] == "MIT"),
        "own_licence": _box(own_licence),
        "licence_url": claim["model_license"] if own_licence else _TO_FILL_IN,
        "checks": "\n".join(f"{_box(check.passed)} {check.rule}: {check.found}" for check in checks),
    }
    return _ISSUE.format(result=result, paper=paper, **{**claim, **filled})


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _box(ticked: bool) -> str:
    return f"- [{'x' if ticked else ' '}]"


def _check_line(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.strip() or len(text.splitlines()) != 1:
        raise ValueError(f"{name}: expected one line of text, got {text!r}.")


def _check_url(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.startswith(("https://", "http://")) or len(text.split()) != 1:
        raise ValueError(f"{name}: expected a URL (https://...), got {text!r}.")


class Check(NamedTuple):
    """One rule: what is asked for, whether it holds, what was found."""

    rule: str
    passed: bool
    found: str


def _check_rules(result: BenchmarkResult, classifier: PyTorchClassifier, model_id: str) -> list[Check]:
    """Every rule that can be tried (not the number of forward passes, nor an optimisation without autograd)."""
    check_kind(result, "result", BenchmarkResult)
    check_dataset(result.dataset)
    check_threat_model(result.threat_model)
    if not isinstance(model_id, str) or not MODEL_ID.fullmatch(model_id):
        form = "<FirstAuthor><Year><FirstWordOfTitle>[_variant] of letters, digits, '-' and '_'"
        raise ValueError(f"model_id: expected {form}, such as 'Cui2020Learnable_34_10', got {model_id!r}.")
    view = TensorView(classifier, "classifier")
    with preserved_randomness(), evaluating(view.module), plain_autograd(view.device):
        return [*_about_the_result(result, model_id), *_about_the_model(result, view)]


def _about_the_result(result: BenchmarkResult, model_id: str) -> list[Check]:
    found = all_differences(result)
    checks = [Check("the standard of RobustBench", not found, "; ".join(found) or "standard")]
    try:
        taken = model_id in set(leaderboard(result.dataset, result.threat_model)["model_id"])
    except ValueError as error:
        return [*checks, Check("there is a leaderboard", False, str(error))]
    checks.append(Check("there is a leaderboard", True, f"{result.dataset} {result.threat_model}"))
    return [*checks, Check("the model id is new there", not taken, f"{model_id} is {'taken' if taken else 'new'}")]


def _about_the_model(result: BenchmarkResult, view: TensorView) -> list[Check]:
    model = UnitModel(view)
    exported = exported_module(view, model.scale)  # refuses before anything is run
    present, judged, dataset = weights_sha256(view.module), result.weights_sha256, result.dataset
    found = f"SHA-256 {present[:12]}..." + ("" if present == judged else f", the result is of {judged[:12]}...")
    shape, nb_classes = tuple(view.classifier.input_shape), view.classifier.nb_classes
    counted = 1 if dataset == "imagenet" else 3  # images of ImageNet may have any size, each model brings its own crop
    fits = shape[:counted] == INPUT_SHAPES[dataset][:counted] and nb_classes == NB_CLASSES[dataset]
    unit = torch.rand(_NB_IMAGES, *shape, generator=torch.Generator().manual_seed(0)).to(view.device)
    with torch.no_grad():
        logits, expected, got = model(unit), model(unit), exported(unit)
    attack_checks = importlib.import_module(f"{published_package().__name__}.checks")
    messages = {**check_defence(attack_checks, model, unit, logits.argmax(dim=1)), **result.flags}
    if not bool(torch.isfinite(logits).all()):
        messages.setdefault(NON_FINITE, "NaN or Inf in the logits")
    rules = {
        RANDOMISED: "deterministic forward pass",
        DYNAMIC: "no autograd call in the forward pass",
        SOFTMAX: "logits, not probabilities",
        NON_FINITE: "finite logits",
    }
    zero = _zero_gradients(model, unit)
    far = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    return [
        Check("the weights that were judged", present == judged, found),
        Check(f"inputs and classes of {dataset}", fits, f"inputs {shape}, {nb_classes} classes"),
        *(Check(rule, name not in messages, messages.get(name, "as it should be")) for name, rule in rules.items()),
        Check("gradients at the inputs", zero == 0, f"zero at {zero} of {len(unit)} inputs"),
        Check("logits of the checkpoint", far <= _TOLERANCE, f"differ by {far:.1e} of the largest logit"),
    ]


def _zero_gradients(model: nn.Module, unit: Tensor) -> int:
    """How many inputs have no gradient at all of the margin between their two largest logits."""
    unit = unit.detach().clone().requires_grad_()
    logits = model(unit)
    if not logits.requires_grad:
        return len(unit)
    largest, _ = logits.topk(2, dim=1)
    (gradient,) = torch.autograd.grad((largest[:, 0] - largest[:, 1]).sum(), unit, allow_unused=True)
    return len(unit) if gradient is None else int((gradient.flatten(1) == 0).all(dim=1).sum())


class Normalized(nn.Module):
    """``model((x - mu) / sigma)``: RobustBench takes ``model.`` off the names, so they fit networks of its zoo."""

    mu: Tensor
    sigma: Tensor

    def __init__(self, model: nn.Module, mu: Tensor, sigma: Tensor) -> None:
        super().__init__()
        self.register_buffer("mu", mu)
        self.register_buffer("sigma", sigma)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, C)`` of images ``(N, ...)`` in [0, 1]."""
        logits: Tensor = self.model((x - self.mu) / self.sigma)
        return logits


def exported_module(view: TensorView, scale: float) -> nn.Module:
    """The classifier as one module on inputs in [0, 1], with shared weights; ``scale`` is its raw units per unit."""
    postprocessing = view.classifier.postprocessing_defences or []
    foreign = [operation for operation in view.operations if not isinstance(operation, _STANDARDISATIONS)]
    if foreign or postprocessing:
        names = ", ".join(type(operation).__name__ for operation in [*foreign, *postprocessing])
        raise ValueError(
            f"{view.name}: a checkpoint holds the network alone and would not give the same numbers without {names}; "
            "expected no preprocessing but standardisation by mean and standard deviation, and no postprocessing."
        )
    low = float(np.min(np.asarray(view.classifier.clip_values[0])))
    shape = tuple(view.classifier.input_shape)
    mu, sigma = np.float64(-low / scale), np.float64(1 / scale)  # (u - mu) / sigma is what the module is given for u
    for operation in view.operations:
        mean, std = (np.asarray(value, dtype=np.float64) for value in (operation.mean, operation.std))
        mean, std = broadcastable_mean_std(np.zeros((1, *shape), dtype=np.float32), mean, std)
        mu, sigma = mu + mean * sigma, sigma * std
    if bool(np.all(mu == 0) and np.all(sigma == 1)):
        return view.module
    channels = (1, shape[0], *[1] * (len(shape) - 1))
    buffers = [np.broadcast_to(value + 0.0, np.broadcast_shapes(np.shape(value), channels)) for value in (mu, sigma)]
    return Normalized(view.module, *(torch.tensor(b, dtype=torch.float32, device=view.device) for b in buffers))


def _state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict as contiguous CPU tensors of their own."""
    state: Mapping[str, Any] = module.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor) or value.is_meta]
    if wrong:
        raise ValueError(f"classifier: expected tensors with values in its state dict, got others under {wrong}.")
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
