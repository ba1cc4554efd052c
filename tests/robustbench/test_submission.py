"""Submissions: files that RobustBench reads, rules that can fail, and nothing that looks standard if it is not."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest
import torch
from art.defences.postprocessor import HighConfidence
from art.defences.preprocessor import SpatialSmoothing
from torch import nn

from art_lbgat.evaluation.results import Accuracy
from art_lbgat.fingerprint import weights_sha256
from art_lbgat.robustbench import (
    BenchmarkResult,
    Paper,
    check_submission,
    export_submission,
    import_robustbench,
    leaderboard,
)
from art_lbgat.robustbench.submission import MODEL_ID
from tests.conftest import copied_state, make_classifier, states_equal
from tests.robustbench.results import made_result

MODEL = "Doe2024Testing_tiny"
PAPER = Paper("Testing Submissions", "https://arxiv.org/abs/2401.00001", "Jane Doe, John Roe", "arXiv, Jan 2024")
SHAPE = (3, 32, 32)


class Tiny(nn.Module):
    """Logits for CIFAR; ``act`` is what a test wants to happen in the forward pass."""

    def __init__(self, act=None, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 8 * 8, classes)
        self.act = act

    def forward(self, x):
        logits = self.fc(torch.tanh(self.norm(self.conv(x))).flatten(1))
        return logits if self.act is None else self.act(logits, x)


class WithBuffers(Tiny):
    """The same with the normalisation inside, as networks of the zoo have it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mu", torch.zeros(1, 3, 1, 1))
        self.register_buffer("sigma", torch.ones(1, 3, 1, 1))

    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)


def tiny(act=None, model=None, **kwargs):
    torch.manual_seed(0)
    return make_classifier(model or Tiny(act), shape=SHAPE, classes=10, **kwargs)


def judged(classifier, **changes):
    """What a standard benchmark of the classifier could have found."""
    values = {"model_name": "tiny", "architecture": "Tiny-3", "natural": Accuracy(8870, 10_000),
              "robust": Accuracy(5357, 10_000), "seed": 3, "batch_size": 50, "versions": {"torch": "2.0"},
              "weights_sha256": weights_sha256(classifier.model)}  # fmt: skip
    return made_result(**{**values, **changes})


def export(classifier, folder, result=None, **changes):
    options = {"paper": PAPER, "model_id": MODEL, "additional_data": False, **changes}
    return export_submission(result or judged(classifier), classifier, folder, **options)


def loaded(path):
    return torch.load(path, weights_only=True)  # noqa: TID251


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def failed(classifier, result=None):
    checks = check_submission(result or judged(classifier), classifier, MODEL)
    return checks["rule"][~checks["passed"]].tolist()


def test_a_standard_submission(tmp_path):
    classifier = tiny()
    made = export(classifier, tmp_path, reported=0.54, footnote="A note.", force=True)  # which marks nothing standard
    texts = f"submissions/cifar10/Linf/{MODEL}"
    paths = [f"model_info/cifar10/Linf/{MODEL}.json", f"models/cifar10/Linf/{MODEL}.pt"]
    assert files(tmp_path) == [*paths, f"{texts}/issue.md", f"{texts}/result.json"]
    assert made.standard
    assert made.checks["passed"].tolist() == [True] * 11
    assert BenchmarkResult.load(made.result) == judged(classifier)
    assert list(json.loads(made.model_info.read_text()).items()) == [
        ("link", PAPER.url), ("name", PAPER.title), ("authors", PAPER.authors), ("additional_data", False),
        ("number_forward_passes", 1), ("dataset", "cifar10"), ("venue", PAPER.venue), ("architecture", "Tiny-3"),
        ("eps", "8/255"), ("clean_acc", "88.70"), ("reported", "54.00"), ("autoattack_acc", "53.57"),
        ("footnote", "A note."), ("unreliable", False),
    ]  # fmt: skip


