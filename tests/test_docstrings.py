"""Docstring coverage: every public name of every module has a docstring, which names every parameter."""

import importlib
import inspect
import pkgutil
import re

import pytest

import art_lbgat

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(art_lbgat.__path__, "art_lbgat.")
    if not any(part.startswith("_") for part in module.name.split("."))
)
# A docstring may say where its parameters are documented.
ELSEWHERE = re.compile(r"\b([Ss]ee|As|(arguments|arguments and errors|fields) of) :(class|meth|func):`")


def public(holder, module):
    """Functions, classes and properties that ``holder`` itself defines under public names."""
    for name, thing in vars(holder).items():
        function = inspect.unwrap(getattr(thing, "__func__", thing))
        known = inspect.isclass(function) or inspect.isfunction(function) or isinstance(function, property)
        here = getattr(function, "__module__", module) == module and getattr(function, "__name__", name) == name
        if known and here and not name.startswith("_"):
            yield name, function


def missing(thing, inherited=False):
    """What the docstring of a function, a class or a property does not say."""
    text = inspect.cleandoc((vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or "")
    if not text:
        return ["a docstring"]
    if inherited or isinstance(thing, property) or ELSEWHERE.search(text):
        return []
    said = set(re.findall(r":param (\w+):", text)) | {"self", "cls"}
    made = "__init__" in vars(thing) or hasattr(thing, "_fields")
    if inspect.isclass(thing) and (not made or getattr(thing, "_is_protocol", False)):
        return []  # nothing is given to it that a base does not document
    parameters = inspect.signature(thing).parameters.values()
    said |= {each.name for each in parameters if "help=" in str(each.annotation)}  # options of the command line
    return [f":param {each.name}:" for each in parameters if each.name not in said and not each.name.startswith("_")]


def wanting(module_name):
    """Lines ``name: what its docstring lacks``, for a module."""
    module = importlib.import_module(module_name)
    lines = [] if module.__doc__ else [f"{module_name}: a docstring"]
    for name, thing in public(module, module_name):
        lines += [f"{module_name}.{name}: {each}" for each in missing(thing)]
        for method, function in public(thing, module_name) if inspect.isclass(thing) else ():
            inherited = any(method in vars(base) for base in thing.__mro__[1:])
            lines += [f"{module_name}.{name}.{method}: {each}" for each in missing(function, inherited)]
    return lines


@pytest.mark.parametrize("module", MODULES)
def test_public_names_and_their_parameters_are_documented(module):
    assert wanting(module) == []
