"""The files that a submission to RobustBench's leaderboard and model zoo consists of, and the rules that it keeps."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
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
from art_lbgat.evaluation.subject import DYNAMIC, NON_FINITE, RANDOMISED, SOFTMAX
from art_lbgat.files import write_bytes
from art_lbgat.fingerprint import weights_sha256
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness
from art_lbgat.robustbench.leaderboard import leaderboard
from art_lbgat.robustbench.result import INPUT_SHAPES, NB_CLASSES, NORMS, BenchmarkResult, eps_text
from art_lbgat.weights import copied_tensors

NOT_STANDARD = "NOT_STANDARD"
MODEL_ID = re.compile(r"[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*)*(19|20)[0-9]{2}[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
"""``<FirstAuthor><Year><FirstWordOfTitle>[_variant]``: letters, digits, ``-`` and ``_`` only, so safe in a path."""

_RULES = {
    RANDOMISED: "deterministic forward pass",
    DYNAMIC: "no autograd call in the forward pass",
    SOFTMAX: "logits, not probabilities",
    NON_FINITE: "finite logits",
}
_TOLERANCE = 1e-4  # as AutoAttack's, relative to the largest logit
_Rule = tuple[str, bool, str]
"""What is asked for, whether it holds, what was found."""


@dataclass(frozen=True)
class Paper:
    """The paper that a model belongs to.

    :param title: Its title.
    :param url: Where it can be read, ``https://...``.
    :param authors: Their names as they are to be shown, such as ``"Jane Doe, John Roe"``.
    :param venue: Where it appeared, such as ``"ICCV 2021"`` or ``"arXiv, Nov 2020"``.
    """

    title: str
    url: str
    authors: str
    venue: str

    def __post_init__(self) -> None:
        for name in ("title", "url", "authors", "venue"):
            _line(getattr(self, name), f"paper.{name}")
        _url(self.url, "paper.url")


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

    The number of forward passes and an optimisation without autograd cannot be tried.

    :param result: What a benchmark of the classifier found.
    :param classifier: The classifier; unchanged, and so are the random generators.
    :param model_id: As in :func:`export_submission`.
    :return: A row per rule: ``rule``, ``passed``, ``found``.
    :raises ValueError: As :func:`export_submission`, except for rules that do not hold.
    """
    check_kind(result, "result", BenchmarkResult)
    if not isinstance(model_id, str) or not MODEL_ID.fullmatch(model_id):
        form = "<FirstAuthor><Year><FirstWordOfTitle>[_variant] of letters, digits, '-' and '_'"
        raise ValueError(f"model_id: expected {form}, such as 'Cui2020Learnable_34_10', got {model_id!r}.")
    view = TensorView(classifier, "classifier")
    with preserved_randomness(), evaluating(view.module), plain_autograd(view.device):
        rules = [*_rules_of_result(result, model_id), *_rules_of_model(result, view)]
    return pd.DataFrame(rules, columns=["rule", "passed", "found"])


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
    :param classifier: The classifier; unchanged, and so are the random generators.
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
    root, force = check_path(folder, "folder"), check_flag(force, "force")
    if reported is not None and check_number(reported, "reported") > 1:
        raise ValueError(f"reported: expected an accuracy in [0, 1], got {reported}.")
    claim = {
        "model_id": model_id,
        "architecture": _line(result.architecture if architecture is None else architecture, "architecture"),
        "additional_data": check_flag(additional_data, "additional_data"),
        "number_forward_passes": check_count(number_forward_passes, "number_forward_passes"),
        "reported": reported,
        "footnote": None if footnote is None else _line(footnote, "footnote"),
        "checkpoint_url": None if checkpoint_url is None else _url(checkpoint_url, "checkpoint_url"),
        "add_to_zoo": check_flag(add_to_zoo, "add_to_zoo"),
        "architecture_url": None if architecture_url is None else _url(architecture_url, "architecture_url"),
        "model_license": model_license if model_license in (None, "MIT") else _url(model_license, "model_license"),
    }
    checks = check_submission(result, classifier, model_id)
    failed = checks[~checks["passed"]]
    reasons = (failed["rule"] + ": " + failed["found"]).tolist()
    if reasons and not force:
        raise ValueError("result: not fit for the leaderboard (force=True writes it marked). " + "; ".join(reasons))
    paths = _paths(root, Path(result.dataset) / result.threat_model.removesuffix("_3d"), model_id, bool(reasons))
    existing = [str(path) for path in paths.values() if path.exists()]
    if existing:
        raise FileExistsError(f"folder: nothing was written, since these files exist: {', '.join(existing)}.")
    info = _model_info(result, paper, claim, reasons)
    contents = {
        "checkpoint": _checkpoint(TensorView(classifier)),
        "model_info": (json.dumps(info, indent=2) + "\n").encode(),
        "issue": _issue(result, paper, claim, info, checks).encode(),
        "result": (result.to_json() + "\n").encode(),
    }
    _write_all({path: contents[name] for name, path in paths.items()})
    return Submission(**paths, standard=not reasons, checks=checks)


