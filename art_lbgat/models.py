"""Networks by name, and the ART classifier around one.

Architectures come from RobustBench (the networks of the published recipes), torchvision and timm; none is written anew.
All give raw logits for inputs in [0, 1] and normalise nothing.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn
from torch.nn.functional import silu

from art_lbgat.checks import as_array, check_choice, check_count, check_flag, check_number, check_text
from art_lbgat.preserve import evaluating, preserved_randomness
from art_lbgat.robustbench_import import import_architecture
from art_lbgat.weights import State, load_weights

Shape = tuple[int, ...]
_WIDE = re.compile(r"wrn-(\d+)-(\d+)")
_PATTERNS = ("wrn-<depth>-<width>", "torchvision/<name>", "timm/<name>")
_ACTIVATED = ("small-cnn", "resnet-18", "preact-resnet-18", "resnet-18-guide")  # and wrn-*, with another activation
_USUAL = ("wrn-28-10", "wrn-34-10", "wrn-34-20", "wrn-70-16")  # to guess what a misspelt name meant
_CIFAR = 32  # the image size that the networks of the published recipes are made for


class GlobalAverage(nn.Module):
    """The mean over all pixels at every pixel of a ``side x side`` map, so that a pooling of that width gives the mean.

    :param side: Height and width of the output.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`GlobalAverage`."""
        return x.mean((2, 3), keepdim=True).expand(-1, -1, self.side, self.side)


def small_cnn(nb_classes: int = 10, channels: int = 1, size: int = 8) -> nn.Sequential:
    """A CNN for images as small as the digits: 3x3 convolutions of width 8, 32, 32 with BatchNorm, strides 1, 2, 2.

    :param nb_classes: Number of outputs.
    :param channels: Channels of the images.
    :param size: Height and width of the images, a multiple of 4.
    """
    check_count(nb_classes, "nb_classes")
    check_count(channels, "channels")
    if check_count(size, "size", minimum=4) % 4:
        raise ValueError(f"size: expected a multiple of 4, got {size}.")
    layers: list[nn.Module] = []
    for width, stride in ((8, 1), (32, 2), (32, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, nb_classes))


def list_models() -> list[str]:
    """The names that :func:`create_model` takes; ``<...>`` stands for a number or a name of that library."""
    return sorted([*_NETWORKS, "small-cnn", *_PATTERNS])


def create_model(
    name: str,
    nb_classes: int,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    sub_block1: bool = False,
    weights: str | os.PathLike[str] | State | None = None,
) -> nn.Module:
    """A network that gives raw logits ``(N, nb_classes)`` for images ``(N, *input_shape)`` in [0, 1].

    Networks made for 32x32 (``inception-resnet-v2``: 75) enlarge smaller images bilinearly inside, and average larger
    ones over all pixels at the end. Where there are not 3 channels the first convolution is a new one (He, fan-out).
    Parameters have the library's names, so weights fit across image sizes.

    :param name: One of :func:`list_models`: ``"wrn-34-10"``, ``"torchvision/resnet50"``, ...; ``":silu"`` behind
        ``wrn-*``, ``resnet-18``, ``preact-resnet-18``, ``resnet-18-guide`` or ``small-cnn`` has SiLU for ReLU.
    :param nb_classes: Number of classes, at least 2.
    :param input_shape: Channels, height, width; squares of a multiple of 4 for ``small-cnn``.
    :param sub_block1: For ``wrn-*``: add the unused block that the released LBGAT0 and LBGAT6 weights contain.
    :param weights: A file or a state dict for :func:`~art_lbgat.weights.load_weights`; None keeps the initial weights.
    :return: The network in train mode, on the default device; nothing is ever downloaded.
    """
    wide = _check_name(name)
    nb_classes = check_count(nb_classes, "nb_classes", minimum=2)
    shape = _check_sides(input_shape)
    if len(shape) != 3:
        raise ValueError(f"input_shape: expected (channels, height, width) for {name!r}, got {tuple(input_shape)}.")
    if check_flag(sub_block1, "sub_block1") and not wide:
        raise ValueError(f"sub_block1: expected False, only wrn-<depth>-<width> has that block, got True for {name!r}.")
    name, activation = _split(name)
    library, _, network_name = name.partition("/")
    if wide:
        build = partial(_wide_resnet, depth=int(wide[1]), width=int(wide[2]), sub_block1=sub_block1)
        model = _adapted(build, nb_classes, shape, _CIFAR)
    elif name == "small-cnn":
        if shape[1] != shape[2] or shape[1] % 4:
            raise ValueError(f"input_shape: small-cnn expects squares of a multiple of 4 pixels, got {shape}.")
        model = small_cnn(nb_classes, *shape[:2])
    elif name in _NETWORKS:
        network: Any = partial(_without_average, _NETWORKS[name]) if activation == "silu" else _NETWORKS[name]
        model = _adapted(network, nb_classes, shape, 75 if name == "inception-resnet-v2" else _CIFAR)
    else:
        model = (_torchvision if library == "torchvision" else _timm)(network_name, nb_classes, shape)
        _check_logits(model, nb_classes, shape, name)
    if activation == "silu":
        _activate_by_silu(model)
    if weights is not None:
        load_weights(model, weights)
    return model


def create_classifier(
    model: str | nn.Module,
    nb_classes: int,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    clip_values: tuple[Any, Any] = (0.0, 1.0),
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 2e-4,
    nesterov: bool = False,
    decay_norms: bool = True,
    label_smoothing: float = 0.0,
    device_type: str | None = None,
    sub_block1: bool = False,
    weights: str | os.PathLike[str] | State | None = None,
) -> PyTorchClassifier:
    """An ART classifier with cross-entropy and the SGD of the published recipes, over all parameters.

    :param model: A name for :func:`create_model`, or any module that gives logits; it is used itself, not copied.
    :param nb_classes: Number of classes.
    :param input_shape: Shape of one input; channels, height, width for a name.
    :param clip_values: Smallest and largest value of inputs.
    :param learning_rate: Of SGD, above 0.
    :param momentum: Of SGD.
    :param weight_decay: Of SGD, on everything, BatchNorm and biases included, unless ``decay_norms`` is False.
    :param nesterov: Whether the momentum is Nesterov's.
    :param decay_norms: Whether weights of normalisation layers and biases (parameters of one dimension) decay too.
    :param label_smoothing: Of the cross-entropy, in [0, 1].
    :param device_type: ``"gpu"`` or ``"cpu"``; None is ``"gpu"`` where CUDA is available.
    :param sub_block1: As :func:`create_model`, for a name.
    :param weights: As :func:`create_model`; loaded into a module too.
    :return: The classifier; its optimizer drives the parameters of ``classifier.model`` (None if it has none).
    :raises ValueError: Also if a module gives no logits ``(N, nb_classes)``: it is tried on two zeros in eval mode.
    """
    check_number(learning_rate, "learning_rate", exclusive=True)
    check_number(momentum, "momentum")
    check_number(weight_decay, "weight_decay")
    check_flag(sub_block1, "sub_block1")
    check_flag(decay_norms, "decay_norms")
    if check_number(label_smoothing, "label_smoothing") > 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing}.")
    if check_flag(nesterov, "nesterov") and not momentum:
        raise ValueError("nesterov: expected False with momentum=0, which has no Nesterov's, got True.")
    shape = _check_sides(input_shape)
    _check_range(clip_values, shape)
    available = torch.cuda.is_available()
    if check_choice(device_type, "device_type", ("gpu", "cpu", None)) == "gpu" and not available:
        raise ValueError("device_type: expected 'cpu' or None, since CUDA is not available, got 'gpu'.")
    if isinstance(model, str):
        _check_name(model, "model")
        model = create_model(model, nb_classes, input_shape, sub_block1=sub_block1, weights=weights)
    elif isinstance(model, nn.Module):
        if sub_block1:
            raise ValueError("sub_block1: expected False for a module, which is built already, got True.")
        check_count(nb_classes, "nb_classes", minimum=2)
        _check_logits(model, nb_classes, shape, "model")
        if weights is not None:
            load_weights(model, weights)
    else:
        raise TypeError(f"model: expected a name or a torch.nn.Module, got {type(model).__name__}.")
    classifier = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(label_smoothing=label_smoothing),
        input_shape=shape,
        nb_classes=nb_classes,
        clip_values=clip_values,
        device_type=device_type or ("gpu" if available else "cpu"),
    )
    parameters = list(classifier.model.parameters())  # those after ART moved the module, which can replace them
    if parameters:
        groups: Any = parameters
        if not decay_norms:
            undecayed = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
            groups = [{"params": [p for p in parameters if p.ndim > 1]}, undecayed]
            groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.SGD(
            groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )
        classifier.set_params(optimizer=optimizer)
    return classifier


def _wide_resnet(nb_classes: int, average: bool, depth: int, width: int, sub_block1: bool) -> Any:
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"name: expected a depth of 6n + 4, n >= 1 (10, 16, 22, 28, 34, ...), got {depth}.")
    check_count(width, "name: width")
    published = import_architecture("wide_resnet").WideResNet
    net = published(depth=depth, widen_factor=width, num_classes=nb_classes, sub_block1=sub_block1)
    if average:
        net.relu = nn.Sequential(net.relu, GlobalAverage(8))
    return net


def _silu_resnet(net: Any, x: Tensor) -> Any:
    """The forward of RobustBench's two ResNets with SiLU, and with a mean over maps of any size."""
    pre_activated = hasattr(net, "bn")
    x = net.conv1(x) if pre_activated else silu(net.bn1(net.conv1(x)))
    x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
    return net.linear((silu(net.bn(x)) if pre_activated else x).mean((2, 3)))


