"""The page: what it says, what it leaves out, and that it is well-formed, small and self-contained."""

import base64
import hashlib
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest

from art_lbgat.report import ReportContent, render_report, write_report
from art_lbgat.report.page import LIMIT_BYTES
from art_lbgat.robustbench import compare
from tests.report.cases import Reader, curve, digits, evaluated, full, history, pictures, results, sanity, slices

SECTIONS = {"models", "attacks", "training", "curve", "classes", "pictures", "slices", "sanity", "provenance"}


def read(content):
    return Reader(render_report(content))


def sections(page):
    return {a["id"] for a in page.tags("h2")} - {"question"}


@pytest.mark.parametrize("content", [full, digits, lambda: ReportContent("t", results(["a"]))])
def test_the_page_is_well_formed_and_can_be_read_without_seeing_it(content):
    page = read(content())
    assert page.faults == []
    assert page.tags("html") == [{"lang": "en"}]
    assert len(page.tags("h1")) == len(page.tags("main")) == 1
    assert all(each["alt"].strip() for each in page.tags("img"))
    assert all(each.get("aria-hidden") == "true" or each["role"] == "img" for each in page.tags("svg"))
    shown = [a for a in page.tags("svg") if a.get("role") == "img"]
    titles = [data for tag, data in page.texts if tag in ("title", "desc") and data.strip()]
    assert len(titles) == 1 + 2 * len(shown)
    figures = [a for a in page.tags("figure") if a.get("class") in ("chart", "slice")]
    inside = [around for tag, _, around in page.elements if tag == "details" and "figure" in around]
    assert len(figures) == len(shown) == len(inside)
    folded = [1 for tag, _, around in page.elements if tag == "table" and "details" in around]
    assert len(page.tags("details")) == len(folded)
    assert len(page.tags("caption")) == len(page.tags("table"))
    assert all(a.get("scope") in ("col", "row") for a in page.tags("th"))
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_everything_has_its_section_and_what_is_not_there_has_none():
    assert sections(read(full())) == SECTIONS
    assert sections(read(ReportContent("t", results()))) == {"models"}
    other = {"history": "training", "per_class": "classes"}
    for field in ("attacks", "history", "curve", "per_class", "pictures", "slices", "sanity"):
        assert sections(read(full(**{field: None}))) == SECTIONS - {other.get(field, field)}
    assert sections(read(full(provenance={}))) == SECTIONS - {"provenance"}


