"""What a command line and a file say, as the configuration of a run."""

import dataclasses

import numpy as np
import pytest
import tomli_w

from art_lbgat import RunOptions
from art_lbgat.cli.train import check_free, complete_recipe, make_config, read_settings
from art_lbgat.data import DataSet, Images, images
from art_lbgat.recipes import RECIPES, Recipe
from art_lbgat.recipes.recipe import CALL_FIELDS, RUN_FIELDS
from art_lbgat.runs import Config

RECIPE = RECIPES["digits-lbgat"]


def test_settings_are_read_as_toml_or_text():
    texts = ["eps=8e-3", "milestones=[3, 5]", "awp_gamma = none", "notes=a=b", "keep=best", "nesterov=true"]
    assert read_settings(texts) == {"eps": 0.008, "milestones": [3, 5], "awp_gamma": "none", "notes": "a=b", "keep": "best",
                                    "nesterov": True}  # fmt: skip
    recipe = make_config("digits-lbgat", texts).recipe
    assert (recipe.eps, recipe.milestones, recipe.run.awp_gamma, recipe.run.keep) == (0.008, (3, 5), None, "best")


@pytest.mark.parametrize(("texts", "error", "message"), [
    (["eps"], ValueError, "set: expected field=value, got 'eps'"),
    (["=1"], ValueError, "set: expected field=value"),
    (["eps=1", "eps=2"], ValueError, "set: expected each field once, got 'eps' twice"),
    (["milestones=[1"], ValueError, "set: milestones: expected a value as in TOML"),
    (["epz=1"], TypeError, "set: there is no field 'epz'; did you mean 'eps'"),
    (["qqq=1"], TypeError, "set: there is no field 'qqq'; `art-lbgat recipes ID` lists them"),
    (["run=1"], TypeError, "set: there is no field 'run'"),
    (["resume=must"], TypeError, "set: resume has an option of its own, --resume"),
    (["keep_checkpoints=two"], TypeError, "keep_checkpoints: expected a whole number"),
])  # fmt: skip
def test_bad_settings(texts, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make_config("digits-lbgat", texts)


def test_a_configuration_reads_back(tmp_path):
    config = make_config("digits-bgat", ["precision=bf16", "keep_checkpoints=3", "eps=0.2"], 10, seed=4, limit=200,
                         root=str(tmp_path), guide_weights=(str(tmp_path / "g.safetensors"),), n_test=7)  # fmt: skip
    changes = {"eps": 0.2, "precision": "bf16", "keep_checkpoints": 3}
    assert config.recipe == RECIPES["digits-bgat"].scaled(10).override(**changes)
    config.write(tmp_path)
    assert Config.read(tmp_path / "config.toml") == config
    assert Recipe.read(tmp_path / "config.toml") == config.recipe
    again = make_config(str(tmp_path / "config.toml"), ["precision=fp32"], seed=5)  # a command line has the last word
    assert (again.seed, again.recipe.run.precision, again.limit) == (5, "fp32", 200)


def test_every_option_of_a_run_can_be_set_or_belongs_to_a_call():
    names = {field.name for field in dataclasses.fields(RunOptions)}
    assert set(RUN_FIELDS) == names - set(CALL_FIELDS)
    given = {"precision": "bf16", "attack_precision": "fp32", "channels_last": True, "compile": True,
             "checkpoint_every": "5 minutes", "keep_checkpoints": 1, "patience": 3, "ema_decay": 0.9}  # fmt: skip
    run = make_config("digits-lbgat", [f"{name}={str(value).lower()}" for name, value in given.items()]).recipe.run
    assert {name: getattr(run, name) for name in given} == given


@pytest.mark.parametrize(("change", "message"), [
    ({"training": {"sed": 1}}, "training: field: .*did you mean 'seed'"),
    ({"training": [1]}, "training: expected"),
    ({"run": {"keeep": "best"}}, "run: field: .*did you mean 'keep'"),
    ({"run": {"eps": 0.1}}, r"eps in the table \[run\]; expected it at the top"),
    ({"keep": "best"}, r"keep at the top; expected it in the table \[run\]"),
])  # fmt: skip
def test_a_field_in_the_wrong_place_of_a_file_is_named(change, message, tmp_path):
    (tmp_path / "c.toml").write_text(tomli_w.dumps({**RECIPE.as_toml(), **change}))
    with pytest.raises(TypeError, match=message):
        make_config(str(tmp_path / "c.toml"))


def test_what_makes_another_run_of_it():
    config = Config(RECIPE)
    free = Config(RECIPE.override(notes="x", keep_checkpoints=5), root="/elsewhere", n_test=3, nb_classes=10)
    assert free.differences_from(config) == []
    other = Config(RECIPE.override(nb_epochs=3, awp_gamma=0.1, precision="bf16"), seed=1)
    assert set(other.differences_from(config)) == {
        "nb_epochs: 25 -> 3", "awp_gamma: None -> 0.1", "precision: 'fp32' -> 'bf16'", "seed: 0 -> 1",
    }  # fmt: skip


def test_a_directory_that_is_empty_new_or_of_the_same_run_is_free(tmp_path):
    config = Config(RECIPE)
    for each in (tmp_path, tmp_path / "new"):
        check_free(each, config, resume=False)
    config.write(tmp_path)
    check_free(tmp_path, config, resume=False)  # unfinished and of the same configuration: it resumes


def test_completion_knows_the_recipes():
    expected = ["digits-lbgat", *(f"digits-lbgat{kind}" for kind in ("-alp", "0", "6", "-ikl", "-gkl"))]
    assert complete_recipe("digits-lbgat") == expected


@pytest.mark.parametrize(("selection", "trained"), [("validation", [0, 1]), ("test", [0, 1, 3])])
def test_what_was_trained_on_is_hashed_once_and_leaves_copies_of_held_out_images_out(
    tmp_path, monkeypatch, selection, trained
):
    """Images 0 to 5; 2 is in training and test, 4 in validation and test, 3 in training and validation."""
    asked, blake2b = [], images.hashlib.blake2b
    monkeypatch.setattr(images.hashlib, "blake2b", lambda *args, **kwargs: asked.append(1) or blake2b(*args, **kwargs))
    made = [np.full((1, 8, 8), value, np.uint8) for value in range(6)]
    parts = [
        Images(np.stack([made[i] for i in part]), [0] * len(part), 16) for part in ([0, 1, 2, 3], [3, 4], [2, 4, 5])
    ]
    data, config = DataSet("digits", *parts, nb_classes=2), Config(RECIPE.override(selection=selection))
    for arm in ("first", "second"):
        config.write_with(data, tmp_path / arm)
        config.write_with(data, tmp_path / arm)
        hashes = [blake2b(made[i].tobytes(), digest_size=8).hexdigest() for i in trained]
        assert (tmp_path / arm / "trained-on.txt").read_text().split() == sorted(hashes)
    assert len(asked) == 4 + 2 + 3