def _paths(root: Path, board: Path, model_id: str, marked: bool) -> dict[str, Path]:
    texts, mark = root / "submissions" / board / model_id, f"_{NOT_STANDARD}" if marked else ""
    return {
        "checkpoint": root / "models" / board / f"{model_id}{mark}.pt",
        "model_info": root / "model_info" / board / f"{model_id}{mark}.json",
        "issue": texts / f"issue{mark}.md",
        "result": texts / f"result{mark}.json",
    }


def _checkpoint(view: TensorView) -> bytes:
    """The network on images in [0, 1], as ``torch.save`` writes it."""
    normalisation = _normalisation(view, UnitModel(view).scale)
    prefix = "model." if normalisation else ""  # RobustBench takes it off, so they fit networks of its zoo
    weights = copied_tensors(view.module, "classifier")
    state = {**normalisation, **{f"{prefix}{name}": value for name, value in weights.items()}}
    torch.save(state, written := io.BytesIO())
    return written.getvalue()


def _write_all(contents: dict[Path, bytes]) -> None:
    """Write new files, all or none."""
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
    except BaseException:
        for path in contents:  # none of them was there before
            path.unlink(missing_ok=True)
        raise


def _model_info(result: BenchmarkResult, paper: Paper, claim: dict[str, Any], reasons: list[str]) -> dict[str, Any]:
    """A row of the leaderboard by RobustBench's keys, in its order; what others measure is left out."""
    notes = [f"{NOT_STANDARD}: {'; '.join(reasons)}."] if reasons else []
    notes += [claim["footnote"]] if claim["footnote"] else []
    attacked = result.threat_model in NORMS
    column = "autoattack_acc" if attacked else "corruptions_acc" + result.threat_model.removeprefix("corruptions")
    return {
        "link": paper.url,
        "name": paper.title,
        "authors": paper.authors,
        **{name: claim[name] for name in ("additional_data", "number_forward_passes")},
        "dataset": result.dataset,
        "venue": paper.venue,
        "architecture": claim["architecture"],
        "eps": eps_text(result.dataset, result.threat_model, result.eps),
        "clean_acc": _percent(result.natural.value),
        "reported": "" if claim["reported"] is None else _percent(claim["reported"]),
        column: _percent(result.robust.value),
        **({"footnote": " ".join(notes)} if notes else {}),
        **({"unreliable": bool(result.flags)} if attacked else {}),
    }


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _issue(
    result: BenchmarkResult, paper: Paper, claim: dict[str, Any], info: dict[str, Any], checks: pd.DataFrame
) -> str:
    """The "new model" issue as Markdown; only what the claim says is agreed to."""
    differences = "; ".join(result.differences)
    standard = f"not RobustBench standard: {differences}" if differences else "RobustBench standard"
    attack = "AutoAttack" if result.threat_model in NORMS else "mean over all kinds and severities"
    flags = "; ".join(f"{name} ({message})" for name, message in result.flags.items()) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items()) or "versions unknown"
    method = (
        f"{attack} on {result.natural.n:,} images, seed {result.seed}, batches of {result.batch_size}; "
        f"{standard}; flags: {flags}; {versions}"
    )
    source = files(__package__).joinpath("issue.md.j2").read_text(encoding="utf-8")
    facts = {"result": result, "paper": paper, "info": info, "method": method, "checks": checks.to_dict("records")}
    issue: str = jinja2.Template(source, trim_blocks=True, keep_trailing_newline=True).render(**claim, **facts)
    return issue


def _line(text: Any, name: str) -> str:
    if not isinstance(text, str) or not text.strip() or len(text.splitlines()) != 1:
        raise ValueError(f"{name}: expected one line of text, got {text!r}.")
    return text


def _url(text: Any, name: str) -> str:
    if not isinstance(text, str) or not text.startswith(("https://", "http://")) or len(text.split()) != 1:
        raise ValueError(f"{name}: expected a URL (https://...), got {text!r}.")
    return text


