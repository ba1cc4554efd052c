"""Every recipe builds, runs, costs what it says, and survives a file; overrides are checked."""

import json
import re

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat import RunOptions
from art_lbgat.data import DataSet, Images
from art_lbgat.engine.schedule import Cosine, OneCycle, StepSchedule
from art_lbgat.losses import GUIDANCE
from art_lbgat.models import create_model
from art_lbgat.recipes import ABLATIONS, PUBLISHED, RECIPES, SMALL, PublishedResult, Recipe, ablation
from art_lbgat.recipes.build import training_images
from art_lbgat.trainers import METHODS
from tests.conftest import copied_state, states_equal

LEAST = 'id = "a"\nmethod = "madry"\ndata = "digits"\nmodel = "small-cnn"'
EVERY = pytest.mark.parametrize("name", RECIPES)


def fake_data(name, n=16, classes=10):
    """Random images of the shape that the recipe's data have."""
    generator = np.random.default_rng(0)
    shape = (1, 8, 8) if name == "digits" else (3, 32, 32)

    def part(size):
        limit, scale = (17, 16) if name == "digits" else (256, 255)
        x = generator.integers(0, limit, (size, *shape), dtype=np.uint8)
        return Images(x, np.arange(size) % classes, scale)

    return DataSet(name, part(n), part(classes), part(classes), classes)


def toy(recipe, **changes):
    """The recipe at toy width: a small network, 2 attack steps, 2 steps of 8 images in one epoch."""
    networks = {"model": "small-cnn", "guides": ("small-cnn",) * len(recipe.guides)}
    small = {**networks, "nb_epochs": 1, "batch_size": 8, "max_iter": min(2, recipe.max_iter), "awp_start_epoch": 1}
    return recipe.override(**{**small, **changes})


