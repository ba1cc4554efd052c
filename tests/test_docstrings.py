"""Public names have docstrings that name every parameter; internal ones are ruff's business."""

import importlib
import inspect
import re

import pytest

ROOMS = ("", ".attacks", ".data", ".diagnostics", ".evaluation", ".recipes", ".report", ".robustbench", ".study",
         ".trainers")  # fmt: skip
WHOLE = (".losses", ".models", ".weights", ".engine.trackers", ".engine.schedule")
# A docstring may say where its parameters are documented.
ELSEWHERE = re.compile(r"\b([Ss]ee|As|(arguments|arguments and errors|fields) of) :(class|meth|func):`")


def public_names():
    for room in ROOMS:
        module = importlib.import_module(f"art_lbgat{room}")
        yield from ((f"{module.__name__}.{name}", getattr(module, name)) for name in module.__all__)
    for name in WHOLE:
        module = importlib.import_module(f"art_lbgat{name}")
        for each, thing in vars(module).items():
            if not each.startswith("_") and getattr(thing, "__module__", None) == module.__name__:
                yield f"{module.__name__}.{each}", thing


def parts(name, thing):
    """The thing, and the methods that a class itself defines."""
    yield name, thing, False
    for method, function in vars(thing).items() if inspect.isclass(thing) else ():
        function = inspect.unwrap(getattr(function, "__func__", function))
        if inspect.isfunction(function) and not method.startswith("_"):
            inherited = any(method in vars(base) for base in thing.__mro__[1:])
            yield f"{name}.{method}", function, inherited


def missing(thing, inherited):
    """What the docstring of a function or a class does not say."""
    text = inspect.cleandoc((vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or "")
    if not text:
        return ["a docstring"]
    if inherited or ELSEWHERE.search(text):
        return []
    made = "__init__" in vars(thing) or hasattr(thing, "_fields") or not inspect.isclass(thing)
    if not made or getattr(thing, "_is_protocol", False):
        return []  # nothing is given to it that a base does not document
    said = set(re.findall(r":param (\w+):", text)) | {"self", "cls"}
    return [f":param {name}:" for name in inspect.signature(thing).parameters if name not in said | {"_"}]


NAMES = {name: thing for name, thing in public_names() if inspect.isclass(thing) or inspect.isfunction(thing)}


@pytest.mark.parametrize("name", NAMES)
def test_public_names_and_their_parameters_are_documented(name):
    wanting = {each: missing(part, inherited) for each, part, inherited in parts(name, NAMES[name])}
    assert {each: lines for each, lines in wanting.items() if lines} == {}