def test_the_json_of_other_boards(tmp_path):
    classifier = tiny()
    corrupted = judged(classifier, threat_model="corruptions", eps=None, robust=Accuracy(600_000, 750_000))
    info = json.loads(export(classifier, tmp_path, corrupted).model_info.read_text())
    assert (info["eps"], info["corruptions_acc"], info["reported"]) == (None, "80.00", "")
    assert not {"autoattack_acc", "unreliable", "footnote"} & set(info)
    flat = judged(classifier, threat_model="L2", eps=0.5, flags={"square stronger": "by 0.3 %"})
    made = export(classifier, tmp_path, flat)
    info = json.loads(made.model_info.read_text())
    assert (info["eps"], info["unreliable"]) == ("0.5", True)
    assert "square stronger (by 0.3 %)" in made.issue.read_text()
    result = judged(classifier, dataset="imagenet", threat_model="corruptions_3d", eps=None,
                    natural=Accuracy(4000, 5000), robust=Accuracy(150_000, 300_000))  # fmt: skip
    made = export(classifier, tmp_path, result, force=True)
    assert made.model_info.parent == tmp_path / "model_info" / "imagenet" / "corruptions"
    assert json.loads(made.model_info.read_text())["corruptions_acc_3d"] == "50.00"
    assert made.checks["rule"][~made.checks["passed"]].tolist() == ["inputs and classes of imagenet"]


def test_the_issue_is_filled_in(tmp_path):
    text = export(tiny(), tmp_path, additional_data=True, number_forward_passes=2).issue.read_text()
    for line in (
        "<!-- Title: [New Model] Doe2024Testing_tiny -->", "- **Paper Title**: Testing Submissions",
        "- **Paper URL**: https://arxiv.org/abs/2401.00001", "- **Paper authors**: Jane Doe, John Roe",
        "- **Architecture**: Tiny-3", "- **Threat Model**: Linf", "- **eps**: 8/255", "- **Clean accuracy**: 88.70 %",
        "- **Robust accuracy**: 53.57 %", "- **Additional data**: true", "- **Number of forward passes**: 2",
        "- **Checkpoint and code**: (to be filled in)",
    ):  # fmt: skip
        assert f"\n{line}\n" in f"\n{text}"
    assert "AutoAttack on 10,000 images, seed 3, batches of 50; RobustBench standard; flags: none; torch 2.0\n" in text
    zoo = text.partition("# Model Zoo")[2].partition("# Checks")[0]
    assert zoo.count("- [ ]") == 4  # nothing is agreed to that nobody agreed to
    assert "[x]" not in zoo
    assert text.partition("# Checks")[2].count("- [x]") == 11
    assert "NOT_STANDARD" not in text
    url = "https://example.org/"
    options = {"add_to_zoo": True, "architecture_url": url + "net", "checkpoint_url": url + "pt", "footnote": "Note."}
    text = export(tiny(), tmp_path / "mit", model_license="MIT", architecture="WRN", **options).issue.read_text()
    for line in (
        "- [x] Add this model", "- [x] Its architecture is in neither RobustBench nor timm: https://example.org/net",
        "- [x] The model is released under the MIT", "- [ ] under a licence of its own", "- **Architecture**: WRN",
        "- **Checkpoint and code**: https://example.org/pt\n- **Footnote**: Note.\n\n# Model Zoo",
    ):  # fmt: skip
        assert line in text
    text = export(tiny(), tmp_path / "own", model_license=url + "licence").issue.read_text()
    assert "- [x] under a licence of its own: https://example.org/licence" in text


def through_robustbench(monkeypatch, build, folder):
    """The checkpoint as RobustBench itself reads it, for a zoo that has the network."""
    package = import_robustbench()
    zoo = package.model_zoo.model_dicts
    dataset = next(each for each in zoo if each.value == "cifar10")
    threat_model = next(each for each in zoo[dataset] if each.value == "Linf")
    monkeypatch.setitem(zoo[dataset][threat_model], MODEL, {"model": build, "gdrive_id": "none"})
    return package.load_model(MODEL, model_dir=str(folder / "models"), dataset="cifar10", threat_model="Linf")


