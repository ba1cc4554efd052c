"""Weights: released layouts load strictly and give equal logits; anything else is refused and changes nothing."""

import argparse
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from art_lbgat.models import create_model
from art_lbgat.robustbench_import import import_architecture
from art_lbgat.weights import load_weights, save_weights
from tests.conftest import conv_net, copied_state, states_equal


def trained(model):
    """In eval mode, with running statistics as training leaves them."""
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model.eval()


def toy(seed=0, **kwargs):
    torch.manual_seed(seed)
    return trained(create_model("wrn-10-1", 10, **kwargs))


@pytest.fixture(scope="module")
def released():
    """RobustBench's own network of the released layout, and what it says about some images."""
    torch.manual_seed(5)
    net = trained(import_architecture("wide_resnet").WideResNet(depth=10, widen_factor=1, sub_block1=True))
    x = torch.rand(3, 3, 32, 32)
    return copied_state(net), x, net(x).detach()


WRAPPED = [("", None), ("module.", "state_dict"), ("module.module.", None), ("_orig_mod.", "model"), ("module._orig_mod.", "model_state_dict"), ("", "net"), ("model.", "state_dict"), ("net.backbone.", "net")]  # fmt: skip


@pytest.mark.parametrize(("prefix", "container"), WRAPPED)
def test_released_layout_gives_equal_logits(released, tmp_path, prefix, container):
    state, x, logits = released
    saved = {prefix + name: value for name, value in state.items()}
    saved = saved if container is None else {"epoch": 91, container: saved}
    torch.save(saved, tmp_path / "opt-cifar10.pt")
    for weights in (tmp_path / "opt-cifar10.pt", str(tmp_path / "opt-cifar10.pt"), saved):
        model = create_model("wrn-10-1", 10, sub_block1=True, weights=weights).eval()
        assert states_equal(model.state_dict(), state)
        assert torch.equal(model(x), logits)


@pytest.mark.parametrize(("classes", "dead"), [(10, "4.36%"), (100, "4.35%")])
def test_released_layout_of_full_size(classes, dead):
    published = import_architecture("wide_resnet").WideResNet
    with torch.device("meta"):
        model = create_model("wrn-34-10", classes, sub_block1=True)
        published = published(depth=34, widen_factor=10, sub_block1=True, num_classes=classes)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, classes)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in published.state_dict().items()}
    count = {name: value.numel() for name, value in model.named_parameters()}
    unused = sum(n for name, n in count.items() if name.startswith("sub_block1."))
    assert f"{unused / sum(count.values()):.2%}" == dead
    assert len([name for name in shapes if name.startswith("sub_block1.")]) == 61


BLOCK = {name: None for name in toy(sub_block1=True).state_dict() if name.startswith("sub_block1.")}
MISMATCHES = {
    "a block too many": ("wrn-10-1", {}, {}, r'Unexpected key.*"sub_block1.layer.0.bn1.weight".* build the model with sub_block1=True'),
    "width": ("wrn-10-2", {"sub_block1": True}, {}, r"size mismatch for block1.layer.0.conv1.weight: .*\[16, 16, 3, 3\].*\[32, 16, 3, 3\]"),
    "depth": ("wrn-16-1", {"sub_block1": True}, {}, r'Missing key.*"block1.layer.1\.'),
    "architecture": ("resnet-18", {}, {}, "Missing key.*Unexpected key"),
    "classes": ("wrn-10-1", {"sub_block1": True, "nb_classes": 100}, {}, r"size mismatch for fc.weight: .*\[10, 64\].*\[100, 64\]"),
    "one tensor": ("wrn-10-1", {"sub_block1": True}, {"fc.bias": torch.zeros(9)}, r"nothing was loaded. size mismatch for fc.bias: .*\[9\].*\[10\]"),
    "a name twice": ("wrn-10-1", {"sub_block1": True}, {"module.fc.bias": torch.zeros(10)}, "holds 'fc.bias' twice"),
    "a block too few": ("wrn-10-1", {"sub_block1": True}, BLOCK, r'Missing key.*"sub_block1.layer.0.bn1.weight".* build the model with sub_block1=False'),
    "one missing": ("wrn-10-1", {"sub_block1": True}, {"fc.bias": None}, r'nothing was loaded. Missing key\(s\) in state_dict: "fc.bias"\.'),
}  # fmt: skip


@pytest.mark.parametrize("case", MISMATCHES)
def test_what_does_not_fit_is_named_and_changes_nothing(released, case):
    name, options, changes, message = MISMATCHES[case]
    state = {key: value for key, value in {**released[0], **changes}.items() if value is not None}
    model = create_model(name, **{"nb_classes": 10, **options})
    before = copied_state(model)
    with pytest.raises(ValueError, match=message):
        load_weights(model, state)
    assert states_equal(model.state_dict(), before)


def test_prefix_that_the_model_has_itself_is_kept():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    source, model = Holder(), Holder()
    load_weights(model, source.state_dict())
    assert states_equal(model.state_dict(), source.state_dict())
    load_weights(model, {f"module.{name}": value + 1 for name, value in source.state_dict().items()})
    assert torch.equal(model.module.bias, source.module.bias + 1)