@pytest.mark.parametrize("content", [full, digits])
def test_the_page_is_small_loads_nothing_and_runs_nothing(content):
    text = render_report(content())
    assert len(text.encode()) < LIMIT_BYTES == 2_000_000
    page = Reader(text)
    assert not page.tags("script")
    names = {name for _, attributes, _ in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    links = [a[name] for _, a, _ in page.elements for name in ("href", "src") if name in a]
    assert all(link.startswith(("#", "data:image/png;base64,")) or link == "data:," for link in links)
    policy = next(a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"url\(|@import", style)


def test_the_digits_page_shows_the_numbers_that_were_measured():
    content = digits()
    page = read(content)
    body = page.text("td", "th")
    for row in content.attacks.itertuples():
        assert f"[{100 * row.low:.1f},\xa0{100 * row.high:.1f}]" in body
    for row in content.curve.itertuples():
        assert f"{100 * row.accuracy:.1f}" in body
    assert len(page.tags("img")) == 18
    assert content.provenance["SHA-256"]["weights of LBGAT"] in body
    assert "art-lbgat train digits-lbgat --nb-epochs 3" in page.text("code")
    assert "RobustBench cifar10 Linf, 99 published models" in page.text("span")
    assert page.text("td").count("✓") + page.text("td").count("✗") == len(content.sanity)


def answer(**changes):
    return read(ReportContent(**{"title": "t", "results": results(), **changes})).text("p").replace("\xa0", " ")


def test_the_answer_comes_first_and_says_which_model_and_at_what_cost():
    text = answer(threat="AutoAttack, eps 0.3")
    assert text.startswith("base is the most robust of the 2 models judged here: 52.0 % [47.0, 57.0] robust, 85.0 % "
                           "[80.0, 89.0] natural (AutoAttack, eps 0.3).")  # fmt: skip
    assert ("ours (50.0 % [45.0, 55.0] robust, 90.0 % [85.0, 94.0] natural) against base, the most robust baseline: "
            "−2.0 points robust, +5.0 points natural. The intervals of robust accuracy overlap, so") in text  # fmt: skip
    page = render_report(full())
    parts = ("Which model is the most robust", "<nav", "Natural and robust accuracy</h2>")
    assert sorted(map(page.index, parts)) == list(map(page.index, parts))
    found = compare("Rice2020Overfitting")
    text = answer(comparison=found)
    assert f"Rice2020Overfitting ranks {found.rank} of {found.of} with {found.robust_acc:.2f} %" in text
    assert found.label in text


def test_the_answer_without_ours_without_intervals_and_for_one_model():
    plain = results()[["model", "natural", "robust"]]
    said = "base against ours, the most robust of the others (50.0 % robust, 90.0 % natural): +2.0 points"
    assert said in answer(results=plain)
    assert "intervals" not in answer(results=plain)
    one = answer(results=plain.iloc[:1])
    assert one.startswith("ours: 50.0 % robust, 90.0 % natural.")
    assert "against" not in one
    apart = results().assign(robust_low=[0.49, 0.515], robust_high=[0.51, 0.53])
    assert "do not overlap." in answer(results=apart)
    third = answer(results=results(["ours", "base", "other"]).assign(natural=[0.7, 0.8, 0.95], robust=[0.5, 0.4, 0.1]))
    assert "The most accurate on natural images is other" in third


def table(values, seeds=5):
    rows = [{"model": "ours", "other": other, "kind": kind, "value": value, "low": value - 0.02, "high": value + 0.02,
             "seeds": seeds, "real": abs(value) > 0.02} for (other, kind), value in values.items()]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_first_sentence_says_which_differences_are_real():
    values = {
        ("base", "robust"): 0.05,
        ("third", "robust"): 0.03,
        ("base", "natural"): -0.04,
        ("third", "natural"): 0.01,
    }
    page = read(ReportContent("t", results(), differences=table(values)))
    text = page.text("p").replace("\xa0", " ")
    assert text.startswith(
        "Real differences, on the same images and 5 seeds: ours is more robust than base (by 5.0 points [3.0, 7.0]), third "
        "(by 3.0 points [1.0, 5.0]); less accurate on natural images than base (by 4.0 points [2.0, 6.0]). No other "
        "difference of it is: the 95 % intervals contain 0."
    )
    assert "overlap" not in text  # which the paired interval settles
    cells = [data for tag, data in page.texts if tag in ("td", "th")]
    at = cells.index("difference")
    assert cells[at - 2 : at + 3] == ["other", "kind", "difference", "95 % interval", "real"]
    assert cells[at + 3 :][:10] == [
        "base",
        "robust",
        "5.0",
        "[3.0,\xa07.0]",
        "yes",
        "third",
        "robust",
        "3.0",
        "[1.0,\xa05.0]",
        "yes",
    ]
    assert [cells[-1 - 5 * i] for i in (0, 1)] == ["no", "yes"]


def test_where_no_difference_is_real_the_page_says_so_first():
    none = table({("base", "robust"): 0.01, ("base", "natural"): -0.02}, seeds=1)
    text = read(ReportContent("t", results(), differences=none)).text("p")
    assert text.startswith(
        "No difference of ours to another model is real: on the same images, one training each, every 95 % interval"
    )
    assert "of one training each" in render_report(ReportContent("t", results(), differences=none))
    every = table({("base", "robust"): 0.05})
    assert "No other difference" not in read(ReportContent("t", results(), differences=every)).text("p")
    with pytest.raises(ValueError, match="differences: expected the table of paired differences"):
        ReportContent("t", results(), differences=none.drop(columns="real"))


def test_flags_and_failed_checks_are_not_to_be_overlooked():
    page = read(full(sanity=sanity(failed=True), results=results().assign(flags=["softmax", ""]), ours=()))
    warned = page.text("p")
    assert all(text in warned for text in ("ours: softmax", "1 of 2 checks failed", "noise does not beat PGD: 0.4"))
    assert ("td", "✗\xa0FAIL") in page.texts
    assert "Warning:" not in read(full(results=results(), ours=(), curve=curve())).text()
    both = render_report(ReportContent("A page", results().assign(flags="square stronger")))
    assert both.count("square stronger (an attack without gradients") == 1


def test_one_history_shows_its_terms_and_several_fits_are_counted_on():
    page = read(ReportContent("t", results(["net"]), history=history(3, fits=2)))
    assert "net: accuracies" in page.text("figcaption")
    heads = [data for tag, data in page.texts if tag == "th"]
    assert heads[heads.index("weighted sum") - 1 :][:3] == ["epoch", "weighted sum", "guidance_mse"]
    assert "kept" not in heads
    rows = [data for tag, data in page.texts if tag == "th" and data.strip().isdigit()]
    assert rows[:6] == list("123456")
    content = ReportContent("t", results(), history={name: history(3000) for name in ("ours", "base")})
    assert len(render_report(content).encode()) < 600_000  # long ones are thinned


def test_the_same_content_gives_the_same_bytes_and_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "page.html"
    assert write_report(str(path), full()) == path
    before = path.read_bytes()
    assert write_report(path, full()).read_bytes() == before

    def fails(*_):
        raise OSError("disk")

    monkeypatch.setattr("pathlib.Path.replace", fails)
    with pytest.raises(OSError, match="disk"):
        write_report(path, ReportContent("other", results()))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_a_page_that_would_be_too_large_is_refused():
    noise = slices(resolution=200)
    noise["predicted"] = np.random.default_rng(0).integers(0, 10, len(noise))
    with pytest.raises(ValueError, match=r"content: expected a page under 2,000,000 bytes, got .*lower resolution"):
        render_report(ReportContent("t", results(), slices=noise))


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"title": 3}, TypeError, "title: expected a text"),
    ({"results": None}, TypeError, "results: expected a DataFrame"),
    ({"ours": "ours"}, TypeError, "ours: expected a sequence of texts"),
    ({"notes": "one"}, TypeError, "notes: expected a sequence of texts, got the text"),
    ({"history": history().drop(columns="epoch")}, ValueError, r"history\['ours'\]: expected the table of trainer.history"),
    ({"history": {"a": 3}}, TypeError, r"history\['a'\]: expected the table of trainer.history, got int"),
    ({"curve": pd.DataFrame()}, ValueError, "curve: expected the table of robustness_curve"),
    ({"slices": slices().drop(columns="u")}, ValueError, r"slices: .* missing columns \['u'\]"),
    ({"pictures": 3}, TypeError, "pictures: expected"),
    ({"provenance": ["a"]}, TypeError, "provenance: expected a Mapping"),
])  # fmt: skip
def test_content_that_is_not_what_it_should_be(changes, error, words):
    with pytest.raises(error, match=words):
        ReportContent(**{"title": "t", "results": results(), "ours": ["ours"], **changes})
    with pytest.raises(TypeError, match="content: expected"):
        render_report(results())


