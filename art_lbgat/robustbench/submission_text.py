"""What RobustBench is told about a model: the row of its leaderboard as JSON, and the text of the issue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from art_lbgat.checks import check_count, check_number, check_text
from art_lbgat.robustbench.comparison import differences
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.standard import EPS, NORMS, is_published_eps
from art_lbgat.robustbench.submission_rules import Check

NOT_STANDARD = "NOT_STANDARD"
_TO_FILL_IN = "(to be filled in)"
_ACCURACY_KEYS = {"corruptions": "corruptions_acc", "corruptions_3d": "corruptions_acc_3d"}


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
class Claim:
    """What is said of the model beside its result, checked.

    The fields are the arguments of :func:`~art_lbgat.robustbench.submission.export_submission` of the same names.
    """

    model_id: str
    architecture: str
    additional_data: bool
    number_forward_passes: int
    reported: float | None
    footnote: str | None
    checkpoint_url: str | None
    add_to_zoo: bool
    architecture_url: str | None
    model_license: str | None

    def __post_init__(self) -> None:
        _check_line(self.architecture, "architecture")
        check_count(self.number_forward_passes, "number_forward_passes")
        for name in ("additional_data", "add_to_zoo"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}.")
        if self.reported is not None and check_number(self.reported, "reported") > 1:
            raise ValueError(f"reported: expected an accuracy in [0, 1], got {self.reported}.")
        if self.footnote is not None:
            _check_line(self.footnote, "footnote")
        for name in ("checkpoint_url", "architecture_url"):
            if getattr(self, name) is not None:
                _check_url(getattr(self, name), name)
        if self.model_license is not None and check_text(self.model_license, "model_license") != "MIT":
            _check_url(self.model_license, "model_license")


def model_info(result: BenchmarkResult, paper: Paper, claim: Claim, reasons: Sequence[str]) -> dict[str, Any]:
    """The JSON object of a row of the leaderboard, by RobustBench's keys: numbers are texts, accuracies percent.

    ``unreliable`` is whether AutoAttack raised a flag. There is no ``external``, which others measure, and no
    ``corruptions_mce``, which is relative to another network.

    :param result: The result.
    :param paper: The paper.
    :param claim: The rest.
    :param reasons: Why it is not standard, for the footnote; empty if it is.
    :return: Keys and values, in RobustBench's order.
    """
    adversarial = result.threat_model in NORMS
    notes = [f"{NOT_STANDARD}: {'; '.join(reasons)}."] if reasons else []
    notes += [claim.footnote] if claim.footnote else []
    info: dict[str, Any] = {
        "link": paper.url,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": claim.additional_data,
        "number_forward_passes": claim.number_forward_passes,
        "dataset": result.dataset,
        "venue": paper.venue,
        "architecture": claim.architecture,
        "eps": eps_text(result),
        "clean_acc": percent(result.natural.value),
        "reported": "" if claim.reported is None else percent(claim.reported),
        _ACCURACY_KEYS.get(result.threat_model, "autoattack_acc"): percent(result.robust.value),
    }
    if notes:
        info["footnote"] = " ".join(notes)
    if adversarial:
        info["unreliable"] = bool(result.flags)
    return info


def issue_text(result: BenchmarkResult, paper: Paper, claim: Claim, checks: Sequence[Check]) -> str:
    """The "new model" issue as Markdown, filled in as far as it is known.

    :param result: The result.
    :param paper: The paper.
    :param claim: The rest.
    :param checks: What was checked; rules that do not hold are named at the top.
    :return: The text; boxes are ticked only for what the claim says.
    """
    failed = [check for check in checks if not check.passed]
    warning = [f"> **{NOT_STANDARD}**: this is no number for the leaderboard.", *_failed(failed), ""] if failed else []
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items()) or "versions unknown"
    # more than result.label, which has what the benchmark noted only
    standard = (
        "not RobustBench standard: " + "; ".join(found) if (found := differences(result)) else "RobustBench standard"
    )
    attack = "AutoAttack" if result.threat_model in NORMS else "mean over all kinds and severities"
    method = f"{attack} on {result.natural.n:,} images, seed {result.seed}, batches of {result.batch_size}"
    elsewhere = f"Its architecture is in neither RobustBench nor timm: {claim.architecture_url or _TO_FILL_IN}"
    flags = "; ".join(f"{name} ({message})" for name, message in result.flags.items()) or "none"
    licence = claim.model_license
    own_licence = _TO_FILL_IN if licence in (None, "MIT") else licence
    lines = [
        f"<!-- Title: [New Model] {claim.model_id} -->",
        "",
        *warning,
        "# Paper Information",
        "",
        f"- **Paper Title**: {paper.title}",
        f"- **Paper URL**: {paper.url}",
        f"- **Paper authors**: {paper.authors}",
        f"- **Venue**: {paper.venue}",
        "",
        "# Leaderboard Claim(s)",
        "",
        f"## Model 1: {claim.model_id}",
        "",
        f"- **Architecture**: {claim.architecture}",
        f"- **Dataset**: {result.dataset}",
        f"- **Threat Model**: {result.threat_model}",
        f"- **eps**: {eps_text(result) or 'none'}",
        f"- **Clean accuracy**: {percent(result.natural.value)} %",
        f"- **Robust accuracy**: {percent(result.robust.value)} %",
        f"- **Additional data**: {str(claim.additional_data).lower()}",
        f"- **Number of forward passes**: {claim.number_forward_passes}",
        f"- **Evaluation method**: {method}; {standard}; flags: {flags}; {versions}",
        f"- **Checkpoint and code**: {claim.checkpoint_url or _TO_FILL_IN}",
        *([f"- **Footnote**: {claim.footnote}"] if claim.footnote else []),
        "",
        "# Model Zoo",
        "",
        f"{_box(claim.add_to_zoo)} Add this model to the model zoo.",
        f"{_box(claim.architecture_url is not None)} {elsewhere}",
        f"{_box(licence == 'MIT')} The model is released under the MIT licence, **or**",
        f"{_box(licence not in (None, 'MIT'))} under a licence of its own: {own_licence}",
        "",
        "# Checks",
        "",
        *(f"{_box(check.passed)} {check.rule}: {check.found}" for check in checks),
    ]
    return "\n".join(lines) + "\n"


def eps_text(result: BenchmarkResult) -> str | None:
    """The radius as the leaderboard writes it: ``"8/255"`` where it is the published one, else a decimal number.

    :param result: What ``benchmark`` gave.
    """
    published = EPS.get((result.dataset, result.threat_model))
    if published is not None and is_published_eps(result.dataset, result.threat_model, result.eps):
        return published.text
    return None if result.eps is None else f"{result.eps:.6g}"


def percent(value: float) -> str:
    """An accuracy in [0, 1] as the leaderboard writes it: ``0.5357`` as ``"53.57"``.

    :param value: The accuracy.
    """
    return f"{100 * value:.2f}"


def _box(ticked: bool) -> str:
    return f"- [{'x' if ticked else ' '}]"


def _failed(checks: Sequence[Check]) -> list[str]:
    return [f"> - {check.rule}: {check.found}" for check in checks]


def _check_line(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.strip() or len(text.splitlines()) != 1:
        raise ValueError(f"{name}: expected one line of text, got {text!r}.")


def _check_url(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.startswith(("https://", "http://")) or len(text.split()) != 1:
        raise ValueError(f"{name}: expected a URL (https://...), got {text!r}.")
