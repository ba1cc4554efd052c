"""The files that a submission to RobustBench's leaderboard and model zoo consists of."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.checks import check_flag, check_kind, check_path
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.autoattack import UnitModel
from art_lbgat.robustbench.exported import exported_module, state_copy
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.standard import check_dataset, check_threat_model
from art_lbgat.robustbench.submission_rules import Check, check_rules
from art_lbgat.robustbench.submission_text import NOT_STANDARD, Claim, Paper, issue_text, model_info

if TYPE_CHECKING:
    import pandas

MODEL_ID = re.compile(r"[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*)*(19|20)[0-9]{2}[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
"""``<FirstAuthor><Year><FirstWordOfTitle>[_variant]``: letters, digits, ``-`` and ``_`` only, so safe in a path."""


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
    checks: pandas.DataFrame = field(compare=False, repr=False)


def check_submission(result: BenchmarkResult, classifier: PyTorchClassifier, model_id: str) -> pandas.DataFrame:
    """The rules of the leaderboard, tried and not enforced; nothing is written.

    :param result: What a benchmark of the classifier found.
    :param classifier: The classifier; modes, weights and random generators are left as found.
    :param model_id: As in :func:`export_submission`.
    :return: A row per rule: ``rule``, ``passed``, ``found``.
    :raises ValueError: As :func:`export_submission`, except for rules that do not hold.
    """
    return _frame(_checks(result, classifier, model_id))


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
    """Check the rules of the leaderboard and write the files of a submission; nothing is sent anywhere.

    Written are, with ``<dataset>/<threat model>`` for ``...``, ``model_info/.../<model_id>.json`` and
    ``models/.../<model_id>.pt`` (RobustBench's layouts), ``submissions/.../<model_id>/issue.md`` and ``result.json``
    beside it. The checkpoint is that of the network on images in [0, 1]: a standardisation of ART's goes into it as
    buffers ``mu`` and ``sigma``, with the network's own names behind ``model.``. All files are written or none.

    :param result: What a benchmark of this classifier found.
    :param classifier: The classifier; modes, weights and random generators are left as found.
    :param folder: Where to; made if it does not exist.
    :param paper: The paper.
    :param model_id: ``<FirstAuthor><Year><FirstWordOfTitle>[_variant]``.
    :param additional_data: Whether it was trained with extra data; generated images alone do not count, but belong in
        the footnote.
    :param architecture: Such as ``"WideResNet-34-10"``; None is that of the result.
    :param number_forward_passes: Forward passes for one prediction.
    :param reported: The robust accuracy that the paper claims, in [0, 1]; None is left empty.
    :param footnote: What a reader of the leaderboard has to know.
    :param checkpoint_url: Where checkpoint and code can be had; None leaves the place to be filled in.
    :param add_to_zoo: Whether to ask for the model to be added to the zoo.
    :param architecture_url: Where its code is, for an architecture that neither RobustBench nor timm has.
    :param model_license: ``"MIT"``, or the URL of another licence; None leaves both boxes open.
    :param force: Write also what is not standard or breaks a rule. Then the name of every file holds ``NOT_STANDARD``,
        and the reasons are in the footnote of the JSON file and in the issue.
    :return: The paths and what was checked.
    :raises ValueError: An id of another form; texts that are empty or of several lines; a rule that does not hold, each
        with what was found (unless ``force``); preprocessing that cannot be part of a checkpoint.
    :raises FileExistsError: If one of the files is there already.
    """
    check_kind(result, "result", BenchmarkResult)
    check_kind(paper, "paper", Paper)
    root = check_path(folder, "folder")
    check_flag(force, "force")
    claim = Claim(
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
    checks = _checks(result, classifier, model_id)
    reasons = [f"{check.rule}: {check.found}" for check in checks if not check.passed]
    if reasons and not force:
        raise ValueError("result: not fit for the leaderboard (force=True writes it marked). " + "; ".join(reasons))
    info = json.dumps(model_info(result, paper, claim, reasons), indent=2) + "\n"
    issue = issue_text(result, paper, claim, checks)
    view = TensorView(classifier)
    state = state_copy(exported_module(view, UnitModel(view).scale))
    mark = f"_{NOT_STANDARD}" if reasons else ""
    threat_model = "corruptions" if result.threat_model == "corruptions_3d" else result.threat_model
    place = Path(result.dataset) / threat_model
    submission = Submission(
        model_info=root / "model_info" / place / f"{model_id}{mark}.json",
        issue=root / "submissions" / place / model_id / f"issue{mark}.md",
        checkpoint=root / "models" / place / f"{model_id}{mark}.pt",
        result=root / "submissions" / place / model_id / f"result{mark}.json",
        standard=not reasons,
        checks=_frame(checks),
    )
    _write_all(
        {
            submission.model_info: lambda path: path.write_text(info, encoding="utf-8"),
            submission.issue: lambda path: path.write_text(issue, encoding="utf-8"),
            submission.checkpoint: lambda path: torch.save(state, path),
            submission.result: result.save,
        }
    )
    return submission


def _frame(checks: list[Check]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(checks, columns=list(Check._fields))


def _checks(result: BenchmarkResult, classifier: PyTorchClassifier, model_id: str) -> list[Check]:
    check_kind(result, "result", BenchmarkResult)
    check_dataset(result.dataset)
    check_threat_model(result.threat_model)
    if not isinstance(model_id, str) or not MODEL_ID.fullmatch(model_id):
        raise ValueError(
            f"model_id: expected <FirstAuthor><Year><FirstWordOfTitle>[_variant] of letters, digits, '-' and '_', such "
            f"as 'Cui2020Learnable_34_10', got {model_id!r}."
        )
    return check_rules(result, classifier, model_id)


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
