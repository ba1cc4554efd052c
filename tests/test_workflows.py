"""The files for GitHub: they parse, ask for no more rights than they need, pin what they use, and name what exists."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ALL = [*WORKFLOWS, *sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), GITHUB / "dependabot.yml"]


def read(path):
    return yaml.safe_load(path.read_text())


def commands(workflow):
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize(
    "path", [*ALL, GITHUB / "PULL_REQUEST_TEMPLATE.md", GITHUB / "oldest.txt"], ids=lambda p: p.name
)
def test_they_name_no_host_of_packages_and_no_local_path(path):
    text = path.read_text()
    assert not re.search(r"pypi\.org|pythonhosted|download\.pytorch|index-url +http|file://|/root|/home|/work/", text)
    if path.suffix == ".yml":
        assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_have_few_rights_fixed_actions_and_an_end(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        publishes = (path.stem, name) == ("release", "publish")
        assert job.get("permissions", {}) == ({"id-token": "write"} if publishes else {})
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", step["uses"])
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False
    for command in commands(workflow):  # what others write (titles, names of branches) would be run by the shell
        assert "${{" not in command


def test_ci_runs_on_what_it_says_and_what_it_runs_exists():
    workflow = read(GITHUB / "workflows" / "ci.yml")
    when = workflow[True]  # YAML 1.1 reads "on" so
    assert {"push", "pull_request", "schedule"} <= set(when)
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["schedule"][0]["cron"])  # once a week
    assert {"lint", "test", "oldest", "docs", "wheel"} == set(workflow["jobs"])
    text = "\n".join(commands(workflow))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(" ".join(re.findall(r"^make (.+)$", text, re.MULTILINE)).split()) <= targets
    for path in re.findall(r"(?:tests|\.github)/[\w/.]+", text):
        assert (ROOT / path).exists(), path


def test_the_release_is_built_by_one_job_and_sent_by_another_without_a_token():
    text = (GITHUB / "workflows" / "release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["publish"]["needs"] == "build"
    assert not any("checkout" in step.get("uses", "") for step in jobs["publish"]["steps"])
    assert not re.search(r"password|secrets\.", text)
    version = next(step["run"] for step in jobs["build"]["steps"] if "TAG" in step.get("env", {}))
    assert version.startswith("grep -qxF")
    pattern = re.search(r'-qxF "(.*)" (\S+)$', version)
    line = pattern[1].replace('\\"', '"').replace("${TAG#v}", r"[\d.]+")
    assert re.search(f"^{line}$", (ROOT / pattern[2]).read_text(), re.MULTILINE)


def test_the_oldest_versions_are_the_bounds_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {each.name.lower(): Version(next(iter(each.specifier)).version) for each in map(Requirement, declared)}
    lines = [line for line in (GITHUB / "oldest.txt").read_text().splitlines() if not line.startswith("#")]
    oldest = {name: Version(version) for name, _, version in (line.partition("==") for line in lines)}
    assert {name: oldest.get(name) for name in bounds} == bounds