def _rules_of_result(result: BenchmarkResult, model_id: str) -> Iterator[_Rule]:
    found = result.differences
    yield "the standard of RobustBench", not found, "; ".join(found) or "standard"
    try:
        taken = model_id in set(leaderboard(result.dataset, result.threat_model)["model_id"])
    except ValueError as error:
        yield "there is a leaderboard", False, str(error)
    else:
        yield "there is a leaderboard", True, f"{result.dataset} {result.threat_model}"
        yield "the model id is new there", not taken, f"{model_id} is {'taken' if taken else 'new'}"


def _rules_of_model(result: BenchmarkResult, view: TensorView) -> Iterator[_Rule]:
    model = UnitModel(view)
    normalisation = _normalisation(view, model.scale)  # refuses before anything is run
    present, measured, dataset = weights_sha256(view.module), result.weights_sha256, result.dataset
    other = "" if present == measured else f", the result is of {measured[:12]}..."
    yield "the weights that were evaluated", present == measured, f"SHA-256 {present[:12]}...{other}"
    shape, nb_classes = tuple(view.classifier.input_shape), view.classifier.nb_classes
    counted = 1 if dataset == "imagenet" else 3  # images of ImageNet may have any size, each model brings its own crop
    fits = shape[:counted] == INPUT_SHAPES[dataset][:counted] and nb_classes == NB_CLASSES[dataset]
    yield f"inputs and classes of {dataset}", fits, f"inputs {shape}, {nb_classes} classes"
    unit = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0)).to(view.device)
    with torch.no_grad():
        logits, expected = model(unit), model(unit)
        mu, sigma = (each.to(view.device) for each in normalisation.values()) if normalisation else (0.0, 1.0)
        got = view.module((unit - mu) / sigma)
    attack_checks = importlib.import_module(f"{published_package().__name__}.checks")
    messages = {**check_defence(attack_checks, model, unit, logits.argmax(dim=1)), **result.flags}
    if not bool(torch.isfinite(logits).all()):
        messages.setdefault(NON_FINITE, "NaN or Inf in the logits")
    for flag, rule in _RULES.items():
        yield rule, flag not in messages, messages.get(flag, "as it should be")
    zero = _zero_gradients(model, unit)
    yield "gradients at the inputs", zero == 0, f"zero at {zero} of {len(unit)} inputs"
    far = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    yield "logits of the checkpoint", far <= _TOLERANCE, f"differ by {far:.1e} of the largest logit"


def _zero_gradients(model: nn.Module, unit: Tensor) -> int:
    """How many inputs have no gradient at all of the margin between their two largest logits."""
    unit = unit.clone().requires_grad_()
    largest = model(unit).topk(2, dim=1)[0]
    if not largest.requires_grad:
        return len(unit)
    margin = (largest[:, 0] - largest[:, 1]).sum()
    (gradient,) = torch.autograd.grad(margin, unit, allow_unused=True, materialize_grads=True)
    return int((gradient.flatten(1) == 0).all(dim=1).sum())


def _normalisation(view: TensorView, scale: float) -> dict[str, Tensor]:
    """``mu`` and ``sigma``: the network is given ``(u - mu) / sigma`` for images ``u`` in [0, 1]; empty if it is ``u``.

    ``scale`` is the raw units per unit.
    """
    postprocessing = view.classifier.postprocessing_defences or []
    standardisations = StandardisationMeanStd, StandardisationMeanStdPyTorch
    foreign = [operation for operation in view.operations if not isinstance(operation, standardisations)]
    if foreign or postprocessing:
        names = ", ".join(type(operation).__name__ for operation in [*foreign, *postprocessing])
        raise ValueError(
            f"{view.name}: a checkpoint holds the network alone and would not give the same numbers without {names}; "
            "expected no preprocessing but standardisation by mean and standard deviation, and no postprocessing."
        )
    low = float(np.min(np.asarray(view.classifier.clip_values[0])))
    shape = tuple(view.classifier.input_shape)
    mu, sigma = np.float64(-low / scale), np.float64(1 / scale)
    for operation in view.operations:
        mean, std = (np.asarray(value, dtype=np.float64) for value in (operation.mean, operation.std))
        mean, std = broadcastable_mean_std(np.zeros((1, *shape), dtype=np.float32), mean, std)
        mu, sigma = mu + mean * sigma, sigma * std
    if bool(np.all(mu == 0) and np.all(sigma == 1)):
        return {}
    channels = (1, shape[0], *[1] * (len(shape) - 1))
    whole = (np.broadcast_to(each + 0.0, np.broadcast_shapes(np.shape(each), channels)) for each in (mu, sigma))
    return {name: torch.tensor(each, dtype=torch.float32) for name, each in zip(("mu", "sigma"), whole, strict=True)}
