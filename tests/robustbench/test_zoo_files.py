"""Weights of the zoo that cannot be had, cannot be read or do not fit: one error names the file; nothing half is left."""

import argparse
from pathlib import Path
from urllib.error import URLError

import gdown
import pytest
import torch
import torchvision

from art_lbgat.robustbench import import_robustbench, load_classifier
from art_lbgat.robustbench.zoo import find_entry, load_network
from tests.conftest import states_equal
from tests.robustbench.zoo_nets import put, tiny

pytestmark = pytest.mark.usefixtures("no_network")


def raising(error):
    def download(*_, output, **__):
        Path(f"{output}abc.part").write_bytes(b"half")
        raise error

    return download


def writing(content):
    def download(*_, output, **__):
        Path(output).write_bytes(content)

    return download


@pytest.mark.parametrize(
    ("download", "message"),
    [
        (raising(OSError("no route")), "OSError: no route"),
        (raising(gdown.exceptions.FileURLRetrievalError("Too many users\n have viewed")), "FileURLRetrievalError: Too many users have"),
        (writing(b"<!DOCTYPE html><html>Quota exceeded"), r"got what came, which starts with .* \(a web page"),
        (writing(b"PK\x03\x04" + b"\0" * 90), "what came cannot be read, it is truncated or damaged"),
        (lambda *_, **__: None, "FileNotFoundError: weights: there is no file what came"),
    ],
    ids=["offline", "quota", "page", "truncated", "nothing"],
)  # fmt: skip
def test_a_download_that_fails(download, message, monkeypatch, tmp_path):
    monkeypatch.setattr(gdown, "download", download)
    path = tmp_path / "cifar10" / "Linf" / "Rice2020Overfitting.pt"
    identifier = find_entry("Rice2020Overfitting", "cifar10", "Linf").published["gdrive_id"]
    with pytest.raises(FileNotFoundError, match=message) as raised:
        load_classifier("Rice2020Overfitting", model_dir=tmp_path)
    for part in (f"there is no file {path}", f"https://drive.google.com/uc?id={identifier}", f"put it at {path}."):
        assert part in str(raised.value)
    assert list(path.parent.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(gdown, "download", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        load_classifier("Standard", model_dir=tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_was_downloaded_is_used_from_then_on(monkeypatch, tmp_path):
    entry, net = tiny(monkeypatch)
    asked = []

    def download(id, output, **_):  # noqa: A002
        asked.append(id)
        torch.save(net.state_dict(), output)

    monkeypatch.setattr(gdown, "download", download)
    for _ in range(2):
        assert states_equal(load_classifier("Standard", model_dir=tmp_path).model.state_dict(), net.state_dict())
    assert asked == [entry.published["gdrive_id"]]
    assert [path.name for path in (tmp_path / "cifar10" / "Linf").iterdir()] == ["Standard.pt"]


@pytest.mark.parametrize(("name", "threat_model"), [("AlexNet", "corruptions"), ("Standard_R50", "Linf")])
def test_the_downloads_of_timm_and_torchvision(name, threat_model, check_zoo, monkeypatch, tmp_path):
    entry = find_entry(name, "imagenet", threat_model)

    def offline(url, target, **_):
        Path(f"{target}.partial").write_bytes(b"half")
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match=r"URLError.*no route") as raised:
        load_classifier(name, "imagenet", threat_model, tmp_path)
    assert f"put it at {tmp_path / 'imagenet' / threat_model / name}.pt" in str(raised.value)
    assert entry.url in str(raised.value)
    assert list(entry.cached.parent.iterdir()) == []
    torch.manual_seed(1)
    net = entry.build()

    def download(url, target, hash_prefix=None):
        assert url == entry.url
        assert hash_prefix == {"Standard_R50": "0676ba61", "AlexNet": "7be5be79"}.get(name)
        torch.save(check_zoo.checkpoints(entry, net)[0], target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert states_equal(load_network(entry, tmp_path).state_dict(), net.state_dict())
    assert entry.present(tmp_path)
    assert entry.cached.is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + b"\0" * 90, "cannot be read, it is truncated or damaged"),
        ({"state_dict": {}, "args": argparse.Namespace(lr=1)}, r"holds objects other than tensors \(argparse.Namespace\)"),
        (["no", "mapping"], "expected a state dict in .*, got list"),
        ({"other.weight": torch.ones(1)}, "does not fit 'Standard' .* missing: 0.weight, "),
    ],
    ids=["truncated", "foreign", "list", "names"],
)  # fmt: skip
def test_a_file_that_is_wrong_is_named(content, message, monkeypatch, tmp_path):
    entry, _ = tiny(monkeypatch)
    path = put(entry, tmp_path, content)
    with pytest.raises(ValueError, match=message) as raised:
        load_classifier("Standard", model_dir=tmp_path)
    assert str(path) in str(raised.value)
    assert str(raised.value).count("weights: ") == 1


def test_a_file_of_another_architecture_is_named(monkeypatch, tmp_path):
    entry, net = tiny(monkeypatch)
    state = net.state_dict()
    path = put(entry, tmp_path, {**state, "0.weight": torch.ones(9, 3, 3, 3)})
    with pytest.raises(ValueError, match=rf"weights: {path} does not fit .*size mismatch for 0.weight"):
        load_classifier("Standard", model_dir=tmp_path)
    entry, net = tiny(monkeypatch, "Andriushchenko2020Understanding")
    put(entry, tmp_path, net.state_dict())
    with pytest.raises(ValueError, match=r"does not fit 'Andriushchenko2020Understanding' .*KeyError: 'last'"):
        load_classifier("Andriushchenko2020Understanding", model_dir=tmp_path)


def test_a_network_is_never_left_half_loaded(monkeypatch, tmp_path):
    """RobustBench loads what fits for this name, as soon as the file has ``conv1.scores``."""
    name = "Diffenderfer2021Winning_Binary"
    entry, net = tiny(monkeypatch, name, threat_model="corruptions")
    put(entry, tmp_path, {"conv1.scores": torch.ones(1), "0.weight": net.state_dict()["0.weight"]})
    import_robustbench().utils.load_model(name, tmp_path, "cifar10", "corruptions")
    with pytest.raises(ValueError, match=rf"does not fit '{name}' .*ValueError: 12 missing: 1.weight, .*, \.\.\."):
        load_classifier(name, threat_model="corruptions", model_dir=tmp_path)
    put(entry, tmp_path, {"conv1.scores": torch.ones(1), **net.state_dict()})
    assert states_equal(load_network(entry, tmp_path).state_dict(), net.state_dict())


@pytest.mark.parametrize(("name", "dataset"), [("Standard", "cifar10"), ("Standard_R50", "imagenet")])
def test_a_network_that_cannot_be_built(name, dataset, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise TypeError("no such layer")

    entry = find_entry(name, dataset, "Linf")
    if entry.source == "torchvision":
        monkeypatch.setattr(torchvision.models, "resnet50", broken)
    else:
        monkeypatch.setitem(entry.published, "model", broken)
    put(entry, tmp_path, {"weight": torch.ones(1)})
    with pytest.raises(RuntimeError, match=rf"cannot build '{name}' \({dataset} Linf\) here: TypeError: no such layer"):
        load_classifier(name, dataset, "Linf", tmp_path)
