"""A result of a benchmark, made by hand."""

from art_lbgat.evaluation.results import Accuracy
from art_lbgat.robustbench import BenchmarkResult


def made_result(**changes):
    values = {
        "model_name": "mine", "architecture": "wrn-34-10", "dataset": "cifar10", "threat_model": "Linf", "eps": 8 / 255,
        "natural": Accuracy(7500, 10_000), "robust": Accuracy(5000, 10_000), "attacks": {}, "corruptions": {},
        "flags": {}, "differences": (), "seed": 0, "batch_size": 100, "weights_sha256": "0" * 64,
        "data_sha256": "1" * 64, "versions": {}, "device": "cpu", "seconds": {},
    }  # fmt: skip
    return BenchmarkResult(**{**values, **changes})
