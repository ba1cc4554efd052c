"""Where a command is run: folders with files named like modules, outputs that cannot be, warnings as errors."""

import subprocess
import sys

import pytest

from tests.cli.conftest import invoke

SCRIPT = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from art_lbgat.cli import main as command

def app():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        print(pool.submit(abs, -3).result())

if __name__ == "__main__":
    command.app = app
    command.main()
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")
def test_workers_do_not_import_files_of_the_folder_they_are_started_in(tmp_path):
    script, folder = tmp_path / "scripts" / "script.py", tmp_path / "mine"
    script.parent.mkdir()
    folder.mkdir()
    script.write_text(SCRIPT)
    for name in ("types", "queue", "random"):
        (folder / f"{name}.py").write_text("raise SystemExit('shadowed')")
    ran = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("3\n", 0), ran.stderr


@pytest.mark.parametrize("kind", ["a file", "below a file", "a link to nothing"])
def test_an_output_that_cannot_be_a_directory_is_named(tmp_path, kind):
    path = tmp_path / "here"
    if kind == "a link to nothing":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("")
    result = invoke("train", "digits-natural", "--output", path / "run" if kind == "below a file" else path)
    assert result.exit_code == 2
    assert f"output: expected a directory, got the file {path}" in " ".join(result.output.split())
    assert not (tmp_path / "nowhere").exists()
