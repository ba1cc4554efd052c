"""What is put on an index: built once, looked into, and checked as the index does."""

import csv
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import art_lbgat

ROOT = Path(__file__).parent.parent
NAME = f"art_lbgat-{art_lbgat.__version__}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the sdist, the wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    return Parser().parsestr(wheel.read(f"{NAME}.dist-info/METADATA").decode())


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel):
    names = set(wheel.namelist())
    sources = (path for path in (ROOT / "art_lbgat").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    assert {name for name in names if name.startswith("art_lbgat/")} == expected
    data = {"py.typed", "report/page.html.j2", "report/style.css", "robustbench/leaderboard.csv"}
    assert {f"art_lbgat/{name}" for name in data} <= names
    board = io.StringIO(wheel.read("art_lbgat/robustbench/leaderboard.csv").decode())
    assert sum(1 for _ in csv.DictReader(board)) == 236
    assert {name.split("/")[0] for name in names} == {"art_lbgat", f"{NAME}.dist-info"}
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert "art-lbgat = art_lbgat.cli.main:main" in wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()


def test_the_sdist_holds_what_builds_tests_and_documents(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", "docs/index.md"}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert wanted <= names
    assert not [name for name in names if re.search(r"(^|/)(\.venv|results|runs|__pycache__|_build|\.git)(/|$)", name)]
    assert (built / f"{NAME}.tar.gz").stat().st_size < 2_000_000


def test_the_metadata_is_what_an_index_shows(metadata):
    expected = {"Name": "art-lbgat", "Version": art_lbgat.__version__, "License-Expression": "MIT", "License-File": "LICENSE",
                "Requires-Python": ">=3.10", "Description-Content-Type": "text/markdown"}  # fmt: skip
    assert {name: metadata[name] for name in expected} == expected
    assert "Paper" in dict(entry.split(", ") for entry in metadata.get_all("Project-URL"))
    assert {"dev", "docs"} <= set(metadata.get_all("Provides-Extra"))
    required = {re.match(r"[\w-]+", entry)[0] for entry in metadata.get_all("Requires-Dist") if "extra ==" not in entry}
    assert {"adversarial-robustness-toolbox", "torch", "robustbench", "matplotlib"} <= required
    assert not required & {"pytest", "selenium", "twine", "sphinx"}


def test_stated_pythons_are_those_that_the_workflow_runs(metadata):
    stated = {entry.rsplit(" ", 1)[1] for entry in metadata.get_all("Classifier") if re.search(r":: 3\.\d+$", entry)}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert set(re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", workflow)[0])) == stated


def test_twine_accepts_both_and_the_readme_renders(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *sorted(map(str, built.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
