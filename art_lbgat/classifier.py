"""The bridge between an ART ``PyTorchClassifier`` and plain tensors.

ART computes predictions as ``model(preprocessing(x))``. A tensor loop that calls the bare module skips the
preprocessing, and ART's own helper cuts the gradient by default; :class:`TensorView` does neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from art.defences.preprocessor import CutMix, CutMixPyTorch, Mixup, MixupPyTorch
from art.estimators.classification import HuggingFaceClassifierPyTorch, PyTorchClassifier
from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from torch import Tensor, nn
from torch.nn import functional

from art_lbgat.checks import check_inputs
from art_lbgat.memory import is_out_of_memory
from art_lbgat.preserve import seed_everything

logger = logging.getLogger(__name__)

_MOST_COLOURS = 4
_PLAIN_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)
_SUM_TOLERANCE = 1e-2  # of probabilities in bf16
_STANDARDISATIONS = (StandardisationMeanStd, StandardisationMeanStdPyTorch)
_PLAIN_LOSS = {"weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
_FORWARD_METHODS = ("predict", "loss_gradient", "reduce_labels", "_apply_preprocessing", "_make_model_wrapper",
                    "_apply_preprocessing_gradient")  # fmt: skip


class TensorView:
    """One ART classifier, whose forward pass and gradient are ``PyTorchClassifier``'s own, as functions on tensors."""

    def __init__(self, classifier: PyTorchClassifier, name: str = "classifier", *, postprocess: bool = False) -> None:
        """With ``postprocess``, logits are those after the postprocessing defences; training ignores these, as ART."""
        self.classifier, self.name, self._postprocess = classifier, name, postprocess
        self.refresh()

    def refresh(self, on_probabilities: bool | None = None) -> None:
        """Read it anew, as it may have changed; in training a final softmax is undone (True) or refused (False)."""
        classifier = self.classifier
        self._on_probabilities, self._ends_in_softmax = on_probabilities, dict[bool, bool]()  # by mode of the module
        check_classifier(classifier, self.name)
        self.module: nn.Module = classifier.model
        self.device: torch.device = classifier.device
        loss = classifier.loss
        #: What its CrossEntropyLoss has beside the defaults; empty where its loss is another.
        self.loss_settings: dict[str, Any] = {
            name: getattr(loss, name)
            for name, plain in _PLAIN_LOSS.items()
            if type(loss) is nn.CrossEntropyLoss and getattr(loss, name) != plain
        }
        self.operations: list[Any] = list(classifier.preprocessing_operations or [])
        self._identity = all(_is_identity(operation) for operation in self.operations)
        # Defences that act in training only or draw at random; standardisation is neither.
        self._training_defences = [o for o in self.operations if o.apply_fit and not isinstance(o, _STANDARDISATIONS)]

    @property
    def draws_in_training(self) -> bool:
        """Whether :meth:`fit_inputs` may draw random numbers."""
        return bool(self._training_defences)

    @property
    def mixes_samples(self) -> bool:
        """Whether a defence that acts in training blends different samples of a batch (mixup, cutmix)."""
        return any(isinstance(o, (Mixup, MixupPyTorch, CutMix, CutMixPyTorch)) for o in self._training_defences)

    @property
    def channels_last(self) -> bool:
        """Whether inputs are images ``(N, H, W, C)``."""
        return not self.classifier.channels_first and len(self.classifier.input_shape) == 3

    def check_layout(self, name: str) -> None:
        """Refuse, naming the argument that depends on it, square images whose ``channels_first`` is told wrongly."""
        shape = tuple(self.classifier.input_shape)
        last = self.channels_last
        side, other, colours = shape[last:] + shape[:last] if len(shape) == 3 else (0, 0, 0)
        if side == other > _MOST_COLOURS >= colours:
            raise ValueError(
                f"{name}: {self.name} has input_shape={shape} and channels_first={not last}, which would "
                f"make {side} the number of colours; expected channels_first={last} for it."
            )

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """``clip_values`` as two float32 tensors that broadcast against a batch, or None."""
        if self.classifier.clip_values is None:
            return None
        low, high = (
            torch.as_tensor(np.asarray(v), dtype=torch.float32, device=self.device) for v in self.classifier.clip_values
        )
        return low, high

    def value_range(self) -> float:
        """``max - min`` of ``clip_values`` (the largest over features), or 1 where there are none."""
        if self.classifier.clip_values is None:
            return 1.0
        low, high = self.classifier.clip_values
        return float(np.max(np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)))

    def taken(self, x: Tensor, name: str) -> Tensor:
        """``x`` as :func:`check_inputs` has it: one answer from the device, and no copy, where nothing is wrong."""
        if x.ndim and len(x) and tuple(x.shape[1:]) == tuple(self.classifier.input_shape):
            good = torch.isfinite(x).all()
            bounds = self.bounds()
            if bounds is not None:
                low, high = (bound.to(x.device) for bound in bounds)
                good = good & (x >= low).all() & (x <= high).all()
            if bool(good):
                return x
        return torch.from_numpy(check_inputs(x, self.classifier, name)).to(x.device)

    def logits(self, x: Tensor) -> Tensor:
        """``M(preprocessing(x))`` as ART's attacks and ``predict`` compute it, and their gradient in ``x``."""
        logits = self.output(self.predict_inputs(x))
        if not (self._postprocess and self.classifier.postprocessing_defences):
            return logits
        # ART's postprocessing is numpy: its value counts, and gradients pass straight through (BPDA).
        array = self.classifier._apply_postprocessing(logits.detach().cpu().numpy(), fit=False)
        outputs = torch.from_numpy(np.asarray(array, dtype=np.float32)).to(logits.device)
        outputs = check_logits(outputs, self.classifier.nb_classes, f"{self.name} (postprocessing)")
        return outputs + (logits - logits.detach())  # plus zero, so the value is theirs to the bit

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The classifier's own CrossEntropyLoss with all its settings; the plain one where its loss is another."""
        settings: dict[str, Any] = {k: v.to(logits) if k == "weight" else v for k, v in self.loss_settings.items()}
        with naming(lambda: f"{self.name}: its loss does not fit its logits and labels of shape {tuple(y.shape)}."):
            return functional.cross_entropy(logits, y, **settings)

    def predict_inputs(self, x: Tensor) -> Tensor:
        """What the module is given at prediction: ``preprocessing(x)``, differentiable in ``x``."""
        if self._identity:
            inputs = x
        elif self.classifier.all_framework_preprocessing:
            inputs, _ = self.classifier._apply_preprocessing(x, y=None, fit=False, no_grad=False)
        else:
            inputs = _NumpyPreprocessing.apply(x, self.classifier)
        return self._processed(inputs)

    def fit_inputs(self, x: Tensor, y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What the module and the loss are given in training: ``preprocessing(x, y)`` with the defences of ``fit``."""
        if self._identity:
            return self._processed(x), y
        if not self._training_defences:
            return self._processed(self._preprocess_fit(x, None)[0]), y
        seed_everything(seed)
        inputs, labels = self._preprocess_fit(x, label_rows(y, self.classifier.nb_classes))
        assert labels is not None  # noqa: S101 (for the type checker: labels went in)
        return self._processed(inputs), hard_if_one_hot(labels)

    def _processed(self, inputs: Tensor) -> Tensor:
        """What the ``processor`` of a Hugging Face classifier, where there is one, makes of preprocessed inputs."""
        processor: Callable[[Tensor], Tensor] | None = getattr(self.classifier, "processor", None)
        return inputs if processor is None else processor(inputs)

    def _preprocess_fit(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.classifier.all_framework_preprocessing:
            inputs, labels = self.classifier._apply_preprocessing(x.detach(), y=y, fit=True, no_grad=True)
            return inputs, labels
        labels = None if y is None else y.cpu().numpy()
        inputs, labels = self.classifier._apply_preprocessing(x.detach().cpu().numpy(), y=labels, fit=True)
        inputs = torch.from_numpy(np.asarray(inputs, dtype=np.float32)).to(self.device)
        if labels is not None:
            labels = torch.from_numpy(np.asarray(labels, dtype=np.float32)).to(self.device)
        return inputs, labels

    def output(self, inputs: Tensor) -> Tensor:
        """The module's output on preprocessed inputs, checked to be logits of shape ``(N, C)``."""
        return self.read(run_module(self.module, inputs, self.name))

    def read(self, output: Any) -> Tensor:
        """Logits ``(N, C)`` of what the module gave, at least in float32; in training the first tells what it gives."""
        logits, mode = check_logits(output, self.classifier.nb_classes, self.name), self.module.training
        if self._on_probabilities is None:
            return logits
        if mode and torch.is_grad_enabled() and not logits.requires_grad:
            why = "under no_grad, detached, or of reentrant checkpointing"
            raise ValueError(f"{self.name}: its logits have no graph to its weights ({why}); training needs one.")
        if mode not in self._ends_in_softmax:
            rows = logits.detach()
            softmax = bool((rows >= 0).all() and ((rows.sum(dim=1) - 1).abs() < _SUM_TOLERANCE).all())
            kind = "probabilities" if softmax else "log-probabilities"
            if softmax or bool((rows.logsumexp(dim=1).abs() < _SUM_TOLERANCE).all()):
                if not self._on_probabilities:
                    raise ValueError(
                        f"{self.name}: its outputs are {kind}, and the objective compares logits, which they do not "
                        f"determine; expected raw logits, so remove the final {'' if softmax else 'log-'}softmax."
                    )
                logger.warning("The %s gives %s; the objective works with their logarithm.", self.name, kind)
            self._ends_in_softmax[mode] = softmax
        return logits.clamp_min(torch.finfo(logits.dtype).tiny).log() if self._ends_in_softmax[mode] else logits


def run_module(module: nn.Module, inputs: Tensor, name: str) -> Any:
    """``module(inputs)``; an error of torch names the model, and what in it may be the cause.

    On a copy, as ART makes one: a model whose first operation works in place would change what others are given.
    """

    def said() -> str:
        others = sorted({str(p.dtype) for p in module.parameters()} - {"torch.float32"})
        hint = f"; it has weights of {', '.join(others)}: take model.float(), or cast in its forward" if others else ""
        return f"{name}: its model fails on inputs of shape {tuple(inputs.shape)}, {inputs.dtype}{hint}."

    with naming(said):
        return module(inputs.clone())


@contextmanager
def naming(said: Callable[[], str]) -> Iterator[None]:
    """Errors of others, that memory ran out excepted, say first whose they are; their types stay."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or type(error) not in _PLAIN_ERRORS:
            raise
        raise type(error)(f"{said()} {type(error).__name__}: {error}") from error


def check_logits(output: Any, nb_classes: int, name: str) -> Tensor:
    """Return ``output``, at least in float32, if it is a tensor of shape ``(N, nb_classes)``."""
    if not isinstance(output, Tensor):
        helps = "wrap it in a module that returns the logits (of torchvision's, build it with aux_logits=False)"
        raise ValueError(f"{name}: its model must return one tensor of logits, got {type(output).__name__}; {helps}.")
    if output.ndim != 2 or output.shape[1] != nb_classes:
        raise ValueError(
            f"{name}: its model must return logits of shape (N, {nb_classes}) for nb_classes={nb_classes}, "
            f"got {tuple(output.shape)}."
        )
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def hard_if_one_hot(labels: Tensor) -> Tensor:
    """Indices ``(N,)`` if every row is exactly one-hot, else the float32 probabilities ``(N, C)`` as they are."""
    one_hot = bool(((labels == 0) | (labels == 1)).all() and (labels.sum(dim=1) == 1).all())
    return labels.argmax(dim=1) if one_hot else labels.float()


def label_rows(y: Tensor, nb_classes: int) -> Tensor:
    """Labels as float32 rows ``(N, C)``: indices become one-hot, rows stay as they are."""
    return y if y.ndim == 2 else nn.functional.one_hot(y, nb_classes).float()


def check_classifier(classifier: Any, name: str) -> None:
    """Refuse what the tensor loop cannot follow exactly."""
    if not isinstance(classifier, PyTorchClassifier):
        raise TypeError(f"{name}: expected an ART PyTorchClassifier, got {type(classifier).__name__}.")
    # The wrapper of Hugging Face's has one thing of its own, the processor; its module gives logits by itself.
    base = HuggingFaceClassifierPyTorch if isinstance(classifier, HuggingFaceClassifierPyTorch) else PyTorchClassifier
    kind = type(classifier)
    changed = [m for m in _FORWARD_METHODS if getattr(kind, m) is not getattr(base, m)]
    of_art = kind is not base and kind.__module__.startswith("art.")
    if of_art or changed:
        what = f"ART's {kind.__name__} has" if of_art else f"{kind.__name__} changes {', '.join(changed)}, so it has"
        raise TypeError(
            f"{name}: {what} a forward pass or gradient of its own, which cannot be followed on tensors; train the "
            "underlying PyTorchClassifier and wrap it later."
        )
    if classifier._use_amp:
        raise ValueError(f"{name}: use_amp=True needs NVIDIA apex, which is not supported; expected use_amp=False.")
    if not hasattr(classifier._model, "_model"):
        raise ValueError(
            f"{name}: its model was replaced with set_params(model=...), after which ART's predict returns wrong "
            "shapes; build a new PyTorchClassifier around the module."
        )
    module = classifier.model
    if any(map(nn.parameter.is_lazy, [*module.parameters(), *module.buffers()])):
        raise ValueError(f"{name}: its model has lazy layers without a shape; call it on a batch once, then train it.")
    walked = base is PyTorchClassifier and isinstance(module, nn.Sequential)
    if walked and (type(module).forward is not nn.Sequential.forward or "forward" in vars(module)):
        raise ValueError(
            f"{name}: {type(module).__name__} is an nn.Sequential with a forward of its own, which ART never calls (it "
            "walks the children), so ART and the module disagree; make it an nn.Module that holds the Sequential."
        )


def _is_identity(operation: Any) -> bool:
    """Whether a preprocessing operation is ART's default ``(x - 0) / 1``, which changes no bit."""
    if not isinstance(operation, _STANDARDISATIONS):
        return False
    return bool(np.all(np.asarray(operation.mean) == 0) and np.all(np.asarray(operation.std) == 1))


class _NumpyPreprocessing(torch.autograd.Function):
    """``x -> preprocessing(x)`` through numpy; backward is ART's ``_apply_preprocessing_gradient``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, classifier: PyTorchClassifier) -> Tensor:
        ctx.classifier = classifier
        ctx.array = x.detach().cpu().numpy().copy()
        inputs, _ = classifier._apply_preprocessing(ctx.array, y=None, fit=False)
        return torch.from_numpy(np.asarray(inputs, dtype=np.float32)).to(x.device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = grad_outputs
        with torch.enable_grad():  # off inside a backward, but ART differentiates its torch operations here
            estimate = ctx.classifier._apply_preprocessing_gradient(ctx.array, gradient.cpu().numpy())
        return torch.from_numpy(np.asarray(estimate, dtype=np.float32)).to(gradient.device), None
