"""Contents of pages, and a reader of HTML that finds what is out of order in it."""

from functools import cache
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from art_lbgat.evaluation.results import Accuracy
from art_lbgat.recipes import RECIPES
from art_lbgat.report import Pictures, ReportContent, evaluate_for_report
from art_lbgat.robustbench import compare, leaderboard

VOID = {"meta", "link", "br", "img", "input", "hr"}  # of HTML; what is empty in SVG closes itself


def results(names=("ours", "base")):
    rows = [
        {"model": name, "natural": 0.9 - 0.05 * i, "natural_low": 0.85 - 0.05 * i, "natural_high": 0.94 - 0.05 * i,
         "robust": 0.5 + 0.02 * i, "robust_low": 0.45 + 0.02 * i, "robust_high": 0.55 + 0.02 * i, "n": 400,
         "flags": "", "ours": i == 0}
        for i, name in enumerate(names)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def history(epochs=4, fits=1):
    rows = [
        {"fit": fit, "epoch": epoch, "guidance_mse": 2 / epoch, "loss": 3 / epoch, "train_robust_accuracy": 0.1 * epoch,
         "validation_robust_accuracy": np.nan if epoch == 2 else 0.1 * epoch, "learning_rate": 0.1, "seconds": 1.0,
         "kept": epoch == epochs, "kept_because": ""}
        for fit in range(fits) for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def evaluated(names=("ours", "base"), attacks=("natural", "pgd-20"), **columns):
    rows = []
    for i, name in enumerate(names):
        for j, attack in enumerate(attacks):
            accuracy = Accuracy(90 - 40 * (j > 0) - 5 * j - i, 100)
            low, high = accuracy.interval
            rows.append({"model": name, "attack": attack, "norm": "inf" if j else "", "eps": 0.2 * (j > 0), "steps": 20,
                         "restarts": 1, "n": 100, "accuracy": accuracy.value, "low": low, "high": high, "seconds": 0.5,
                         "flags": "", **columns})  # fmt: skip
    return pd.DataFrame(rows).astype({"steps": "Int64", "restarts": "Int64"})


def curve(names=("ours", "base")):
    rows = [{"model": name, "attack": "pgd-20", "norm": "inf", "eps": eps, "n": 100, "accuracy": value, "low": value * 0.9,
             "high": min(1, value * 1.1), "flags": ""}
            for name in names for eps, value in ((0.0, 0.9), (0.1, 0.6), (0.3, 0.05))]  # fmt: skip
    return pd.DataFrame(rows)


def slices(names=("guide", "ours"), anchors=("image 1", "image 2", "image 3"), resolution=12):
    at = np.linspace(0, 1, resolution)
    v, u = (each.ravel() for each in np.meshgrid(at, at, indexing="ij"))
    parts = [
        pd.DataFrame({"model": name, "u": u, "v": v, "predicted": (u > 0.5).astype(int) + (v > 0.5), "confidence": 0.8,
                      "margin": 1.0, "inside": u < 0.9})
        for name in names
    ]  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    table.attrs["anchors"] = dict(zip(anchors, [(0.1, 0.1), (0.8, 0.1), (0.3, 0.8)], strict=True))
    return table


def pictures(class_names=("zero", "one", "two"), n=3, shape=(1, 6, 6), **changes):
    x = np.random.default_rng(0).random((n, *shape))
    x_adv = np.clip(x + 0.1 * np.sign(np.random.default_rng(1).standard_normal(x.shape)), 0, 1)
    labels = np.arange(n) % 3
    fields = {"x": x, "x_adv": x_adv, "y": labels, "predicted": labels, "predicted_adv": (labels + 1) % 3,
              "class_names": class_names, "model": "ours", "attack": "pgd-20, eps 0.1"}  # fmt: skip
    return Pictures(**{**fields, **changes})


def sanity(failed=False):
    rows = [
        ("finite logits", True, 0.0, "<= 0", "natural samples"),
        ("noise does not beat PGD", not failed, 0.4, "<= 0.3", "PGD vs noise"),
    ]
    return pd.DataFrame(rows, columns=["check", "passed", "observed", "expected", "detail"])


def full(text="", **changes):
    """Everything a page can hold; ``text`` is part of every text that a user can choose."""
    names = tuple(f"{name}{text}" for name in ("ours", "base"))
    classes = tuple(f"{name}{text}" for name in ("zero", "one", "two"))
    board = leaderboard("cifar10", "Linf").iloc[:12].copy()
    board["model_id"] = [f"{name}{text}" for name in board["model_id"]]
    checks = sanity()
    checks["detail"] += text
    per_class = pd.DataFrame({"model": [names[0]] * 3, "class": range(3), "n": 10, "natural": 0.9, "robust": 0.5})
    fields = {
        "title": f"A page{text}", "results": results(names).assign(flags=f"flagged{text}"), "ours": (names[0],),
        "threat": f"pgd-20{text}", "attacks": evaluated(names, ("natural", f"pgd-20{text}"), flags=f"flag{text}"),
        "leaderboard": board, "comparison": compare("Rice2020Overfitting"),
        "history": {name: history() for name in names}, "curve": curve(names).assign(flags=f"flag{text}"),
        "per_class": per_class, "pictures": pictures(classes, model=f"ours{text}", attack=f"pgd{text}"),
        "slices": slices(names, tuple(f"image {i}{text}" for i in range(3))), "class_names": classes, "sanity": checks,
        "provenance": {"versions": {f"torch{text}": f"2.0{text}"}, f"host{text}": [f"a{text}", 1],
                       "config": {"recipe": {"name": f"lbgat{text}"}}, "commands": [f"art-lbgat report{text}"]},
    }  # fmt: skip
    return ReportContent(**{**fields, **changes})


@cache
def digits():
    """Three small nets on the digits, judged in every way, as a user would have it done."""
    trained, histories = {}, {}
    for title, name in {"LBGAT": "digits-lbgat", "PGD-AT": "digits-madry", "natural": "digits-natural"}.items():
        experiment = RECIPES[name].scaled(3).build(seed=0, verbose=False)
        experiment.fit()
        trained[title], histories[title] = experiment.classifier, experiment.trainer.history
    x, y = (part[:60] for part in experiment.data.test)
    return evaluate_for_report(
        trained["LBGAT"], x, y, eps=0.2, name="LBGAT", title="LBGAT on the digits",
        baselines={"PGD-AT": trained["PGD-AT"], "natural": trained["natural"]}, guide=trained["natural"],
        history=histories, leaderboard=leaderboard("cifar10", "Linf"), autoattack=("apgd-ce",), n_sanity=20,
        sanity_attacks=(), curve_eps=(0, 0.1, 0.2, 0.4), config={"recipe": "digits-lbgat", "nb_epochs": 3},
        commands=["art-lbgat train digits-lbgat --nb-epochs 3"], class_names=[str(i) for i in range(10)],
    )  # fmt: skip


class Reader(HTMLParser):
    """Elements, texts and what is wrong, of a page.

    ``elements`` holds ``(tag, attributes, tags around)``; ``texts`` the text in each tag; ``faults`` tags that do not
    match, ids that occur twice, references that lead nowhere.
    """

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.faults, self.stack, self.texts = [], [], [], []
        self.feed(page)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.stack]
        ids = [a["id"] for _, a, _ in self.elements if "id" in a]
        self.faults += [f"id {each!r} twice" for each in set(ids) if ids.count(each) > 1]
        for _, attributes, _ in self.elements:
            wanted = attributes.get("aria-labelledby", "").split()
            target = attributes.get("href") or ""
            wanted += [target[1:]] if target.startswith("#") else []
            self.faults += [f"no id {each!r}" for each in wanted if each not in ids]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        self.faults += [f"{name!r} twice in <{tag}>" for name in names if names.count(name) > 1]
        self.elements.append((tag, dict(attrs), tuple(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.stack)))

    def handle_endtag(self, tag):
        if not self.stack or self.stack[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.stack[-1:]}")
        else:
            self.stack.pop()

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def tags(self, tag):
        return [attributes for found, attributes, _ in self.elements if found == tag]

    def text(self, *tags):
        return " ".join(data.strip() for tag, data in self.texts if not tags or tag in tags)
