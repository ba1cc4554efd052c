"""A finished run that the tests of the commands share, and a way to type a command."""

import pytest
from typer.testing import CliRunner

from art_lbgat.cli.main import app

SHORT = ("--set", "nb_epochs=1", "--n-test", "20", "--no-report")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def done(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of LBGAT, one epoch; its files are not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    done("train", "digits-lbgat", "--output", path, *SHORT)
    return path