@pytest.mark.parametrize(("changes", "words"), [
    ({"x": np.zeros((3, 2, 4, 4))}, r"pictures.x: expected \(n, C, H, W\)"),
    ({"x_adv": np.zeros((3, 1, 4, 4))}, r"pictures.x_adv: expected shape \(3, 1, 6, 6\)"),
    ({"x": np.full((3, 1, 6, 6), np.nan)}, "pictures.x: expected finite"),
    ({"y": [0, 1]}, "pictures.y: expected 3 class indices"),
    ({"predicted_adv": [0, 1, 7]}, "pictures.class_names: .* 3 names and class 7 in predicted_adv"),
    ({"clip_values": (1, 0)}, "pictures.clip_values"),
])  # fmt: skip
def test_pictures_that_cannot_be_shown(changes, words):
    with pytest.raises(ValueError, match=words):
        pictures(**changes)


def test_notes_stand_below_the_answer_and_long_tables_are_folded():
    provenance = {"settings": {"eps": 0.1}, "long": {f"option {i}": i for i in range(20)}}
    page = render_report(ReportContent("A page", results(), notes=("Means over <two> seeds.",), provenance=provenance))
    assert "Means over &lt;two&gt; seeds." in page[page.index('class="answer"') : page.index("<nav")]
    assert ("<summary>Data: long</summary>" in page, "<summary>Data: settings</summary>" in page) == (True, False)


def test_pictures_and_slices_say_what_is_wrong_and_how_much_of_the_plane_a_class_takes():
    page = read(full())
    captions = [data for tag, data in page.texts if tag == "figcaption"]
    start = captions.index("natural: zero")
    assert captions[start : start + 3] == ["natural: zero", "adversarial: one (wrong)", "change ×\xa05"]
    assert [a.get("class") for a in page.tags("figcaption")].count("wrong") == 3
    cells = [data for tag, data in page.texts if tag in ("td", "th")]
    start = cells.index("share of the plane (%)")
    assert cells[start + 2 :][:9] == ["zero", "25.0", "80.0", "one", "50.0", "80.0", "two", "25.0", "80.0"]
    assert "class one takes the largest share, 50.0 %" in page.text("desc")
    assert "Outside the white line" in page.text("p")
    note = "only for results on the same data, threat model and eps"
    assert note in page.text("p")
    assert note not in read(full(leaderboard=None)).text("p")


def test_numbers_are_written_in_one_way():
    table = results().assign(natural=[0.9, 0.004], natural_low=math.nan, n=[1234, 400])
    cells = [data for tag, data in read(ReportContent("t", table)).texts if tag == "td"]
    assert {"0.4", "90.0", "1,234", "[45.0,\xa055.0]"} <= set(cells)
    signs = evaluated().assign(eps=0.031373, seconds=[math.nan, -0.04, -1.25, 2])
    cells = [data for tag, data in read(ReportContent("t", table, attacks=signs)).texts if tag == "td"]
    assert {"0.03137", "–", "0.0", "−1.2"} <= set(cells)
