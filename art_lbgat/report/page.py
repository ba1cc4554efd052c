"""One self-contained HTML page: no script, no request, escaped throughout."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import jinja2

import art_lbgat
from art_lbgat.checks import check_kind, check_path
from art_lbgat.report.answer import QUESTION, answer
from art_lbgat.report.content import ReportContent
from art_lbgat.report.results import as_results
from art_lbgat.report.sections import make_sections

LIMIT_BYTES = 2_000_000
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def render_report(content: ReportContent) -> str:
    """The page as a text.

    Its Content-Security-Policy allows its own style, named by its hash, and pictures in the page; scripts, requests,
    forms and frames are forbidden. The same content gives the same text.

    :param content: What it says.
    :raises TypeError: If it is no :class:`ReportContent`.
    :raises ValueError: If it would be 2 MB or more, or its slices are no grid.
    """
    check_kind(content, "content", ReportContent)
    results = as_results(content.results, content.ours)
    pages = _environment()
    style = pages.get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    text = pages.get_template("page.html.j2").render(
        title=str(content.title),  # a subclass of str may claim to be escaped
        question=QUESTION,
        answers=answer(results, content.threat, content.comparison),
        notes=content.notes,
        sections=make_sections(content, results),
        style_hash=f"sha256-{digest}",
        version=art_lbgat.__version__,
    )
    size = len(text.encode("utf-8"))
    if size >= LIMIT_BYTES:
        raise ValueError(
            f"content: expected a page under {LIMIT_BYTES:,} bytes, got {size:,}; show fewer models or "
            "pictures, or slices of a lower resolution."
        )
    return text


def write_report(path: str | os.PathLike[str], content: ReportContent) -> Path:
    """Write the page; a file that is there is replaced as a whole or not at all.

    :param path: The HTML file; its folder is made.
    :param content: What it says.
    :return: The path.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: As :func:`render_report`.
    """
    target = check_path(path, "path")
    text = render_report(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("art_lbgat.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_writable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


def _writable(value: Any) -> Any:
    """Characters that HTML or UTF-8 cannot hold become U+FFFD; what Jinja2 has escaped is left alone."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _UNWRITABLE.sub("�", value)
    return value