def test_robustbench_loads_the_checkpoint(tmp_path, monkeypatch):
    classifier = tiny()
    made = export(classifier, tmp_path)
    assert states_equal(loaded(made.checkpoint), classifier.model.state_dict())
    model = through_robustbench(monkeypatch, Tiny, tmp_path)
    x = np.random.default_rng(0).random((4, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(model(torch.from_numpy(x)).detach().numpy(), classifier.predict(x))


@pytest.mark.parametrize(
    ("preprocessing", "clip_values"),
    [
        ((np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])), (0.0, 1.0)),
        ((0.5, 0.25), (0.0, 1.0)),
        ((np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])), (0.0, 255.0)),
        (None, (-1.0, 1.0)),
    ],
)
def test_normalisation_goes_into_the_checkpoint(tmp_path, monkeypatch, preprocessing, clip_values):
    classifier = tiny(preprocessing=preprocessing, clip_values=clip_values)
    made = export(classifier, tmp_path)
    assert made.standard
    low, high = clip_values
    unit = np.random.default_rng(0).random((4, *SHAPE)).astype(np.float32)
    expected = classifier.predict(unit * (high - low) + low)
    theirs = through_robustbench(monkeypatch, WithBuffers, tmp_path)
    got = theirs(torch.from_numpy(unit)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(Tiny.forward(theirs, torch.from_numpy(unit)).detach().numpy() - expected).max() > 1e-2


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path):
    defences = {
        "preprocessing_defences": SpatialSmoothing(channels_first=True),
        "postprocessing_defences": HighConfidence(),
    }
    with pytest.raises(ValueError, match="would not give the same numbers without SpatialSmoothing, HighConfidence"):
        export(tiny(**defences), tmp_path, force=True)
    assert files(tmp_path) == []


def differentiate(logits, x):
    with torch.enable_grad():
        inner = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(inner.square().sum(), inner)
    return logits + gradient.mean()


BROKEN = {
    "deterministic forward pass": lambda logits, x: logits + 0.1 * torch.randn_like(logits),
    "no autograd call in the forward pass": differentiate,
    "logits, not probabilities": lambda logits, x: logits.softmax(dim=1),
    "finite logits": lambda logits, x: torch.where(x.flatten(1)[:, :1] > 0.2, logits, torch.nan),
    "gradients at the inputs": lambda logits, x: logits.detach(),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_can_fail(tmp_path, rule):
    classifier = tiny(BROKEN[rule])
    assert rule in failed(classifier)
    if rule != "finite logits":
        others = {"deterministic forward pass": ["logits of the checkpoint"]}
        assert failed(classifier) == [rule, *others.get(rule, [])]
    with pytest.raises(ValueError, match=f"not fit for the leaderboard .*{rule}: "):
        export(classifier, tmp_path)
    assert files(tmp_path) == []


def test_gradients_that_rounding_removes():
    classifier = tiny(lambda logits, x: logits.round() + 0 * logits)
    checks = check_submission(judged(classifier), classifier, MODEL).set_index("rule")
    assert checks.loc["gradients at the inputs"].tolist() == [False, "zero at 16 of 16 inputs"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"natural": Accuracy(80, 100), "robust": Accuracy(50, 100)}, "the standard of RobustBench"),
        ({"differences": ("custom attacks",)}, "the standard of RobustBench"),
        ({"dataset": "cifar100"}, "inputs and classes of cifar100"),
        ({"dataset": "imagenet", "threat_model": "L2"}, "there is a leaderboard"),
        ({"weights_sha256": "f" * 64}, "the weights that were evaluated"),
        ({"flags": {"randomised": "seen once"}}, "deterministic forward pass"),
        ({"flags": {"non-finite logits": "seen once"}}, "finite logits"),
    ],
)
def test_a_result_that_breaks_a_rule(changes, rule):
    classifier = tiny()
    assert failed(classifier) == []
    assert rule in failed(classifier, judged(classifier, **changes))


def test_every_reason_is_listed(tmp_path):
    classifier = tiny(BROKEN["logits, not probabilities"])
    result = judged(classifier, eps=0.031, weights_sha256="f" * 64)
    reasons = (
        "eps 0.031 instead of 8/255.*Cui2020Learnable_34_10 is taken.*weights that were evaluated.*logits, not prob"
    )
    with pytest.raises(ValueError, match=reasons):
        export(classifier, tmp_path, result, model_id="Cui2020Learnable_34_10")


