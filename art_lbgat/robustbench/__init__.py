"""RobustBench for ART classifiers: its models, its standard numbers, its leaderboard.

A complete use::

    result = benchmark(classifier, "cifar10", "Linf", state_path="state")  # killed, the same call resumes
    print(result, compare(result))
    guide = load_classifier("Rice2020Overfitting", "cifar10", "Linf")  # an ART classifier
"""

from art_lbgat.robustbench.benchmark import benchmark
from art_lbgat.robustbench.leaderboard import Comparison, compare, leaderboard
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.submission import Paper, Submission, check_submission, export_submission
from art_lbgat.robustbench.zoo import list_models, load_classifier
from art_lbgat.robustbench_import import import_architecture, import_robustbench

__all__ = [
    "BenchmarkResult",
    "Comparison",
    "Paper",
    "Submission",
    "benchmark",
    "check_submission",
    "compare",
    "export_submission",
    "import_architecture",
    "import_robustbench",
    "leaderboard",
    "list_models",
    "load_classifier",
]