def test_round_trip_through_safetensors(tmp_path):
    model, path = toy().to(memory_format=torch.channels_last), tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    save_weights(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert states_equal(load_file(path), model.state_dict())
    path.rename(tmp_path / "model.pt")  # told by its content
    other = toy(1)
    load_weights(other, tmp_path / "model.pt")
    assert states_equal(other.state_dict(), model.state_dict())


def test_tied_weights_are_saved_under_both_names(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    save_weights(model, tmp_path / "tied.safetensors")
    load_weights(model, tmp_path / "tied.safetensors")
    (tmp_path / "other").touch()  # which whoever may read others may read
    assert (tmp_path / "tied.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert set(load_file(tmp_path / "tied.safetensors")) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        save_weights(conv_net(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_models_and_places_that_do_not_do_are_refused(tmp_path):
    meta = nn.Linear(2, 2, device="meta")
    with pytest.raises(FileNotFoundError, match=r"no directory .*absent"):
        save_weights(conv_net(), tmp_path / "absent" / "model.safetensors")
    with pytest.raises(IsADirectoryError, match="path: expected a file, got the directory"):
        save_weights(conv_net(), tmp_path)
    with pytest.raises(ValueError, match="meta device under 'weight'"):
        save_weights(meta, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="meta device"):
        load_weights(meta, nn.Linear(2, 2).state_dict())


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trap-was-run"),)


def test_files_that_need_objects_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = nn.Linear(2, 2).state_dict()
    for value in (argparse.Namespace(lr=0.1), Trap(), nn.Linear(2, 2)):
        for zipped in (True, False):
            torch.save({"state_dict": state, "value": value}, "objects.pt", _use_new_zipfile_serialization=zipped)
            with pytest.raises(ValueError, match=r"objects\.pt holds objects other than tensors \([\w.]+\)"):
                load_weights(nn.Linear(2, 2), "objects.pt")
    assert not Path("trap-was-run").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_files_are_named(tmp_path, kind, share):
    path, model = tmp_path / "cut.pt", toy()
    if kind == "safetensors":
        save_weights(model, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    before = copied_state(model)
    with pytest.raises(ValueError, match=r"cut\.pt cannot be read, it is truncated or damaged"):
        load_weights(model, path)
    assert states_equal(model.state_dict(), before)


def test_other_files_are_named(tmp_path):
    model = nn.Linear(2, 2)
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    (tmp_path / "empty.safetensors").touch()
    torch.save([torch.zeros(2)], tmp_path / "rows.pt")
    for weights, error, message in (
        ("page.pt", ValueError, r"page\.pt.*a web page"),
        ("empty.safetensors", ValueError, r"empty\.safetensors, which starts with b''"),
        ("rows.pt", ValueError, r"expected a state dict in .*rows\.pt, got list"),
        ("absent.pt", FileNotFoundError, r"no file .*absent\.pt"),
        ("", ValueError, "got the directory"),
        (3, TypeError, "weights: expected a path, got 3"),
        ({"ema": model.state_dict()}, ValueError, "got OrderedDict under 'ema' in the state dict"),
    ):
        with pytest.raises(error, match=message):
            load_weights(model, tmp_path / weights if isinstance(weights, str) else weights)


def normed(old):
    """A net with weight norm, in torch's older layout or the present one."""
    torch.manual_seed(2)
    norm = torch.nn.utils.weight_norm if old else torch.nn.utils.parametrizations.weight_norm
    return nn.Sequential(norm(nn.Linear(4, 3)), nn.BatchNorm1d(3))


OLDER = {  # what torch's own strict loading takes: the file's net, what is done to its names, the model's net
    "no counters": (conv_net, lambda state: {k: v for k, v in state.items() if "tracked" not in k}, conv_net),
    "no counters, wrapped": (
        conv_net, lambda state: {f"module.{k}": v for k, v in state.items() if "tracked" not in k}, conv_net),
    "weight norm": (lambda: normed(True), dict, lambda: normed(False)),
    "scalars of torch 0.3": (
        conv_net, lambda state: {k: v[None] if v.ndim == 0 else v for k, v in state.items()}, conv_net),
    "half precision": (conv_net, lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()}, conv_net),
    "counters as floats": (conv_net, lambda state: {k: v.float() for k, v in state.items()}, conv_net),
}  # fmt: skip


@pytest.mark.parametrize("case", OLDER)
@pytest.mark.parametrize("written", [False, True])
def test_layouts_that_torch_upgrades_load_as_in_torch(case, written, tmp_path):
    source, change, target = OLDER[case]
    torch.manual_seed(1)
    made = trained(source())
    state, expected, model = change(made.state_dict()), target(), target()
    expected.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=True)
    if written:
        torch.save(state, tmp_path / "old.pt")
    load_weights(model, tmp_path / "old.pt" if written else state)
    assert states_equal(model.state_dict(), expected.state_dict())


def changed(name, value):
    return lambda state: {**state, name: value(state[name])}


BAD_VALUES = {
    "NaN": (changed("0.weight", lambda v: v * float("nan")), r"holds NaN or Inf under '0.weight'"),
    "NaN in a buffer": (
        changed("1.running_var", lambda v: v * float("nan")),
        r"holds NaN or Inf under '1.running_var'",
    ),
    "Inf": (changed("7.bias", lambda v: v + float("inf")), r"holds NaN or Inf under '7.bias'"),
    "whole": (changed("7.weight", lambda v: (v * 100).long()), r"holds torch.int64 under '7.weight'; expected floats"),
    "bytes": (changed("0.weight", lambda v: v.char()), r"holds torch.int8 under '0.weight'; expected floats"),
    "wrong layout of a hook": (lambda state: {**state, "0.weight_g": torch.zeros(1)}, r'Unexpected key.*"0.weight_g"'),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_values_that_no_training_left_are_refused_and_change_nothing(case):
    change, message = BAD_VALUES[case]
    model = conv_net()
    before = copied_state(model)
    with pytest.raises(ValueError, match=message):
        load_weights(model, change(conv_net().state_dict()))
    assert states_equal(model.state_dict(), before)


def test_a_buffer_may_be_infinite():
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    model = Masked()
    load_weights(model, Masked().state_dict())
    assert model.mask[1] == -torch.inf
