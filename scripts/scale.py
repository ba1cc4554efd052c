"""The figures of docs/scale.md: memory, traffic and time of LBGAT training, from the networks and one measurement.

python scripts/scale.py                        # the table of networks, and the cost of a global batch
python scripts/scale.py --tflops 200 --gpus 256  # the plan for ImageNet with other assumptions
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from art_lbgat.engine.cost import step_cost
from art_lbgat.engine.step import Passes
from art_lbgat.models import create_model

#: Student, guide, input shape, classes.
PAIRS = {
    "ResNet-18 / ResNet-18, 32x32": ("resnet-18", "resnet-18", 32, 10),
    "WRN-34-10 / ResNet-18, 32x32": ("wrn-34-10", "resnet-18", 32, 100),
    "WRN-34-20 / ResNet-18, 32x32": ("wrn-34-20", "resnet-18", 32, 100),
    "ResNet-50 / ResNet-50, 224x224": ("torchvision/resnet50", "torchvision/resnet50", 224, 1000),
}
GIGA = 1e9


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())


def saved_bytes(model: nn.Module, size: int) -> float:
    """Bytes that autograd keeps of one image for the backward pass, parameters left out; nothing is computed.

    :param model: On the meta device.
    :param size: Side of the image in pixels.
    """
    own = {id(p) for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own and not isinstance(tensor, nn.Parameter):
            seen[id(tensor.untyped_storage())] = tensor.numel() * tensor.element_size()
            kept.append(tensor)
        return tensor

    kept: list[torch.Tensor] = []
    images = 4
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(torch.empty(images, 3, size, size, device="meta"))
    return sum(seen.values()) / images


def macs(model: nn.Module, size: int) -> float:
    """Multiply-accumulates of one forward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2


def main() -> None:
    """Print the table and the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=100.0, help="TFLOP/s that one GPU reaches in training")
    parser.add_argument("--gpus", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4096, help="global batch")
    parser.add_argument("--epochs", type=int, default=100)
    given = parser.parse_args()
    ours = step_cost((11, 10), Passes("value"), guides=1, train_guides=True, perturbs_weights=False)
    print(f"LBGAT0, K = 10: {ours} per step\n")
    units = ("parameters, M", "state, GB", "checkpoint, GB", "activations, MB per image", "traffic, GB per step")
    print(f"| student / guide | {' | '.join(units)} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    flops = {}
    for name, (student_name, guide_name, size, classes) in PAIRS.items():
        with torch.device("meta"):
            student, guide = (
                create_model(student_name, nb_classes=classes),
                create_model(guide_name, nb_classes=classes),
            )
        n_student, n_guide = parameters(student), parameters(guide)
        # weights, gradients and momentum of both, the average of the student; fp32
        state = 4 * (3 * (n_student + n_guide) + n_student)
        # weights and momentum of both, the average, the best weights of both so far
        written = 4 * (3 * (n_student + n_guide) + n_student)
        activations = saved_bytes(student, size) + saved_bytes(guide, size)
        traffic = 2 * 4 * (n_student + n_guide)  # a ring sends each gradient twice, whatever the number of processes
        print(
            f"| {name} | {n_student / 1e6:.1f} + {n_guide / 1e6:.1f} | {state / GIGA:.2f} | {written / GIGA:.2f} | "
            f"{activations / 1e6:.1f} | {traffic / GIGA:.2f} |"
        )
        flops[name] = 2 * (ours.student * macs(student, size) + ours.guide * macs(guide, size)), traffic
    per_image, traffic = flops["ResNet-50 / ResNet-50, 224x224"]
    images = 1_281_167
    total = per_image * images * given.epochs
    seconds = total / (given.tflops * 1e12 * given.gpus)
    steps = given.epochs * -(-images // given.batch)
    hours, per_step = total / (given.tflops * 1e12) / 3600, seconds / steps
    print(
        f"\nImageNet, {given.epochs} epochs, {given.gpus} GPUs at {given.tflops:g} TFLOP/s, batch {given.batch}: "
        f"{per_image / GIGA:.0f} GFLOP per image, {total / 1e18:.1f} EFLOP, {hours:.0f} GPU-hours, "
        f"{seconds / 3600:.2f} h; {steps} steps of {per_step * 1000:.0f} ms, {given.batch / given.gpus:g} images per "
        f"GPU; {given.batch / per_step / given.gpus:.0f} images/s per GPU."
    )
    bandwidth = traffic / per_step
    print(f"Gradients: {bandwidth / GIGA:.1f} GB/s in and out of each GPU if they are to hide behind the whole step.")
    start, own = time.perf_counter(), given.batch // given.gpus
    torch.rand((own, 3, 224, 224))
    print(
        f"Random starts: {1000 * (time.perf_counter() - start):.0f} ms on the CPU for the {own} images of one process."
    )


if __name__ == "__main__":
    main()
