"""Wrong use: the table of docs/cli.md is what the commands say, each with one message and its exit code."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "cli_errors.py")))
DOCUMENTED = {
    line.split("`")[1]: line
    for line in (ROOT / "docs" / "cli.md").read_text().splitlines()
    if line.startswith("| `art-lbgat")
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return script.prepare(tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize("command", script.COMMANDS)
def test_a_wrong_use_says_what_the_table_says(command, places):
    said = script.ask(command, places)
    assert said.code == 2
    if said.message.startswith("error: "):  # what Typer says of options depends on its version
        assert script.table([said]).splitlines()[-1] == DOCUMENTED[command]
        assert said.message.count("error: ") == 1
    assert not Path(places["NEW"]).exists()


def test_the_table_holds_every_command_and_the_interruption():
    assert list(DOCUMENTED)[: len(script.COMMANDS)] == script.COMMANDS
    (last,) = list(DOCUMENTED)[len(script.COMMANDS) :]
    assert "kill -TERM" in last
    assert DOCUMENTED[last].endswith("| 130 |")
