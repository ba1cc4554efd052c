"""A run knows the classes and the images it was trained on: nothing is judged against others unnoticed."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from art_lbgat import load
from art_lbgat.data import load_npz
from art_lbgat.recipes import RECIPES
from art_lbgat.study import StudyOptions, plan_runs
from tests.cli.conftest import done, invoke
from tests.data.cases import pixels

COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
SHORT = ("--nb-epochs", "1", "--n-test", "4", "--no-report", "--quiet")


def write(root, names=COLOURS, n=12, first=0):
    for name in names:
        colour = COLOURS.get(name.split("-")[-1], (9, 9, 9))
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + n):
            noise = pixels(8, 8, 3, high=50, seed=100 * sum(colour) + i)
            Image.fromarray(np.array(colour, np.uint8) + noise).save(root / name / f"{i}.png")
    return root


def judged(run, *arguments):
    """The table of natural images."""
    lines = done("evaluate", run, "--attack", "natural", "--json-lines", *arguments).stdout.splitlines()
    return json.loads(lines[0])


def said(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on three colours; weights that know them."""
    place = tmp_path_factory.mktemp("own")
    done("train", "folder-madry", "--root", write(place / "photos"), "--output", place / "run", "--set", "image_size=8",
         "--set", "keep=best", *SHORT)  # fmt: skip
    return place


@pytest.mark.parametrize("names", [["1-red", "2-blue", "3-green"], ["blue", "green", "zred"], ["Blue", "green", "red"]])
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_other_names_of_classes_are_refused_with_both_lists(trained, tmp_path, names, command):
    write(tmp_path, names)
    page = (trained / "run" / "report.html").exists()
    message = said(command, trained / "run", "--root", tmp_path)
    assert f"was trained on, ['blue', 'green', 'red'], got {sorted(names)}" in message
    assert (trained / "run" / "report.html").exists() == page


def test_a_part_of_the_classes_is_judged_by_their_names(trained, tmp_path):
    run, x, y = load(trained / "run", "cpu"), [], []
    for label, name in enumerate(COLOURS):
        if name != "blue":
            for path in sorted(write(tmp_path / "new" / "test", [name], first=50).joinpath(name).iterdir()):
                x.append(np.asarray(Image.open(path)).transpose(2, 0, 1).astype(np.float32) / np.float32(255))
                y.append(label)
    write(tmp_path / "new" / "train", ["green", "red"], first=80)
    right = (run.classifier.predict(np.array(x)).argmax(axis=1) == y).mean()
    row = judged(trained / "run", "--root", tmp_path / "new")
    assert (row["n"], row["accuracy"]) == (24, right)


ARCHIVES = [  # labels of another archive, the number of their classes, and what they are in the run, or what is said
    ([5, 9, 20], {5: 0, 9: 1, 20: 2}),
    ([9, 20], {9: 1, 20: 2}),
    ([0, 1, 2], "['5', '9', '20'], got ['0', '1', '2']"),
    ([5, 9, 21], "['5', '9', '20'], got ['5', '9', '21']"),
]


