"""Names that reach paths: whatever could lead elsewhere is refused, wherever it comes in."""

from dataclasses import replace

import pytest
import tomli_w
from PIL import Image

from art_lbgat.checks import check_name
from art_lbgat.data import load_data, load_tiny_imagenet
from art_lbgat.evaluation.record import Record
from art_lbgat.models import create_model
from art_lbgat.recipes import RECIPES, Recipe
from art_lbgat.robustbench import load_classifier
from art_lbgat.study import StudyOptions, Task, run_study
from tests.robustbench.test_submission import export, judged, tiny

BAD_NAMES = ["../up", "..", ".", "a/b", "/etc/passwd", "a\\b", "..\\up", "C:\\x", "a\0b", "", " ", "a\nb", "C:x", "~root",
             ".hidden", "a" * 101, "$HOME", "a;b", "file:x", "a/../../b"]  # fmt: skip
RECIPE = RECIPES["digits-natural"]


def test_the_check():
    for name in ("lbgat6-cifar100-wrn34-10", "a", "n01440764_18.JPEG", "_x", "1.0+a", "ü", "a" * 100):
        assert check_name(name, "thing") == name
    for value in (None, 3, b"a", ["a"]):
        with pytest.raises(TypeError, match=r"^thing: expected text, got"):
            check_name(value, "thing")
    for name in BAD_NAMES:
        with pytest.raises(ValueError, match=r"^thing: expected letters, digits and .* got ") as error:
            check_name(name, "thing")
        assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_ids_of_recipes(name, tmp_path):
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps({**RECIPE.as_toml(), "id": name}), encoding="utf-8")
    for make in (lambda: replace(RECIPE, id=name), lambda: Recipe.read(tmp_path / "recipe.toml")):
        with pytest.raises(ValueError, match=r"^id: expected letters"):
            make()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_data_models_and_the_zoo(name, tmp_path):
    with pytest.raises(ValueError, match=r"^name: expected one of"):
        load_data(name, tmp_path)
    for model in (name, f"torchvision/{name}", f"timm/{name}", "timm/hf-hub:someone/something"):
        with pytest.raises(ValueError, match=r"^(name|model): "):
            create_model(model, 10)
    with pytest.raises(ValueError, match=r"^name: expected one of the \d+ models"):
        load_classifier(name, "cifar10", "Linf", tmp_path)
    for place in (("Standard", name, "Linf"), ("Standard", "cifar10", name)):
        with pytest.raises(ValueError, match=r"^(dataset|threat_model): expected one of"):
            load_classifier(*place, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if "\n" not in name])
def test_images_that_a_file_lists(name, tmp_path):
    for path in ("root/train/n1/images/1.JPEG", "root/val/images/1.JPEG", "up", "root/val/up"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / path, "JPEG")
    (tmp_path / "root" / "val" / "val_annotations.txt").write_text(f"{name}\tn1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^root: file in line 1 of .*val_annotations.txt: expected letters"):
        load_tiny_imagenet(tmp_path / "root")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_submissions(name, tmp_path):
    classifier = tiny()
    with pytest.raises(ValueError, match=r"^model_id: expected <FirstAuthor>"):
        export(classifier, tmp_path, model_id=name, force=True)
    for field in ("dataset", "threat_model"):  # of a result, which may have been read from a file
        with pytest.raises(ValueError, match=rf"^{field}: expected one of"):
            export(classifier, tmp_path, judged(classifier, **{field: name}), force=True)
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_study_stay_in_its_folder(tmp_path):
    """Labels of arms may be anything: no file is named by one."""
    options = StudyOptions({"../../up": RECIPE.scaled(1)}, seeds=(0,), limit=200, n_test=10, n_autoattack=0, workers=1)
    key = Task(options.recipe("../../up"), 0, options).key
    assert check_name(key, "key") == key
    table = run_study(options, tmp_path / "study")
    assert table["arm"].tolist() == ["../../up"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]
    assert {path.name.partition(".")[0] for path in (tmp_path / "study" / "runs").iterdir()} == {key}


def test_a_path_with_nul(tmp_path):
    with pytest.raises(ValueError, match=r"^state_path: expected a path, got '.*\\x00b'"):
        Record(f"{tmp_path}/a\0b", {})
    with pytest.raises(ValueError, match=r"^path: expected a path, got '.*\\x00b'"):
        Recipe.read(f"{tmp_path}/a\0b")