def test_forced_files_are_all_marked(tmp_path):
    classifier = tiny()
    result = judged(classifier, eps=0.031, differences=("eps 0.031 instead of 8/255", "custom attacks"))
    made = export(classifier, tmp_path, result, force=True, footnote="A note.")
    assert not made.standard
    assert len(files(tmp_path)) == 4
    assert all("NOT_STANDARD" in name.rpartition("/")[2] for name in files(tmp_path))
    info = json.loads(made.model_info.read_text())
    assert info["eps"] == "0.031"
    assert info["footnote"] == (
        "NOT_STANDARD: the standard of RobustBench: eps 0.031 instead of 8/255; custom attacks. A note."
    )
    issue = made.issue.read_text()
    assert "**NOT_STANDARD**" in issue.partition("# Paper Information")[0]
    assert "- [ ] the standard of RobustBench: eps 0.031 instead of 8/255; custom attacks" in issue
    assert "batches of 50; not RobustBench standard: eps 0.031 instead of 8/255; custom attacks; flags" in issue
    assert "not RobustBench standard" in json.loads(made.result.read_text())["label"]


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "submissions" / "cifar10" / "Linf" / MODEL / "issue.md"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    with pytest.raises(FileExistsError, match=rf"nothing was written.*{path}"):
        export(tiny(), tmp_path, force=True)
    assert [tmp_path / name for name in files(tmp_path)] == [path]
    assert path.read_text() == "old"


def test_a_failure_in_the_middle_leaves_no_file(tmp_path, monkeypatch):
    calls = []

    def fails(_):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        export(tiny(), tmp_path)
    assert files(tmp_path) == []


def test_the_form_of_ids():
    ids = {name for board in (("cifar10", "Linf"), ("cifar10", "L2"), ("cifar100", "Linf"), ("imagenet", "Linf"))
           for name in leaderboard(*board)["model_id"]}  # fmt: skip
    assert {name for name in ids if not MODEL_ID.fullmatch(name)} == {"Standard", "Standard_R50"}
    for name in ("doe2024Testing", "Doe24Testing", "Doe2024", "Doe2024Testing\n", "../Doe2024Testing"):
        assert not MODEL_ID.fullmatch(name)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"number_forward_passes": 0}, ValueError, "number_forward_passes"),
        ({"additional_data": "no"}, TypeError, "additional_data: expected a bool, got 'no'"),
        ({"reported": 53.57}, ValueError, r"reported: expected an accuracy in \[0, 1\], got 53.57"),
        ({"footnote": "two\nlines"}, ValueError, "footnote: expected one line"),
        ({"architecture": " "}, ValueError, "architecture: expected one line"),
        ({"checkpoint_url": "drive/x"}, ValueError, "checkpoint_url: expected a URL"),
        ({"model_license": "GPL"}, ValueError, "model_license: expected a URL"),
    ],
)
def test_what_is_said_is_checked(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        export(tiny(), tmp_path, **changes)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value"), [("title", ""), ("authors", "a\nb"), ("venue", None), ("url", "arxiv.org/abs/1")]
)
def test_a_paper_is_checked(field, value):
    with pytest.raises(ValueError, match=re.escape(f"paper.{field}: expected")):
        dataclasses.replace(PAPER, **{field: value})


@pytest.mark.parametrize("ambient", [torch.no_grad, torch.inference_mode])
def test_the_classifier_is_left_as_it_was(tmp_path, ambient):
    classifier = tiny(BROKEN["deterministic forward pass"])
    classifier.model.train()
    classifier.model.conv.weight.requires_grad_(False)
    before, drawn = copied_state(classifier.model), torch.get_rng_state()
    with ambient():
        made = export(classifier, tmp_path, force=True)
    assert made.checks.set_index("rule").loc["gradients at the inputs", "passed"]
    assert states_equal(classifier.model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert classifier.model.training
    assert classifier.model.norm.training
    assert [p.requires_grad for p in classifier.model.parameters()].count(False) == 1
    assert not any(isinstance(value, nn.Parameter) for value in loaded(made.checkpoint).values())


def test_state_that_is_no_tensor_is_refused(tmp_path):
    classifier = tiny()
    classifier.model.register_state_dict_post_hook(lambda module, state, prefix, _: state.update(step=1))
    with pytest.raises(ValueError, match="expected tensors with values in its state dict, got int under 'step'"):
        export(classifier, tmp_path)
    assert files(tmp_path) == []
