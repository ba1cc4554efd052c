"""What a command line and a file say, as a plan; TOML and YAML alike."""

from pathlib import Path

import pytest
import yaml
from art_lbgat.commands.choosing import complete_recipe, read_settings
from art_lbgat.commands.plan import RUN_FIELDS, Plan, make_plan
from art_lbgat.commands.run_directory import RunDirectory
from art_lbgat.recipes.files import read_mapping, write_mapping

from art_lbgat.recipes import RECIPES, Recipe

RECIPE = RECIPES["digits-lbgat"]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_every_recipe_reads_back(name, suffix, tmp_path):
    path = tmp_path / f"recipe.{suffix}"
    RECIPES[name].save(path)
    assert Recipe.read(path) == RECIPES[name]


def test_settings_are_read_as_yaml():
    texts = ["eps=8e-3", "milestones=[3, 5]", "awp_gamma = none", "notes=a=b", "keep=best", "nesterov=true"]
    assert read_settings(texts) == {"eps": "8e-3", "milestones": [3, 5], "awp_gamma": "none", "notes": "a=b", "keep": "best",
                                    "nesterov": True}  # fmt: skip
    plan = make_plan("digits-lbgat", read_settings(texts))
    assert (plan.recipe.eps, plan.recipe.milestones, plan.recipe.awp_gamma) == (0.008, (3, 5), None)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["eps"], "set: expected field=value, got 'eps'"),
        (["=1"], "set: expected field=value"),
        (["eps=1", "eps=2"], "set: expected each field once, got 'eps' twice"),
        (["eps=[1"], "set: eps: expected a value as in YAML"),
    ],
)
def test_bad_settings(texts, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read_settings(texts)


def test_a_plan_reads_back_from_toml_and_from_yaml(tmp_path):
    plan = make_plan("digits-bgat", {"precision": "bf16", "keep_checkpoints": 3, "eps": 0.2}, seed=4, limit=200, root=tmp_path,
                     guide_weights=[tmp_path / "g.safetensors"], nb_epochs=10)  # fmt: skip
    assert plan.recipe == RECIPES["digits-bgat"].scaled(10).override(eps=0.2)
    for name in ("config.toml", "config.yaml"):
        write_mapping(tmp_path / name, plan.as_toml({"nb_classes": 10}))
        assert make_plan(str(tmp_path / name)) == plan
    again = make_plan(str(tmp_path / "config.toml"), {"precision": "fp32"}, seed=5)  # a command line has the last word
    assert (again.seed, again.run["precision"], again.limit) == (5, "fp32", 200)


def test_every_option_of_a_run_can_be_set():
    given = {"precision": "bf16", "attack_precision": "fp32", "channels_last": True, "compile": True, "tf32": True,
             "warm_start": True, "max_iter_warmup_epochs": 2, "on_nonfinite": "rollback", "checkpoint_every": "5 minutes",
             "keep_checkpoints": 1, "sync_batchnorm": True}  # fmt: skip
    assert set(given) == set(RUN_FIELDS)
    assert make_plan("digits-lbgat", given).run == given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epz": 1}, "set: there is no field 'epz'; did you mean 'eps'"),
        ({"precison": 1}, "did you mean 'precision'"),
        ({"resume": "must"}, "set: resume has an option of its own, --resume"),
        ({"checkpoint_dir": "x"}, "has an option of its own, --output"),
        ({"trackers": []}, "has an option of its own, --tracker"),
        ({"keep_checkpoints": "two"}, "keep_checkpoints: expected a whole number"),
    ],
)
def test_bad_fields(settings, message):
    with pytest.raises(TypeError, match=message):
        make_plan("digits-lbgat", settings)


def test_bad_tables_of_a_file(tmp_path):
    for run, message in (
        ({"sed": 1}, "run: there is no field 'sed'"),
        ([1], "expected a dict|there is no field|recipe"),
    ):
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump({**RECIPE.as_dict(), "run": run}))
        with pytest.raises(TypeError, match=message):
            make_plan(str(path))


def test_what_makes_another_run_of_it():
    plan = Plan(RECIPE, {"keep_checkpoints": 2})
    written = plan.as_toml({"nb_classes": 10})
    assert plan.differences_from(written) == []
    free = Plan(RECIPE.override(notes="x"), {"keep_checkpoints": 5, "on_nonfinite": "skip"}, root=Path("/elsewhere"))
    assert free.differences_from(written) == []
    other = Plan(RECIPE.override(nb_epochs=3, awp_gamma=0.1), {"precision": "bf16"}, seed=1)
    assert set(other.differences_from(written)) == {
        "nb_epochs: 25 -> 3", "awp_gamma: None -> 0.1", "precision: None -> 'bf16'", "seed: 0 -> 1",
    }  # fmt: skip


def test_a_directory_that_is_empty_or_new_is_free(tmp_path):
    plan = Plan(RECIPE)
    RunDirectory(tmp_path).check_free(plan, resume=False)
    RunDirectory(tmp_path / "new").check_free(plan, resume=False)
    RunDirectory(tmp_path).write_plan(plan, {})
    RunDirectory(tmp_path).check_free(plan, resume=False)  # unfinished and of the same plan: it goes on
    assert RunDirectory(tmp_path).plan() == plan
    assert read_mapping(tmp_path / "config.toml")["eps_step"] == "none"  # whose default is another value


def test_completion_knows_the_recipes():
    assert complete_recipe("digits-lbgat") == ["digits-lbgat", "digits-lbgat-alp", "digits-lbgat0", "digits-lbgat6"]


def test_a_run_is_no_part_of_the_recipe(tmp_path):
    options = RECIPE.run_options(3, verbose=False, checkpoint_dir=tmp_path, precision="bf16")
    assert (options.checkpoint_dir, options.precision, options.seed) == (tmp_path, "bf16", 3)
    with pytest.raises(TypeError, match=r"^run: keep is a field of the recipe; expected it in override\(keep=...\)"):
        RECIPE.run_options(3, keep="best")
    with pytest.raises(TypeError, match="did you mean 'checkpoint_dir'"):
        RECIPE.build(run={"chekpoint_dir": tmp_path})
    experiment = RECIPES["digits-bgat"].build(
        limit=100, run={"checkpoint_dir": tmp_path, "warm_start": True}, verbose=False
    )
    assert experiment.trainer.options.checkpoint_dir == tmp_path
    guide = experiment._guide_run(1, ())
    assert guide["checkpoint_dir"] == tmp_path / "guide-1"
    assert "warm_start" not in guide
