"""The published RobustBench, importable on a fresh install."""

from art_lbgat.robustbench.compat import import_architecture, import_robustbench

__all__ = ["import_architecture", "import_robustbench"]
