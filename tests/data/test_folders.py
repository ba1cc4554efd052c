"""Folders of pictures as people have them: read as their owner meant, or refused with what was found."""

import logging
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from art_lbgat.data import load_data, load_image_folder
from tests.data.cases import pixels, write_tree

PARTS = ("train", "validation", "test")


def sizes(data):
    return [len(getattr(data, f"{part}_images")) for part in PARTS]


def contents(data, part):
    return {image.tobytes() for image in getattr(data, f"{part}_images").x}


def write(root, *folders, n=12):
    """Pictures, all different, in folders of these names."""
    for seed, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(pixels(8, 8, 3, seed=1000 * seed + i)).save(root / folder / f"{i}.png")
    return root


def parts_of(*names, wrap="", classes=("cat", "dog")):
    return [f"{name}{wrap}/{label}" for name in names for label in classes]


PARTED = [  # folders, and images in the test part and in that for validation (None: a share of the training part)
    (parts_of("Train", "TEST"), 24, None),
    (parts_of("training_set", "test_set"), 24, None),
    (["training_set/training_set/cat", "training_set/training_set/dog", *parts_of("test_set/test_set")], 24, None),
    (["seg_train/seg_train/cat", "seg_train/seg_train/dog", *parts_of("seg_test/seg_test")], 24, None),
    (parts_of("TrainData", "testing"), 24, None),
    (parts_of("train", "val", "test"), 24, 24),
    (parts_of("train", "valid", "test"), 24, 24),
    (parts_of("train", "Validation"), 24, None),
    (parts_of("photos/train", "photos/test"), 24, None),
    (parts_of("train", "test", wrap="/images"), 24, None),
]