@EVERY
def test_every_recipe_builds_and_runs_two_steps_at_toy_width(name):
    recipe = toy(RECIPES[name])
    state = torch.get_rng_state()
    experiment = recipe.build(data=fake_data(recipe.data), verbose=False, device_type="cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(experiment.classifier, PyTorchClassifier)
    assert len(experiment.guides) == len(recipe.guides)
    before = copied_state(experiment.classifier.model)
    steps = []
    experiment.classifier.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    experiment.fit()
    assert len(steps) == 2
    assert not states_equal(before, experiment.classifier.model.state_dict())
    assert np.isfinite(experiment.trainer.history.loss.to_numpy()).all()
    assert experiment.trainer.cost == recipe.cost
    history = experiment.trainer.history
    if recipe.method != "natural":
        factor = recipe.run.settled({}).eps_factor(1, 0.75)  # after both of its steps
        assert history.eps.iloc[0] == pytest.approx(recipe.eps * factor)
    schedule = recipe.schedule
    rate = schedule.factor(1) if isinstance(schedule, StepSchedule) else schedule.factor(0.75)
    assert history.learning_rate.iloc[0] == pytest.approx(recipe.learning_rate * rate)
    assert ("validation_natural_accuracy" in history) == (recipe.run.keep != "last")


@EVERY
def test_every_model_of_a_recipe_exists(name):
    recipe = RECIPES[name]
    shape = fake_data(recipe.data).input_shape
    with torch.device("meta"):
        for model in (recipe.model, *recipe.guides):
            assert sum(p.numel() for p in create_model(model, 10, shape).parameters()) > 1000
    if recipe.guide_recipe is not None:
        own, robust = recipe.for_guide(), recipe.guidance == "rslad"
        assert own.method == ("trades" if robust else "natural")
        assert not robust or (own.eps, own.norm) == (recipe.eps, recipe.norm)


@EVERY
def test_every_recipe_survives_a_file_and_says_where_it_is_from(name, tmp_path):
    recipe = RECIPES[name]
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == recipe
    assert recipe.id == name
    assert recipe.source
    assert recipe.published is None or recipe.published.source
    assert len(RECIPES) == len(PUBLISHED) + len(SMALL)  # ids are unique


PAPER = {  # eps, natural, AutoAttack, PGD-20: the tables of the papers, written down once more
    "lbgat0-cifar10-wrn34-10": (0.031, 88.22, 52.86, 57.55),
    "lbgat0-cifar10-wrn34-20": (0.031, 88.70, 53.57, None),
    "lbgat0-cifar100-wrn34-10": (0.031, 70.25, 27.16, None),
    "lbgat6-cifar100-wrn34-10": (0.031, 60.64, 29.33, None),
    "lbgat6-cifar100-wrn34-20": (0.031, 62.55, 30.20, None),
    "lbgat6-cifar10-wrn34-10": (0.031, 81.98, None, 57.78),
    "lbgat6-cifar10-resnet18": (8 / 255, 76.40, None, 53.19),
    "lbgat-awp-cifar100-wrn34-10": (8 / 255, 62.31, 30.44, None),
    "lbgat9-awp-cifar100-wrn34-10": (8 / 255, 62.99, 31.20, None),
    "lbgat-cifar100-wrn34-10": (0.031, 66.29, None, 34.30),
    "lbgat-cifar10-wrn34-10": (0.031, 87.08, None, 56.60),
    "lbgat-alp-cifar100-wrn34-10": (0.031, 62.67, None, 35.25),
    "lbgat-alp-cifar10-wrn34-10": (0.031, 85.05, None, 57.60),
    "bgat-cifar100-wrn34-10": (0.031, 67.72, None, 30.20),
    "bgat-cifar10-wrn34-10": (0.031, 89.00, None, 56.07),
    "trades6-cifar10-wrn34-10": (0.031, 84.92, 52.64, None),
    "trades6-cifar100-wrn34-10": (0.031, 56.50, 26.87, None),
    "trades6-awp-cifar10-wrn34-10": (8 / 255, 85.36, 56.17, None),
    "trades6-awp-cifar100-wrn34-10": (8 / 255, 60.17, 28.80, None),
    "madry-eps8-cifar10-wrn34-10": (8 / 255, 87.14, 44.04, None),
    "madry-cifar100-wrn34-10": (0.031, 60.90, None, 27.46),
    "madry-cifar10-wrn34-10": (0.031, 86.82, None, 52.87),
    "fast-at-cifar10-preact18": (8 / 255, 83.34, 43.21, None),
}


@pytest.mark.parametrize("recipe", [recipe for recipe in PUBLISHED if recipe.published])
def test_published_results_are_those_of_the_papers(recipe):
    result = recipe.published
    assert (recipe.eps, result.natural, result.autoattack, result.pgd_20) == PAPER[recipe.id]
    assert f"-{recipe.data}-" in recipe.id
    assert recipe.id.endswith(recipe.model.replace("wrn-", "wrn").replace("-resnet-", "").replace("resnet-", "resnet"))


def test_published_settings_are_those_of_the_papers():
    recipe = RECIPES["lbgat6-cifar100-wrn34-10"]
    assert (recipe.regularizer, recipe.regularizer_weight, recipe.guide_ce_weight) == ("trades", 6.0, 1.0)
    assert (recipe.eps_step, recipe.max_iter, recipe.batch_size, recipe.nb_epochs) == (0.007, 10, 128, 100)
    assert (recipe.momentum, recipe.weight_decay, recipe.nesterov) == (0.9, 2e-4, False)
    rates = [recipe.learning_rate * recipe.schedule.factor(epoch) for epoch in (1, 2, 75, 76, 90, 91)]
    assert rates == pytest.approx([0.02, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert recipe.guides == ("resnet-18-guide",)
    cheap = RECIPES["lbgat6-cifar10-resnet18"]
    assert (cheap.eps_step, cheap.guides) == (2 / 255, ("resnet-18",))
    ignored = {"id", "method", "guides", "regularizer", "weight", "published", "notes", "source"}
    baseline = RECIPES["trades6-cifar10-resnet18"].as_dict()
    assert {k for k, v in cheap.as_dict().items() if baseline[k] != v} <= ignored
    awp = RECIPES["lbgat9-awp-cifar100-wrn34-10"]
    assert (awp.run.awp_gamma, awp.run.awp_start_epoch, awp.nb_epochs, awp.weight_decay) == (5e-3, 10, 200, 5e-4)
    assert [awp.schedule.factor(e) for e in (1, 99, 100, 149, 150)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    tiny = RECIPES["lbgat0-tiny-imagenet-wrn34-10"]
    assert (tiny.image_size, tiny.augmentation) == (32, "flip")
    names = ("lbgat6-cifar100", "lbgat0-cifar100", "trades6-awp-cifar10")
    assert [str(RECIPES[f"{name}-wrn34-10"].cost) for name in names] == ["27 F + 3 Fg", "25 F + 3 Fg", "33 F"]


def test_a_recipe_becomes_what_it_says():
    data = fake_data("digits")
    changes = {"weight": 9.0, "awp_gamma": 0.01, "ema_decay": 0.99, "max_grad_norm": 1.0}
    trainer = RECIPES["digits-lbgat6"].override(**changes).build(data=data, seed=4, verbose=False).trainer
    assert (trainer.regularizer, trainer.regularizer_weight, trainer.guide_ce_weight) == ("trades", 9.0, 4.0)
    options = trainer.options
    assert (options.awp_gamma, options.ema_decay, options.max_grad_norm, options.seed) == (0.01, 0.99, 1.0, 4)
    assert trainer.attack.ascent().objective == "kl"
    assert (trainer.attack.eps, trainer.attack.eps_step) == (0.3, 0.15)
    for name in ("bgat", "lbgat6", "mart", "trades6", "fast-at"):
        recipe = RECIPES[f"digits-{name}"]
        assert type(recipe.build(data=data, verbose=False).trainer) is METHODS[recipe.method]
    fast = RECIPES["digits-fast-at"].build(data=data, verbose=False).trainer.attack
    assert (fast.max_iter, fast.eps_step) == (1, pytest.approx(1.25 * 0.3))
    l2 = RECIPES["digits-lbgat"].override(norm=2, eps=1.5).build(data=data, verbose=False).trainer.attack
    assert (l2.norm, l2.eps) == (2.0, 1.5)


def test_frozen_guides_are_trained_first_or_loaded(tmp_path):
    data = fake_data("digits")
    recipe = toy(RECIPES["digits-bgat"])
    built = recipe.build(data=data, verbose=False)
    assert not built.guides_trained
    fresh = copied_state(built.guides[0].model)
    built.fit()
    assert built.guides_trained
    trained = copied_state(built.guides[0].model)
    assert not states_equal(fresh, trained)
    again = recipe.build(data=data, guide_weights=trained, verbose=False)
    assert again.guides_trained
    assert states_equal(again.guides[0].model.state_dict(), trained)
    with pytest.raises(ValueError, match="guide_weights: expected 1, one for each guide, got 2"):
        recipe.build(data=data, guide_weights=[trained, trained])
    with pytest.raises(ValueError, match=r"guide_recipe: .* has frozen guides"):
        recipe.override(guide_recipe=None).build(data=data, verbose=False).fit()


def test_test_set_selection_is_a_labelled_mode(caplog):
    recipe, data = toy(RECIPES["digits-madry"], keep="best", selection="test"), fake_data("digits")
    assert len(training_images(recipe, data)) == len(data.train_images) + len(data.validation_images)
    assert training_images(recipe.override(selection="validation"), data) is data.train_images
    built = recipe.build(data=data, verbose=False)
    built.fit()
    assert built.trainer.history.selection.tolist() == ["test"]
    assert "selected on test data" in caplog.text
    assert built.trainer.history.kept_because[0].startswith("highest robust test accuracy")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"epss": 0.1}, TypeError, "recipe: field: .*did you mean 'eps'"),
        ({"method": "trade"}, ValueError, "method: .*did you mean 'trades'"),
        ({"guidance": "mes"}, ValueError, "guidance: .*did you mean 'mse'"),
        ({"regularizer": "trade"}, ValueError, "regularizer: .*did you mean 'trades'"),
        ({"eps": 8}, ValueError, r"eps: expected units of \[0, 1\], got 8; divide"),
        ({"eps": -1}, ValueError, "eps: expected a finite number > 0"),
        ({"awp_gamma": 0}, ValueError, "awp_gamma: expected a finite number > 0"),
        ({"ema_decay": 1.5}, ValueError, "ema_decay"),
        ({"guides": ()}, ValueError, r"guides: expected one guide for method 'lbgat', got \(\)"),
        ({"method": "madry"}, ValueError, "guides: expected no guide for method 'madry'"),
        ({"milestones": (5, 2)}, ValueError, "milestones: expected rising epochs"),
        ({"batch_size": 1.5}, TypeError, "batch_size: expected a whole number"),
        ({"norm": "1"}, ValueError, "norm: expected"),
        ({"method": "madry", "guides": (), "regularizer": "trades"}, ValueError, "regularizer: .* for method 'madry'"),
        ({"method": "madry", "guides": (), "guidance": "kl"}, ValueError, "guidance: .* for method 'madry'"),
        ({"weight": 6.0}, ValueError, "weight: expected the default without a regularizer"),
        ({"seed": 3}, ValueError, r"run: seed belongs to one run, .* expected it in build\(seed=...\)"),
        ({"id": "my/x"}, ValueError, "id: expected letters"),
        ({"data": "cifar11"}, ValueError, "data: .*did you mean 'cifar10'"),
        ({"augmentation": "crop+filp"}, ValueError, "augmentation: .*did you mean 'flip'"),
        ({"patience": 0}, ValueError, "patience: expected"),
        ({"scheduler": "onecycle"}, ValueError, "scheduler: expected .*did you mean 'one-cycle'"),
        ({"scheduler": "cosine", "lr_warmup": 1.0}, ValueError, r"warmup: expected a share of the run in \[0, 1\)"),
        ({"lr_warmup": 0.1}, ValueError, "lr_warmup: expected the default with scheduler='step'"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: expected at most 1"),
        ({"method": "mart", "guides": (), "label_smoothing": 0.1}, ValueError, "label_smoothing: .* for method 'mart'"),
        ({"max_iter_schedule": ((0.5, 2),)}, ValueError, "max_iter_schedule: expected shares"),
        ({"attack_mode": "train"}, ValueError, "attack_mode: expected one of"),
    ],
)
def test_overrides_are_checked(changes, error, match):
    with pytest.raises(error, match=match):
        RECIPES["digits-lbgat"].override(**changes)


def test_values_of_files_and_terminals_are_understood(tmp_path):
    (tmp_path / "r.toml").write_text(f"{LEAST}\nweight_decay = 5e-4\nmilestones = 10\nnorm = 2")
    recipe = Recipe.read(tmp_path / "r.toml")
    assert (recipe.weight_decay, recipe.milestones, recipe.norm) == (5e-4, (10,), "2")
    recipe.override(eps=np.float64(0.2)).save(tmp_path / "s.toml")
    assert Recipe.read(tmp_path / "s.toml").eps == 0.2
    assert Recipe("x", "madry", "digits", "small-cnn", norm=float("inf")).norm == "inf"
    assert recipe.override(norm=2.0).norm == "2"


def test_fields_reach_the_trainer():
    data = fake_data("digits")
    bgat = RECIPES["digits-bgat"].override(patience=3, on_collapse="stop", learning_rate=0.001)
    built = bgat.build(data=data, verbose=False)
    assert built.trainer.cost == bgat.cost
    assert str(bgat.cost) == "13 F + 1 Fg"
    assert (built.trainer.options.patience, built.trainer.options.on_collapse) == (3, "stop")
    rates = [c.optimizer.param_groups[0]["lr"] for c in (built.classifier, *built.guides)]
    assert rates == [0.001, 0.05]  # a frozen guide is trained by its own recipe
    soft = RECIPES["digits-lbgat"].override(guidance="kd", kd_temperature=2.0, kd_weight=0.5)
    logits = torch.randn(3, 10)
    terms = soft.build(data=data, verbose=False).trainer.guidance(logits, logits, torch.tensor([0, 1, 2]))
    assert terms["guidance_kd"].weight == 2 * 0.5 * 2.0**2
    wide = Recipe("w", "madry", "cifar10", "wrn-10-1", sub_block1=True).build(data=fake_data("cifar10"), verbose=False)
    assert any("sub_block1" in name for name in wide.classifier.model.state_dict())


QUICK = {
    "scheduler": "one-cycle", "lr_warmup": 0.2, "label_smoothing": 0.1, "decay_norms": False, "model": "small-cnn:silu",
    "eps_warmup": 0.8, "max_iter_schedule": ((0.0, 2), (0.5, 3, 0.6)), "ema_decay": 0.9, "ema_start": 0.2, "ema_warmup": True,
}  # fmt: skip


@pytest.mark.parametrize("method", ["madry", "lbgat6", "trades6"])
def test_a_recipe_over_the_share_of_the_run(method, tmp_path):
    recipe = RECIPES[f"digits-{method}"].override(eps_warmup_epochs=0, nb_epochs=2, batch_size=8, **QUICK)
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == recipe
    assert json.loads(json.dumps(recipe.as_dict())) == recipe.as_dict()  # how a study tells that a run is done
    assert recipe.schedule == OneCycle(0.2)
    longer = recipe.scaled(40)
    shares = ("eps_warmup", "max_iter_schedule", "ema_start")
    assert [getattr(longer.run, name) for name in shares] == [QUICK[name] for name in shares]
    assert longer.schedule == recipe.schedule
    built = recipe.build(data=fake_data("digits"), verbose=False)
    rates, iterations = [], []
    built.classifier.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    built.classifier.model.register_forward_pre_hook(
        lambda module, _: None if module.training or not torch.is_grad_enabled() else iterations.append(len(rates))
    )
    built.fit()
    assert rates == pytest.approx([0.05 * OneCycle(0.2).factor((t + 0.5) / 4) for t in range(4)])
    assert [iterations.count(step) for step in range(4)] == [2, 2, 3, 3]
    assert built.trainer.cost == recipe.cost
    assert any(isinstance(module, torch.nn.SiLU) for module in built.classifier.model.modules())
    assert [len(each.optimizer.param_groups) for each in (built.classifier, *built.guides)] == [2] * (
        1 + len(built.guides)
    )
    smoothed = [each.loss.label_smoothing for each in (built.classifier, *built.guides)]
    assert smoothed == ([0.0, 0.1] if recipe.guides else [0.1])  # the student of LBGAT has no cross-entropy of its own


def test_what_a_recipe_has_by_default_is_what_it_had():
    for recipe in RECIPES.values():
        values = recipe.as_dict()
        assert isinstance(recipe.schedule, OneCycle) == (recipe.scheduler != "step")
        if recipe.scheduler == "step":
            assert values["lr_warmup"] is None
            assert recipe.schedule == StepSchedule(recipe.milestones, recipe.lr_gamma, recipe.first_epoch_factor)
    assert Recipe("x", "madry", "digits", "small-cnn", scheduler="cosine").schedule == Cosine()


def test_an_overridden_recipe_has_no_published_result():
    recipe = RECIPES["lbgat6-cifar100-wrn34-10"]
    assert recipe.override(nb_epochs=5).published is None
    assert recipe.override(eps=recipe.eps, id="mine").published == recipe.published
    result = PublishedResult(1.0, 2.0)
    assert recipe.override(nb_epochs=5, published=result).published == result


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("{", ValueError, "is no TOML file"),
        ("id: a\nmethod: madry", ValueError, "is no TOML file"),
        ('id = "a"\nmethod = "madry"', ValueError, "lacks data, model"),
        (f"{LEAST}\nnb_epoch = 3", TypeError, "did you mean 'nb_epochs'"),
        (f"{LEAST}\nnb_epochs = 'many'", TypeError, "nb_epochs: expected a whole"),
        (f"{LEAST}\nkeep = 'last'", TypeError, r"keep at the top; expected it in the table \[run\]"),
        (f"{LEAST}\n[run]\neps = 0.1", TypeError, r"eps in the table \[run\]; expected it at the top"),
    ],
)
def test_a_bad_file_is_refused(text, error, match, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(error, match=match):
        Recipe.read(tmp_path / "r.toml")
    with pytest.raises(FileNotFoundError):
        Recipe.read(tmp_path / "other.toml")
    with pytest.raises(ValueError, match=r"expected a name that ends in .toml, got .*r.yaml"):
        RECIPES["digits-lbgat"].save(tmp_path / "r.yaml")


def test_ablations_differ_in_one_thing():
    base = RECIPES["digits-lbgat"]
    found = {name: ablation(name, base) for name in ABLATIONS}
    assert [r.guidance for r in found["guidance"].values()] == list(GUIDANCE)[:4]  # those of the paper
    assert [r.regularizer_weight for r in found["alpha"].values()] == [0, 1, 6, 9]
    assert {r.attack for r in found["alpha"].values()} == {"trades"}
    assert [r.guides for r in found["guide-depth"].values()] == [("small-cnn",), ("wrn-10-1",), ("wrn-16-1",)]
    assert [len(r.guides) for r in found["ensemble"].values()] == [1, 1, 2]
    assert {r.method for r in found["ensemble"].values()} == {"bgat"}
    assert [r.regularizer for r in found["regularizer"].values()] == [None, "alp", "trades", "trades"]
    for name in ("lbgat6-cifar100-wrn34-10", "bgat-cifar10-wrn34-10"):
        arms = ablation("guide-depth", RECIPES[name]).values()
        assert [r.guides for r in arms] == [("resnet-18-guide",), ("wrn-34-10",)]
    small = ablation("ensemble", RECIPES["cifar10-small-lbgat"])
    assert {r.guide_recipe for r in small.values()} == {"cifar10-small-natural"}
    both = ablation("ensemble", RECIPES["lbgat-cifar10-wrn34-10"])["ensemble of both"]
    assert (both.guides, both.for_guide().id) == (("wrn-34-10", "inception-resnet-v2"), "natural-cifar10")
    for name, recipe, message in (
        ("ensemble", "lbgat0-tiny-imagenet-wrn34-10", "base: lbgat0-tiny-imagenet-wrn34-10 has no natural recipe"),
        ("alhpa", "digits-lbgat", "did you mean 'alpha'"),
        ("alpha", "digits-madry", "base: expected a recipe of method 'lbgat' or 'bgat'"),
    ):
        with pytest.raises(ValueError, match=message):
            ablation(name, RECIPES[recipe])


def test_every_recipe_has_a_clear_objective():
    objectives = {name: RECIPES[name].objective for name in RECIPES}
    assert objectives["lbgat9-awp-cifar100-wrn34-10"] == "LBGAT + TRADES (a=9) + AWP"
    assert objectives["lbgat-alp-cifar10-wrn34-10"] == "LBGAT + ALP (a=1)"
    assert objectives["trades6-cifar10-wrn34-10"] == "TRADES (a=6)"
    assert objectives["mart-cifar10-wrn34-10"] == "MART (a=5)"
    assert RECIPES["digits-lbgat"].override(guidance="kl", ema_decay=0.9).objective == "LBGAT [kl] + EMA"
    assert all(re.fullmatch(r"[\w\[\]+() =.,-]+", text) for text in objectives.values())


def test_what_belongs_to_one_run_is_given_to_build(tmp_path):
    recipe = RECIPES["digits-bgat"].override(precision="bf16", keep_checkpoints=1)
    experiment = recipe.build(limit=100, seed=3, checkpoint_dir=tmp_path, verbose=False)
    options = experiment.trainer.options
    assert (options.checkpoint_dir, options.precision, options.seed, options.verbose) == (tmp_path, "bf16", 3, False)
    guide = recipe.for_guide()  # a frozen guide runs on the same host, by its own recipe
    assert (guide.run.precision, guide.run.keep_checkpoints, guide.run.eps_warmup_epochs) == ("bf16", 1, 0)
    with pytest.raises(TypeError, match=r"^run: keep is a field of the recipe; expected it in override\(keep=...\)"):
        recipe.build(keep="best")
    with pytest.raises(TypeError, match="did you mean 'checkpoint_dir'"):
        recipe.build(chekpoint_dir=tmp_path)
    with pytest.raises(TypeError, match="run: expected"):
        recipe.override(run={"keep": "best"})
    assert recipe.override(run=RunOptions(), awp_gamma=0.1).run == RunOptions(awp_gamma=0.1)
