"""What a guided trainer does where nothing is said, and that the paper's setting is one word away."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer
from art_lbgat.losses import with_rms
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import OPTIONS, another, pgd


def steps_of(kind, make_attack=pgd, nb_epochs=4, **options):
    """What the steps of a training were, and the norms of their gradients."""
    classifier, steps, norms = make_classifier(lr=0.5), [], []

    def kept(step):
        parameters = [p for group in classifier.optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.cat([p.grad.flatten() for p in parameters]).norm()))
        steps.append(step)

    given = [] if kind is MadryTrainer else [another(classifier)]
    trainer = kind(classifier, *given, make_attack(classifier), on_step=kept, **{**OPTIONS, **options})
    trainer.fit(*make_data(16), nb_epochs=nb_epochs, batch_size=16)
    return steps, norms


@pytest.mark.parametrize("kind", [BGATTrainer, LBGATTrainer])
def test_the_default_is_mse_and_ce_with_clipping_and_a_growing_eps(kind):
    steps, norms = steps_of(kind)
    assert {"guidance_mse", "adversarial_ce"} <= set(steps[0].terms)
    reach = [float((step.x_adv - step.x).abs().max()) for step in steps]
    assert reach[0] == pytest.approx(0.03 * 0.125 / 0.3, rel=1e-3)  # in the middle of the first of four steps
    assert reach[1:] == pytest.approx([0.03] * 3, rel=1e-3)
    assert max(norms) <= 5.0 * 1.001
    logits, terms = steps[-1].logits, steps[-1].terms
    guide = with_rms(logits["guide"], 1.0) if kind is BGATTrainer else logits["guide"]
    assert terms["guidance_mse"].value.item() == pytest.approx(float(((logits["adversarial"] - guide) ** 2).mean()))


@pytest.mark.parametrize("kind", [BGATTrainer, LBGATTrainer])
def test_the_papers_setting_is_one_word_away(kind):
    steps, _ = steps_of(kind, preset="paper")
    assert "adversarial_ce" not in steps[0].terms
    assert all(float((step.x_adv - step.x).abs().max()) == pytest.approx(0.03, rel=1e-3) for step in steps)
    logits = steps[0].logits
    expected = float(((logits["adversarial"] - logits["guide"]) ** 2).mean())
    assert steps[0].terms["guidance_mse"].value.item() == pytest.approx(expected)


def test_what_is_said_wins_over_the_preset():
    steps, norms = steps_of(BGATTrainer, max_grad_norm=0.25, eps_warmup=0.0, guidance="mse")
    assert norms == pytest.approx([0.25] * 4, rel=1e-3)
    assert float((steps[0].x_adv - steps[0].x).abs().max()) == pytest.approx(0.03, rel=1e-3)
    logits = steps[0].logits  # the scale of the preset belongs to its guidance
    expected = float(((logits["adversarial"] - logits["guide"]) ** 2).mean())
    assert steps[0].terms["guidance_mse"].value.item() == pytest.approx(expected)
    steps, norms = steps_of(BGATTrainer, nb_epochs=1, max_grad_norm=math.inf, eps_warmup_epochs=2, guide_rms=50.0)
    assert max(norms) > 5.0
    assert float((steps[0].x_adv - steps[0].x).abs().max()) == pytest.approx(0.015, rel=1e-3)


def test_other_methods_neither_clip_nor_warm_up():
    steps, _ = steps_of(MadryTrainer)
    assert float((steps[0].x_adv - steps[0].x).abs().max()) == pytest.approx(0.03, rel=1e-3)


def test_an_attack_that_cannot_follow_a_warm_up_goes_without():
    def arts(classifier):
        return ProjectedGradientDescent(classifier, eps=0.03, eps_step=0.01, max_iter=2, decay=0.5, verbose=False)

    steps, _ = steps_of(LBGATTrainer, arts, nb_epochs=1)
    assert float((steps[0].x_adv - steps[0].x).abs().max()) <= 0.03 * 1.001
    with pytest.raises(ValueError, match="eps_warmup: expected 0 for an attack that runs through"):
        steps_of(LBGATTrainer, arts, nb_epochs=1, eps_warmup=0.5)


def test_logits_of_an_rms_predict_alike():
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)) * 40 + 7
    scaled = with_rms(logits, 2.0)
    assert torch.equal(scaled.argmax(dim=1), logits.argmax(dim=1))
    assert scaled.mean(dim=1).abs().max() < 1e-5
    assert torch.allclose(scaled.square().mean(dim=1).sqrt(), torch.full((6,), 2.0))
    assert torch.isfinite(with_rms(torch.zeros(2, 10), 1.0)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "papers"}, "preset: expected one of .*did you mean 'paper'"),
        ({"guide_rms": 0.0}, "guide_rms: expected a finite number > 0, got 0.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm: expected a finite number > 0, got 0.0"),
        ({"eps_warmup": 2.0}, r"eps_warmup: expected a share of the run in \[0, 1\], got 2.0"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BGATTrainer(make_classifier(), make_classifier(seed=1), **options, **OPTIONS)


def test_the_script_of_the_page_trains_an_arm_and_draws_its_table():
    path = Path(__file__).parents[2] / "scripts" / "when_a_guide_helps.py"
    spec = importlib.util.spec_from_file_location("when_a_guide_helps", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    row = script.run("control: labels as guide", "MLP", 0.05, 128, 2, 0)
    assert 0.1 < row["natural"] <= 1.0
    text = script.table([row])
    assert f"| control: labels as guide | {100 * row['natural']:.1f} / {100 * row['pgd-20']:.1f} |" in text
    assert len(script.plan("rates", 2)) == 2 * 3 * 4 * len(script.ARMS)