def _silu_block(block: Any, x: Tensor) -> Any:
    return silu(block.bn2(block.conv2(silu(block.bn1(block.conv1(x))))) + block.shortcut(x))


def _silu_preact_block(block: Any, x: Tensor) -> Any:
    first = silu(block.bn1(x))
    second = block.conv2(silu(block.bn2(block.conv1(first))))
    return second + (block.shortcut(first) if hasattr(block, "shortcut") else x)


# RobustBench's calls ReLU as a function in these.
_SILU_FORWARDS: dict[str, Callable[[Any, Tensor], Any]] = {
    "ResNet": _silu_resnet, "PreActResNet": _silu_resnet,
    "BasicBlock": _silu_block, "PreActBlock": _silu_preact_block,
}  # fmt: skip


def _resnet_18(nb_classes: int, average: bool) -> Any:
    library = import_architecture("resnet")
    net = library.ResNet(library.BasicBlock, [2, 2, 2, 2], num_classes=nb_classes)
    if average:
        net.layer4.append(GlobalAverage(4))
    return net


def _preact_resnet_18(nb_classes: int, average: bool) -> Any:
    """With BatchNorm and ReLU before the pooling and shortcuts from the activated input, as in arXiv 1603.05027."""
    library = import_architecture("resnet")
    options = {"bn_before_fc": True, "out_shortcut": True}
    net = library.PreActResNet(library.PreActBlock, [2, 2, 2, 2], num_classes=nb_classes, **options)
    if average:
        net.bn.register_forward_hook(_average_after_relu)
    return net