@pytest.mark.parametrize(("folders", "tested", "held"), PARTED)
def test_parts_in_any_usual_spelling_and_nesting(tmp_path, folders, tested, held, caplog):
    data = load_image_folder(write(tmp_path, *folders), validation=0.2)
    assert (data.class_names, sizes(data)[2]) == (("cat", "dog"), tested)
    assert held in (None, sizes(data)[1])
    assert sum(sizes(data)) == 12 * len(folders)
    test_folder = next((f for f in folders if "test" in f.lower()), "Validation/cat").removesuffix("/dog")
    first = np.asarray(Image.open(tmp_path / test_folder / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(data.test_images.x[0], first)
    assert ("its validation folder is the test part" in caplog.text) == ("Validation/cat" in folders)


WHOLE = [
    (["cat", "dog"], ("cat", "dog")),
    (["photos/cat", "photos/dog"], ("cat", "dog")),
    (["archive/photos/cat", "archive/photos/dog"], ("cat", "dog")),
    (["cat/2019", "cat/2020", "dog/2019"], ("cat", "dog")),
    (["train", "car", "plane"], ("car", "plane", "train")),  # vehicles
    (["test", "control"], ("control", "test")),
    (["steam_train", "bullet_train"], ("bullet_train", "steam_train")),
    ([unicodedata.normalize("NFD", "café"), "bar"], ("bar", unicodedata.normalize("NFC", "café"))),
]


@pytest.mark.parametrize(("folders", "names"), WHOLE)
def test_folders_of_classes_alone(tmp_path, folders, names):
    data = load_image_folder(write(tmp_path, *folders))
    assert data.class_names == names
    assert sum(sizes(data)) == 12 * len(folders)


REFUSED = [
    (
        ["cat/train", "cat/test", "dog/train", "dog/test"],
        r"folders of classes in those of parts, got the part .*cat/test",
    ),
    (["train", "test"], r"there are \['test', 'train'\]"),
    ([*parts_of("train", "test"), "pred"], r"there are \['pred', 'test', 'train'\]"),
    (parts_of("train", "Training", "test"), r"there are \['Training', 'test', 'train'\]"),
    (parts_of("train"), r"there are \['train'\]"),
    (parts_of("test", "val"), r"there are \['test', 'val'\]"),
    (["train/images", "test/images"], r"at least two classes in .*, got \['images'\]"),
    (["train/Cat", "train/dog", "test/cat", "test/dog"], r"\['cat', 'dog'\], train has \['Cat', 'dog'\]"),
]


@pytest.mark.parametrize(("folders", "message"), REFUSED)
def test_what_is_not_clear_is_refused_with_what_was_found(tmp_path, folders, message):
    with pytest.raises((ValueError, FileNotFoundError), match=f"^root: .*{message}"):
        load_image_folder(write(tmp_path, *folders))


@pytest.mark.parametrize("junk", [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"])
@pytest.mark.parametrize("place", ["beside", "empty", "inside"])
def test_what_systems_leave_behind_is_not_looked_at(tmp_path, junk, place):
    clean = load_image_folder(write(tmp_path, "cat", "dog"))
    if place == "empty":
        (tmp_path / junk).mkdir()
    else:
        shutil.copytree(tmp_path / "cat", tmp_path / ("cat" if place == "inside" else ".") / junk)
    for name in ("._1.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"no image")
    data = load_image_folder(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert all(np.array_equal(getattr(data, part)[0], getattr(clean, part)[0]) for part in PARTS)


def test_a_class_without_images_is_refused_by_name(tmp_path):
    (write(tmp_path, "cat", "dog") / "bird").mkdir()
    with pytest.raises(FileNotFoundError, match=r"root: expected images in every folder .* none in \['bird'\]"):
        load_image_folder(tmp_path)


def test_whatever_pillow_reads_is_taken_and_what_is_left_out_is_said(tmp_path, caplog):
    write(tmp_path, "cat", "dog")
    for i, name in enumerate(("a.gif", "b.jfif", "c.JPG", "no ending", "d.txt", "e.ico", "f.jp2", "g.pgm")):
        kind = {"a.gif": "GIF", "e.ico": "ICO", "f.jp2": "JPEG2000", "g.pgm": "PPM"}.get(name, "JPEG")
        Image.fromarray(pixels(8, 8, 3, seed=5000 + i)).save(tmp_path / "cat" / name, format=kind)
    for name in ("notes.txt", "labels.csv", "drawing.svg"):
        (tmp_path / "dog" / name).write_text("words")
    Image.fromarray(pixels(8, 8, 3)).save(tmp_path / "cover.png")
    data = load_image_folder(tmp_path, size=8)
    assert sum(sizes(data)) == 32
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [f"root: 4 files in {tmp_path} are left out: 1 .csv, 1 .svg, 1 .txt, 1 images without a folder."]


def test_a_name_that_is_no_utf_8_is_refused_by_name(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    write(tmp_path / "classes", name, "dog")
    write(tmp_path / name, "cat", "dog")
    for root, got in (
        (tmp_path / "classes", r"in .*classes: expected .*b'caf\\xe9'"),
        (tmp_path / name, r"expected .*caf\\xe9'"),
    ):
        with pytest.raises(ValueError, match=f"^root: {got}"):
            load_data("folder", root)
    for path in (tmp_path / "classes" / "dog").iterdir():  # the names of files are nobody's business
        path.rename(path.with_name(f"{name}{path.name}"))
    shutil.move(tmp_path / "classes" / name, tmp_path / "classes" / "cat")
    assert sum(sizes(load_data("folder", tmp_path / "classes"))) == 24


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
@pytest.mark.parametrize("limit", [None, 20])
def test_no_file_moves_from_one_part_to_another_when_files_are_added(tmp_path, parts, limit):
    write_tree(tmp_path, n=40, parts=parts)
    before = load_image_folder(tmp_path, limit=limit)
    for place in {path.parent for path in tmp_path.rglob("*.png")}:
        for i in range(9):  # names before and after those that are there
            Image.fromarray(pixels(8, 8, 3, seed=len(str(place)) + i)).save(place / f"{i % 2}{i}x.png")
    after = load_image_folder(tmp_path, limit=limit)
    assert sum(sizes(after)[::2]) > sum(sizes(before)[::2])
    for one, others in (
        ("train", ("validation", "test")),
        ("validation", ("train", "test")),
        ("test", ("train", "validation")),
    ):
        assert not any(contents(before, one) & contents(after, other) for other in others)
    assert limit or all(contents(before, part) <= contents(after, part) for part in PARTS)


def test_copies_are_in_one_part(tmp_path, caplog):
    write(tmp_path / "a", "cat", "dog", n=30)
    for path in list((tmp_path / "a").rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    write(tmp_path / "b", "train/cat", "train/dog", "test/cat", "test/dog")
    shutil.copy(tmp_path / "b" / "train" / "cat" / "0.png", tmp_path / "b" / "test" / "cat" / "again.png")
    for name, images in (("a", 120), ("b", 48)):
        data = load_image_folder(tmp_path / name)
        assert sum(sizes(data)) == images
        assert sum(len(contents(data, part)) for part in PARTS) == len(
            set.union(*(contents(data, part) for part in PARTS))
        )
    for path in (tmp_path / "b" / "train" / "cat").iterdir():
        shutil.copy(path, tmp_path / "b" / "test" / "dog")
    with pytest.raises(ValueError, match=r"root: expected images of \['cat'\] that are in one part alone"):
        load_image_folder(tmp_path / "b")
    assert "root: 1 images are left out, since a part that is held out has copies of them, such as" in caplog.text


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_small_folders_have_each_class_in_each_part_or_it_is_said_what_is_needed(tmp_path, n):
    write(tmp_path, *(f"class {i}" for i in range(10)), n=n)
    if n == 2:
        with pytest.raises(
            ValueError, match=r"root: expected at least 3 different images of each class.*, got 2 of 'class 0'"
        ):
            load_image_folder(tmp_path)
        return
    data = load_image_folder(tmp_path)
    assert all(np.bincount(getattr(data, part)[1], minlength=10).all() for part in PARTS)
    assert contents(load_image_folder(tmp_path, limit=10 * n), "train") == contents(data, "train")
    with pytest.raises(ValueError, match="limit: 10 images of 10 classes are too few"):
        load_image_folder(tmp_path, limit=10)
