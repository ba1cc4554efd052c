"""What the tests of the zoo share."""

import importlib.util
from pathlib import Path

import gdown
import pytest
import torch


@pytest.fixture(scope="module")
def check_zoo():
    script = Path(__file__).parents[2] / "scripts" / "check_zoo.py"
    spec = importlib.util.spec_from_file_location("check_zoo", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing is fetched unless a test says how, and torch hub's cache is empty."""

    def offline(*_, **__):
        raise AssertionError("a test asked for the network")

    monkeypatch.setattr(gdown, "download", offline)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield
    torch.hub._hub_dir = None