def _average_after_relu(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Any:
    """The published forward itself applies ReLU between this BatchNorm and the pooling; a second changes nothing."""
    return GlobalAverage(4)(nn.functional.relu(output))


def _resnet_18_guide(nb_classes: int, _average: bool) -> Any:
    """Strides 1, 1, 2, 2 behind a 3x3 convolution of stride 1, the guide of the paper's code."""
    from torchvision.models import resnet18

    net = resnet18(weights=None, num_classes=nb_classes)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    for convolution in (net.layer2[0].conv1, net.layer2[0].downsample[0]):
        convolution.stride = (1, 1)
    return net


def _inception_resnet_v2(nb_classes: int, _average: bool) -> Any:
    return importlib.import_module("timm").create_model("inception_resnet_v2", num_classes=nb_classes)


# Each is built for 3 channels, and averages over all pixels, if its own pooling takes another map than it will get.
_NETWORKS: dict[str, Callable[[int, bool], nn.Module]] = {
    "inception-resnet-v2": _inception_resnet_v2,
    "preact-resnet-18": _preact_resnet_18,
    "resnet-18": _resnet_18,
    "resnet-18-guide": _resnet_18_guide,
}


def _without_average(network: Callable[[int, bool], nn.Module], nb_classes: int, _average: bool) -> nn.Module:
    return network(nb_classes, False)  # the forwards with SiLU average over maps of any size themselves


def _adapted(build: Callable[[int, bool], nn.Module], nb_classes: int, shape: Shape, smallest: int) -> nn.Module:
    """A network for images of ``shape``; those with a side below ``smallest`` are enlarged."""
    channels, height, width = shape
    shortest = min(height, width)
    if shortest < smallest:
        height, width = (round(side * smallest / shortest) for side in (height, width))
    model = build(nb_classes, (height, width) != (_CIFAR, _CIFAR))
    if channels != 3:
        _replace_first_convolution(model, channels)
    if shortest < smallest:
        # In front by a hook and not by a wrapper, which would rename every parameter.
        model.add_module("resize", nn.Upsample((height, width), mode="bilinear", align_corners=False))
        model.register_forward_pre_hook(_resize_first)
    return model


def _activate_by_silu(model: nn.Module) -> None:
    """SiLU for every ReLU that is a module, and for those in the forwards of RobustBench's ResNets."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU(child.inplace))
        if type(module).__module__ == "robustbench.model_zoo.architectures.resnet":
            # Not by a subclass, which could not be pickled.
            module.forward = partial(_SILU_FORWARDS[type(module).__name__], module)
            module.activation = nn.SiLU()  # for whoever prints or compares the layout


def _resize_first(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (model.get_submodule("resize")(inputs[0]), *inputs[1:])


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    name, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    kept = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, device=old.weight.device, **kept)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _check_library(library: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = [f"{library}/{each}" for each in difflib.get_close_matches(name, names, n=3)]
        hint = f"; nearest: {', '.join(near)}." if near else "."
        raise ValueError(f"name: {library} has no classifier of this name, got '{library}/{name}'{hint}")


def _torchvision(name: str, nb_classes: int, shape: Shape) -> nn.Module:
    from torchvision import models

    _check_library("torchvision", name, models.list_models(module=models))
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}  # or train mode returns more than logits
    elif name.startswith("vit_"):
        options = {"image_size": shape[1]}
    with _fitting(f"torchvision/{name}", shape):
        model: nn.Module = models.get_model(name, weights=None, num_classes=nb_classes, **options)
        if shape[0] != 3:
            _replace_first_convolution(model, shape[0])
    return model


def _timm(name: str, nb_classes: int, shape: Shape) -> nn.Module:
    timm = importlib.import_module("timm")
    if not timm.is_model(name):
        _check_library("timm", name, timm.list_models())
    sized = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    options: dict[str, Any] = {"img_size": shape[1:]} if sized else {}
    with _fitting(f"timm/{name}", shape):
        model: nn.Module = timm.create_model(name, num_classes=nb_classes, in_chans=shape[0], **options)
    return model


def _check_name(name: Any, argument: str = "name") -> re.Match[str] | None:
    """Depth and width of a ``wrn-*``; None for another name of :func:`list_models`."""
    given, (name, activation) = name, _split(check_text(name, argument))
    library, _, network_name = name.partition("/")
    wide = _WIDE.fullmatch(name)
    if name != given and (activation not in ("relu", "silu") or not (wide or name in _ACTIVATED)):
        expected = f"':relu' or ':silu' behind wrn-<depth>-<width>, {', '.join(_ACTIVATED)}"
        raise ValueError(f"{argument}: expected {expected}, got {given!r}.")
    in_library = bool(network_name) and library in ("torchvision", "timm")
    if not (wide or in_library or name == "small-cnn" or name in _NETWORKS):
        near = difflib.get_close_matches(name.lower(), [*_NETWORKS, "small-cnn", *_USUAL, *_PATTERNS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{argument}: expected one of {list_models()}, got {name!r}{hint}")
    return wide


def _split(name: str) -> tuple[str, str]:
    """A network and its activation, if one is named; names of other libraries may hold a colon."""
    network, _, activation = (name, "", "") if "/" in name else name.partition(":")
    return network, activation


def _check_sides(input_shape: Any) -> Shape:
    if isinstance(input_shape, (str, bytes)) or not isinstance(input_shape, Iterable):
        raise TypeError(f"input_shape: expected a tuple of whole numbers, got {input_shape!r}.")
    shape = tuple(check_count(side, "input_shape") for side in input_shape)
    if not shape:
        raise ValueError("input_shape: expected at least one number, got none.")
    return shape


def _check_range(clip_values: Any, shape: Shape) -> None:
    """A pair of finite numbers or of arrays for inputs of ``shape``, or None; the first is below the second."""
    if clip_values is None:
        return
    if not isinstance(clip_values, (tuple, list, np.ndarray)) or len(clip_values) != 2:
        raise TypeError(f"clip_values: expected a pair (min, max) or None, got {clip_values!r}.")
    low, high = (as_array(each, "clip_values") for each in clip_values)
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or low.shape != high.shape or (low >= high).any():
        raise ValueError(f"clip_values: expected finite (min, max) with min < max, got {clip_values!r}.")
    try:
        np.broadcast_to(low, shape)
    except ValueError as error:
        expected = f"numbers or arrays for inputs of shape {shape}"
        raise ValueError(f"clip_values: expected {expected}, got {low.shape}.") from error


@contextmanager
def _fitting(name: str, shape: Shape) -> Iterator[None]:
    """What a network raises about its input, as one error that names it and the shape."""
    try:
        yield
    except Exception as error:  # assertions, shape errors, unknown options: each network has its own
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"input_shape: {name} cannot take inputs of shape {shape} ({reason}).") from error


def _check_logits(model: nn.Module, nb_classes: int, shape: Shape, name: str) -> None:
    """Try ``model`` on two zero inputs in eval mode; buffers, modes and random generators are unchanged."""
    device = next(iter([*model.parameters(), *model.buffers()]), torch.zeros(())).device
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        for module, found in buffers:
            module._buffers.update({key: None if each is None else each.clone() for key, each in found.items()})
        with preserved_randomness(), evaluating(model), torch.no_grad(), _fitting(name, shape):
            output = model(torch.zeros(2, *shape, device=device))
    finally:
        for module, found in buffers:
            module._buffers.update(found)
    if not isinstance(output, Tensor):
        raise ValueError(f"{name}: expected one tensor of logits, got {type(output).__name__} from its forward pass.")
    if output.shape != (2, nb_classes):
        got = f"{tuple(output.shape)} for N=2 inputs of shape {shape}"
        raise ValueError(f"{name}: expected logits of shape (N, {nb_classes}) for nb_classes={nb_classes}, got {got}.")
