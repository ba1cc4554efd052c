"""Texts of users never become markup."""

import re
from html import escape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

import art_lbgat.report
from art_lbgat.report import render_report, write_report
from tests.report.cases import Reader, full

HOSTILE = [
    "<script>alert(1)</script>", "</style><script>alert(1)</script>", "</title><svg onload=alert(1)>", "\"><img src=x onerror=1>",
    "' onmouseover='alert(1)", "javascript:alert(1)", "{{ 7 * 7 }}{% raw %}", "--></desc></svg><b>", "&lt;b&gt;&amp;", "\u202eevil\u2066",
    "\x00\x08\x1b[31m", "\ud800", "日本語 ✓ ü", "]]><![CDATA[", "`${1}`", "http://example.org/x", "a\nb\r\tc",
]  # fmt: skip
PLAIN = Reader(render_report(full()))


def shape(page):
    """Every tag with the names of its attributes, and the values of those that no text of a user may reach.

    Left out is what depends on lengths alone: labels that have room in a region, columns that are wide.
    """
    allowed = {"x", "y", "text-anchor", "transform", "font-size", "font-weight", "fill"}
    assert all(set(a) <= allowed for a in page.tags("text"))
    assert {a.get("class") for tag in ("td", "th") for a in page.tags(tag)} <= {None, "number", "wide"}
    fixed = [
        (tag, () if tag in ("td", "th") else tuple(a), around) for tag, a, around in page.elements if tag != "text"
    ]
    return fixed, [(tag, a.get("href"), a.get("class"), a.get("id"))
                   for tag, a, _ in page.elements if tag not in ("image", "td", "th", "text")]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text, tmp_path):
    page = write_report(tmp_path / "page.html", full(text)).read_text(encoding="utf-8")
    found = Reader(page)
    assert found.faults == []
    assert shape(found) == shape(PLAIN)
    if text.isprintable():  # read as it was given
        for tag, whole in (("h1", f"A page{text}"), ("span", f"ours{text}"), ("code", f"art-lbgat report{text}"),
                           ("th", f"torch{text}"), ("td", f"2.0{text}"), ("h3", f"Image 1, class zero{text}"),
                           ("figcaption", f"natural: zero{text}")):  # fmt: skip
            assert whole in [data for each, data in found.texts if each == tag], tag
        assert any(text in a["alt"] for a in found.tags("img"))
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", page)


def test_what_claims_to_be_markup_is_escaped_too():
    evil = Markup("<script>alert(1)</script>")
    texts = {"title": evil, "threat": evil, "class_names": [evil] * 3, "provenance": {evil: evil, "commands": [evil]}}
    page = render_report(full(**texts))
    assert "<script" not in page
    assert page.count(escape(str(evil))) > 6


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=30))
def test_any_text_leaves_the_markup_as_it_is(text):
    content = full(text, leaderboard=None, comparison=None)
    plain = full(leaderboard=None, comparison=None)
    assert shape(Reader(render_report(content))) == shape(Reader(render_report(plain)))


def test_one_place_in_the_package_turns_escaping_off():
    """That of the figures, whose texts ElementTree has escaped."""
    found = []
    for path in Path(art_lbgat.report.__file__).parent.iterdir():
        if path.suffix in (".py", ".j2"):
            found += re.findall(r"\|\s*safe|Markup\(.*|autoescape\s*=?\s*(?:False|false)", path.read_text())
    assert [line[:36] for line in found] == ['Markup("".join(ElementTree.tostring(']
