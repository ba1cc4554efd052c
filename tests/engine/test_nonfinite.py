"""NaN and infinities: what is finite, and what a message says; runs are tried in qa/faults."""

import math

import pytest
import torch
from torch import nn

from art_lbgat.engine.step import NonFiniteError, all_finite, describe
from art_lbgat.fingerprint import described, differences
from tests.conftest import make_classifier, states_equal
from tests.trainers.cases import Case


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


def test_the_message_names_rows_terms_and_rates():
    logits = torch.zeros(3, 2)
    logits[1, 0] = math.nan
    optimizers = [make_classifier(lr=lr).optimizer for lr in (0.1, 0.2)]
    places = {"x": torch.zeros(3, 4), "adversarial logits": logits, "gradient of w": torch.tensor([[math.inf, 0.0]])}
    assert describe(places, {"ce": math.nan}, optimizers, 3, 4) == (
        "NaN or Inf in epoch 3, step 4: adversarial logits (rows 1 of the batch); gradient of w (1 of 2 values). "
        "Terms: ce nan; learning rate 0.1, 0.2."
    )
    text = describe({f"{i} logits": torch.full((20, 2), math.nan) for i in range(8)}, {}, optimizers, 1, 1)
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10 more of the batch" in text
    assert "and 3 more" in text
    assert "in another process. Terms: none" in describe({}, {}, optimizers, 1, 1)


def test_the_step_that_finds_it_moves_no_weight():
    case, before = Case("lbgat", awp_gamma=None), []

    def remember(module, args):
        if module.training:
            before.append({k: v.clone() for k, v in module.named_parameters()})

    case.classifier.model.register_forward_pre_hook(remember)
    case.classifier.model[0].weight.register_hook(lambda g: g * math.nan if len(before) == 2 else None)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 2: gradient of student.0.weight \(54 of 54 values\)"):
        case.fit(validation_data=None)
    now = dict(case.classifier.model.named_parameters())
    assert states_equal(before[1], now)
    assert not states_equal(before[0], now)


# the method, its options, and what is advised
COLLAPSED = {
    "natural": ("natural", {}, "Natural may want a learning rate below 0.02 or max_grad_norm=5."),
    "BGAT": ("bgat", {}, "BGAT may want a learning rate below 0.02 or max_grad_norm=5 or eps_warmup=0.3."),
    "LBGAT": ("lbgat", {"max_grad_norm": 9.0, "eps_warmup_epochs": 9}, "below 0.02 or a larger guide_ce_weight."),
}


@pytest.mark.parametrize(("name", "options", "advice"), COLLAPSED.values(), ids=COLLAPSED)
@pytest.mark.parametrize(
    ("ruined", "said"), [([1, 2, 3, 4], [2, 4]), ([1], []), ([2, 3], [3]), ([1, 3], []), ([4], [4]), ([], [])]
)
def test_a_model_that_stays_collapsed_is_reported_with_the_remedy_of_its_method(
    name, options, advice, ruined, said, caplog
):
    """Early epochs of one class are no news; two in a row, or the last one, are."""
    case = Case(name, ema_decay=None, awp_gamma=None, **options)

    def constant(module, args, logits):
        ruin = 1 + len(case.trainer.history) in ruined
        return 1e-6 * logits + (torch.arange(4) == 2) if ruin else logits

    case.classifier.model.register_forward_hook(constant)
    case.fit(validation_data=None, scheduler=None, nb_epochs=4)
    history = case.trainer.history
    assert history.get("only_class", history.epoch * math.nan).dropna().tolist() == [2] * len(ruined)
    told = [f"class 2 for every sample of epoch {epoch}: it has collapsed to a constant" for epoch in said]
    assert [each in caplog.text for each in told] == [True] * len(said)
    assert caplog.text.count("collapsed to a constant") == caplog.text.count(advice) == len(said)


def test_settings_that_differ_are_named():
    old, new = {"a": 1, "b": {"c": [1, 2], "d": "x"}}, {"a": 1, "b": {"c": [1, 3], "d": "y"}, "e": None}
    assert differences(old, new) == ["b.c[1]: 2 -> 3", "b.d: 'x' -> 'y'"]
    assert differences({"a": "0" * 64}, {"a": "1" * 64}) == ["a: '00000000000...' -> '11111111111...'"]
    values = {"a": (1, math.inf), "b": torch.float32, "c": described, "d": nn.ReLU(), "e": torch.tensor(2.5)}
    found = described(values)
    assert {**found, "d": found["d"]["type"]} == {
        "a": [1, "inf"],
        "b": "dtype",
        "c": "described",
        "d": "ReLU",
        "e": 2.5,
    }
    assert described(torch.zeros(2)) != described(torch.ones(2))