@pytest.mark.parametrize(("labels", "expected"), ARCHIVES)
def test_classes_of_an_archive_are_matched_by_their_numbers(tmp_path, labels, expected):
    def save(path, labels, seed):
        x, y = pixels(40, 3, 8, 8, seed=seed), np.array(labels)[np.arange(40) % len(labels)]
        np.savez(path, x_train=x, y_train=y, x_test=x[::-1][:10] // 2, y_test=y[:10])
        return load_npz(path)

    save(tmp_path / "own.npz", [20, 5, 9], 0)
    done("train", "folder-madry", "--set", "data=npz", "--set", "image_size=none", "--root", tmp_path / "own.npz", "--output",
         tmp_path / "run", *SHORT)  # fmt: skip
    run = load(tmp_path / "run", "cpu")
    assert run.class_names == ["5", "9", "20"]
    other = save(tmp_path / "other.npz", labels, 1)
    if isinstance(expected, str):
        assert expected in said("evaluate", tmp_path / "run", "--root", tmp_path / "other.npz")
        return
    x, _ = other.test
    y = [expected[labels[i % len(labels)]] for i in range(10)]
    right = (run.classifier.predict(x).argmax(axis=1) == y).mean()
    assert judged(tmp_path / "run", "--root", tmp_path / "other.npz")["accuracy"] == right


def test_words_take_classes_without_names_by_their_order_if_there_are_no_more(trained, tmp_path):
    for labels, refused in (([0, 1, 2], False), ([0, 1, 2, 3], True), ([1, 2, 3], True)):
        x, y = pixels(40, 3, 8, 8), np.array(labels)[np.arange(40) % len(labels)]
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
        command = ("evaluate", trained / "run", "--data", "npz", "--root", tmp_path / "a.npz", "--attack", "natural")
        assert (invoke(*command).exit_code == 2) == refused


def test_a_baseline_of_other_classes_is_refused(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "other")
    config = tmp_path / "other" / "config.toml"
    config.write_text(config.read_text().replace('"blue"', '"azure"'))
    message = said("report", trained / "run", "--baseline", tmp_path / "other")
    assert "baseline: expected the classes ['blue', 'green', 'red'], got ['azure', 'green', 'red']" in message


def test_added_images_move_none_and_all_are_judged(trained, tmp_path):
    shutil.copytree(trained / "photos", tmp_path / "more")
    before = judged(trained / "run")["n"]
    write(tmp_path / "more", n=20, first=200)
    assert judged(trained / "run", "--root", tmp_path / "more")["n"] > before
    judged(trained / "run", "--root", tmp_path / "more", "--part", "validation")


MIXED = ["moved to test", "old split", "both", "no record"]


@pytest.mark.parametrize("how", MIXED)
def test_images_that_were_trained_on_are_refused_or_labelled(trained, tmp_path, how):
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    root = trained / "photos"
    if how == "no record":
        (run / "trained-on.txt").unlink()
    elif how != "old split":
        root = tmp_path / "moved"
        shutil.copytree(trained / "photos", root / "test")
        write(root / "train", first=300)
    else:  # as another seed splits
        config = run / "config.toml"
        config.write_text(config.read_text().replace("seed = 0", "seed = 7"))
    part = ("--part", "validation") if how == "old split" else ()
    message = said("evaluate", run, "--root", root, *part, "--attack", "natural")
    text = "it is not known which images were trained on" if how == "no record" else "images were trained on in"
    assert text in message
    assert "--allow-trained" in message
    row = judged(run, "--root", root, *part, "--allow-trained")
    assert text.removesuffix(" in") in row["flags"]
    if how == "moved to test":
        count = len((run / "trained-on.txt").read_text().split())
        assert row["flags"] == f"{count} of 36 images were trained on"
        assert "images were trained on in" in said("report", run, "--root", root, "--n", "12")
        done("report", run, "--root", root, "--n", "12", "--allow-trained")
        assert "of 12 images were trained on" in (run / "report.html").read_text(encoding="utf-8")


def test_with_a_limit_or_selection_on_the_test_set_no_image_is_judged_that_was_trained_on(tmp_path):
    """The parts were other ones without the limit; and the papers' selection trains on the validation part."""
    for name, settings, refused in (("a", ("--limit", "100"), False), ("b", ("--set", "selection=test"), True)):
        done("train", "digits-madry", "--output", tmp_path / name, "--set", "keep=best", *settings, *SHORT)
        result = invoke("evaluate", tmp_path / name, "--part", "validation", "--attack", "natural")
        assert (result.exit_code, "150 of 150 images were trained on" in result.output) == (2 * refused, refused)


def test_a_study_of_images_that_have_changed_is_another_one(tmp_path):
    arms = {"a": RECIPES["folder-madry"]}

    def key():
        return plan_runs(StudyOptions(arms, root=tmp_path / "photos"))[1][0][1].key

    write(tmp_path / "photos")
    first = key()
    (tmp_path / "photos" / "blue" / ".DS_Store").write_bytes(b"opened")
    assert key() == first
    write(tmp_path / "photos", ["blue"], n=1, first=70)
    second = key()
    (tmp_path / "photos" / "blue").rename(tmp_path / "photos" / "zblue")
    assert len({first, second, key()}) == 3


def test_predict_reads_files_whatever_their_names(trained, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        Image.fromarray(pixels(8, 8, 3)).save(path)
    except OSError:
        pytest.skip("this file system has no such names")
    done("predict", trained / "run", path, "--csv", tmp_path / "said.csv")
    assert pd.read_csv(tmp_path / "said.csv").image[0] == str(tmp_path / r"caf\xe9.png")
