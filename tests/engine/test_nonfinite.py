"""NaN and infinities: what is finite, and what a message says; runs are tried in qa/faults."""

import math

import pytest
import torch
from art_lbgat.engine.nonfinite import NonFiniteError, all_finite, describe
from torch import nn

from art_lbgat.engine.step import scale_learning_rates
from art_lbgat.fingerprint import described, differences
from qa.faults.training import Case


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_any_value_that_is_not_finite_is_found(value):
    for place in range(3):
        values = [torch.rand(4, 5), torch.zeros(()), torch.rand(2, dtype=torch.float64)]
        values[place].view(-1)[-1] = value
        assert not all_finite(values)


def test_sums_that_overflow_are_no_trouble():
    huge = torch.full((100,), 3e38)
    assert all_finite([huge, -huge])
    assert all_finite([torch.full((4,), 1e300, dtype=torch.float64)])


def test_the_message_names_samples_terms_and_rates():
    logits = torch.zeros(3, 2)
    logits[1, 0] = math.nan
    places = {"x": torch.zeros(3, 4), "adversarial logits": logits, "gradient of w": torch.tensor([[math.inf, 0.0]])}
    text = describe(places, torch.tensor([7, 5, 9]), {"ce": math.nan}, [0.1, 0.2], 3, 4)
    assert text == (
        "NaN or Inf in epoch 3, step 4: adversarial logits (samples 5); gradient of w (1 of 2 values). Terms: ce nan; "
        "learning rate 0.1, 0.2."
    )
    assert "rows 1 of the batch" in describe(places, None, {}, [0.1], 1, 1)
    many = {f"logits {i} logits": torch.full((20, 2), math.nan) for i in range(8)}
    text = describe(many, None, {}, [0.1], 1, 1)
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10 more of the batch" in text
    assert "and 3 more" in text
    assert "in another process" in describe({}, None, {}, [0.1], 1, 1)


def test_ten_steps_left_out_in_a_row_end_the_run():
    case = Case("madry", on_nonfinite="skip", awp_gamma=None)
    case.classifier.model[7].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteError, match=r"epoch 3, step 2: .* 10 steps in a row were left out"):
        case.fit(nb_epochs=5, validation_data=None)


def test_a_step_left_out_changes_nothing(tmp_path):
    case, before = Case("lbgat", on_nonfinite="skip", awp_gamma=None), []
    hooks = []

    def spoil(gradient):
        if len(before) == 1:
            return gradient * math.nan
        return None

    def remember(module, args):
        if module.training:
            before.append({k: v.clone() for k, v in module.state_dict().items()})

    hooks.append(case.classifier.model[7].weight.register_hook(spoil))
    case.classifier.model.register_forward_pre_hook(remember)
    case.fit(nb_epochs=1, validation_data=None, augmentation=None)
    first, second = before[:2]
    assert all(torch.equal(first[k], second[k]) for k in first)  # weights and batch-norm statistics
    assert any(not torch.equal(second[k], before[2][k]) for k in second)
    assert case.trainer.history.skipped_steps.item() == 1


def test_rates_of_nested_schedulers_are_lowered():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0)
    parts = [torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0), torch.optim.lr_scheduler.StepLR(optimizer, 1)]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    scale_learning_rates([optimizer], [scheduler], 0.5)
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["initial_lr"] == 0.5
    assert [part.base_lrs for part in parts] == [[0.5], [0.5]]


def test_a_model_that_collapses_to_one_class_is_reported(caplog):
    case = Case("natural", ema_decay=None, awp_gamma=None)
    with torch.no_grad():
        case.classifier.model[7].bias[2] = 1e4
    case.fit(validation_data=None)
    assert "the robust model gave class 2 for every sample of epoch 1: it has collapsed to a constant" in caplog.text
    assert case.trainer.history.only_class.tolist()[0] == 2
    healthy = Case("natural").fit()
    assert "only_class" not in healthy.trainer.history


def test_differences_name_what_changed():
    old, new = {"a": 1, "b": {"c": [1, 2], "d": "x"}}, {"a": 1, "b": {"c": [1, 3], "d": "y"}, "e": None}
    assert differences(old, new) == ["b.c[1]: 2 -> 3", "b.d: 'x' -> 'y'"]
    assert differences({"a": "0" * 64}, {"a": "1" * 64}) == ["a: '00000000000...' -> '11111111111...'"]
    assert described({"a": (1, math.inf), "b": torch.float32, "c": described}) == {
        "a": [1, "inf"],
        "b": "dtype",
        "c": "described",
    }
    assert described(torch.zeros(2)) != described(torch.ones(2))
