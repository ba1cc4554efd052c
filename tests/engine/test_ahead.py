"""A step reads nothing from its device, where that is CUDA; here the CPU, or the device "meta", stands in for it."""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescentPyTorch
from torch.utils._python_dispatch import TorchDispatchMode

from art_lbgat import MadryTrainer, losses, memory, preserve
from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.classifier import TensorView
from art_lbgat.data import Images, RandomCropFlip, stream
from art_lbgat.engine import step
from art_lbgat.engine.adversary import Adversary
from art_lbgat.engine.checkpoint import read_newest
from art_lbgat.engine.step import NonFiniteError
from art_lbgat.preserve import Key
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import OPTIONS, TRAINERS, Case, another, pgd

X, Y = make_data(32)
READS = ("cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__len__", "__index__")
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique2", "item")


class Reads(TorchDispatchMode):
    """Every read of a tensor's value, by whom: as a method, or by what a method of torch does inside."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.on, self.found = False, []
        for name in READS:
            if name != "__len__":  # which is a shape
                monkeypatch.setattr(torch.Tensor, name, self._noted(name, getattr(torch.Tensor, name)))

    def _noted(self, name, method):
        def noted(tensor, *args, **kwargs):
            self._note(name)
            return method(tensor, *args, **kwargs)

        return noted

    def _note(self, what):
        frame = sys._getframe(2)
        while frame is not None and "art_lbgat" not in frame.f_code.co_filename:
            frame = frame.f_back
        where = (
            "elsewhere" if frame is None else f"{frame.f_code.co_filename.rsplit('/', 1)[1]}: {frame.f_code.co_name}"
        )
        if self.on:
            self.found.append((what, where))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or masks:
            self._note(name)
        return func(*args, **(kwargs or {}))


#: The order of the samples is on the CPU whatever the device is; `one_hot` looks at indices unless they are on CUDA.
ALLOWED = {("numpy", "stream.py: epoch")} | {
    ("_local_scalar_dense", f"losses.py: {name}") for name in ("boosted_cross_entropy", "rectified_labels")
}


@pytest.fixture
def ahead(monkeypatch):
    """Steps run as on CUDA; which flag was read at which step."""
    seen = SimpleNamespace(steps=0, made=[], read=[])

    def read_later(flag):
        number = len(seen.made)
        seen.made.append(seen.steps)

        def read():
            seen.read.append((number, seen.steps))
            return ctypes.c_bool.from_address(flag.data_ptr()).value  # no read of a tensor

        return read

    monkeypatch.setattr(step, "runs_ahead", lambda device: True)
    monkeypatch.setattr(step, "read_later", read_later)
    monkeypatch.setattr(losses, "check_labels", lambda *_: None)  # which looks at labels on the CPU only
    return seen


def audited(monkeypatch, make, seen, augmentation="crop+flip"):
    """The reads of the steps from the second on."""
    classifier, reads = make_classifier(), Reads(monkeypatch)

    def on_step(record):
        seen.steps += 1
        reads.on = record.step < 3

    trainer = make(classifier, on_step=on_step, ema_decay=0.9, awp_gamma=0.01, awp_start_epoch=1, max_grad_norm=1.0)
    images = Images((X * 255).astype(np.uint8), Y, 255)
    with reads:
        trainer.fit(images, batch_size=8, nb_epochs=1, augmentation=augmentation, scheduler="one-cycle")
    return set(reads.found) - ALLOWED


@pytest.mark.parametrize("name", TRAINERS)
def test_no_step_reads_from_the_device(name, ahead, monkeypatch):
    assert audited(monkeypatch, TRAINERS[name], ahead) == set()
    assert ahead.steps == 4
    # Each while the next step is being made, the last after it; then, once an epoch, the weights.
    assert ahead.read == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)]


OTHERS = {
    "art": lambda c, **o: MadryTrainer(c, ProjectedGradientDescentPyTorch(c, eps=0.03, max_iter=2, verbose=False), **OPTIONS, **o),
    "L2": lambda c, **o: MadryTrainer(c, pgd(c, norm=2, num_random_init=2), **OPTIONS, **o),
    "schedules": lambda c, **o: MadryTrainer(c, pgd(c), eps_warmup=0.5, max_iter_schedule=((0, 1), (0.5, 3)), **OPTIONS, **o),
    "trades": lambda c, **o: TRAINERS["lbgat"](c, regularizer="trades", **o),
    "alp": lambda c, **o: TRAINERS["bgat"](c, regularizer="alp", guidance="kl", **o),
    "ensemble": lambda c, **o: TRAINERS["bgat"](c, [another(c), another(c)], guidance="mse+ce", **o),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_nor_with_other_attacks_and_terms(name, ahead, monkeypatch):
    assert audited(monkeypatch, OTHERS[name], ahead, augmentation=None) == set()


def test_the_audit_finds_what_reads(ahead, monkeypatch):
    def reading(classifier, **options):
        trainer = TRAINERS["madry"](classifier, **options)
        terms = trainer._method.terms
        object.__setattr__(
            trainer._method, "terms", lambda logits, *y: (logits["adversarial"].max().item(), terms(logits, *y))[1]
        )
        return trainer

    found = audited(monkeypatch, reading, ahead)
    assert {what for what, _ in found} == {"item", "_local_scalar_dense"}


def test_on_the_cpu_each_step_is_read_at_once(ahead, monkeypatch):
    monkeypatch.setattr(step, "runs_ahead", lambda device: device.type == "cuda")
    audited(monkeypatch, TRAINERS["madry"], ahead)
    assert ahead.read == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]


def ruined(case, at):
    """The case with a gradient of NaN in one of its steps."""
    passes = []

    def spoil(gradient):
        passes.append(1)
        return gradient * float("nan") if len(passes) == at else None

    case.classifier.model[0].weight.register_hook(spoil)
    return case


@pytest.mark.parametrize("at", [2, 4, 7, 8])  # within an epoch and at its end
def test_nan_is_found_one_step_later_and_never_reaches_a_checkpoint(at, ahead, monkeypatch, tmp_path):
    steps = []
    case = ruined(Case("lbgat", tmp_path, awp_gamma=None, on_step=lambda record: steps.append(record.step)), at)
    epoch, number = divmod(at - 1, 4)
    place = rf"epoch {epoch + 1}, step {number + 1}: norm of all gradients\. Terms: guidance_mse \d.*learning rate 0"
    with pytest.raises(NonFiniteError, match=f"NaN or Inf in {place}"):
        case.fit(validation_data=None)
    assert len(steps) == at  # its checkpoint was due: the flag was read before
    assert read_newest(tmp_path / "fit-001").step == at - 1


def test_without_checkpoints_the_next_step_finds_it(ahead):
    steps = []
    case = ruined(Case("lbgat", awp_gamma=None, on_step=lambda record: steps.append(record.step)), 2)
    with pytest.raises(NonFiniteError, match="NaN or Inf in epoch 1, step 2: norm of all gradients"):
        case.fit(validation_data=None)
    assert steps == [0, 1]  # the third was being made


def test_rows_of_an_earlier_batch_are_named(ahead):
    case, passes = Case("madry", awp_gamma=None), []

    def spoil(module, args, logits):
        passes.append(1) if module.training else None
        if module.training and len(passes) == 3:
            return logits.index_fill(0, torch.tensor([1, 4]), float("nan"))
        return None

    case.classifier.model.register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 3: adversarial logits \(rows 1, 4 of the batch\)"):
        case.fit(validation_data=None)


@pytest.mark.parametrize("name", TRAINERS)
def test_looking_later_changes_no_bit(name, monkeypatch):
    expected = Case(name).fit().digest()
    monkeypatch.setattr(step, "runs_ahead", lambda device: True)
    assert Case(name).fit().digest() == expected


def test_a_flag_is_copied_and_waited_for_alone(monkeypatch):
    calls = []
    event = SimpleNamespace(synchronize=lambda: calls.append("wait for the event"))
    queue = SimpleNamespace(record_event=lambda: calls.append("record") or event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: calls.append(device) or queue)
    copied = SimpleNamespace()

    class Flag:
        is_cuda, device = True, "cuda:1"

        def to(self, device, non_blocking):
            calls.append(f"copy to {device}" if non_blocking else "blocking")
            return torch.tensor(True)

    read = memory.read_later(Flag())
    assert calls == ["copy to cpu", "cuda:1", "record"]
    assert read() is True
    assert calls[3:] == ["wait for the event"]
    assert memory.read_later(torch.tensor(False))() is False
    assert not vars(copied)


class OnMeta(torch.Generator):
    """A generator of the device "meta", on which nothing is computed."""

    device = torch.device("meta")


@pytest.fixture
def meta(monkeypatch):
    """The device "meta" as if it were CUDA."""
    device = torch.device("meta")
    for module in (preserve, stream):
        monkeypatch.setattr(module, "runs_ahead", lambda each: each.type == "meta")
    made = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda each="cpu": OnMeta() if str(each) == "meta" else made(each))
    return device


class Places(TorchDispatchMode):
    """The largest tensor that was made on the CPU."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type == "cpu":
            self.largest = max(self.largest, result.numel())
        return result


ATTACKS = {
    "Linf": lambda c: PGDAttack(c, eps=0.03, eps_step=0.01, max_iter=1),
    "L2": lambda c: PGDAttack(c, norm=2, eps=0.3, eps_step=0.1, max_iter=1, num_random_init=3),
    "TRADES": lambda c: TRADESAttack(c, eps=0.03, eps_step=0.01, max_iter=1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_starts_are_drawn_on_the_device(attack, meta):
    classifier = make_classifier()
    made = Adversary(ATTACKS[attack](classifier), TensorView(classifier))
    with Places() as places:
        starts = made.starts(torch.empty(20_000, 1, 8, 8, device=meta), Key(3))
        shared = made.starts(torch.empty(5, 1, 8, 8, device=meta), Key(3), memory_share(5))
    assert {start.device for start in starts + shared} == {meta}
    assert starts[0].shape == (20_000, 1, 8, 8)
    assert places.largest <= 1


def memory_share(rows):
    from art_lbgat.processes import Share

    return Share(slice(0, rows), rows)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_data_are_cropped_flipped_and_kept_on_the_device(as_bytes, meta, monkeypatch):
    view, asked = TensorView(make_classifier()), []
    view.device = meta
    monkeypatch.setattr(view, "taken", lambda x, name: x)  # looks at values, which there are none of
    monkeypatch.setattr(stream, "fits", lambda size, device: asked.append((size, device)) or True)
    x = Images((X * 255).astype(np.uint8), Y, 255) if as_bytes else X
    source = stream.as_stream(x, None if as_bytes else Y, 8, view, RandomCropFlip())
    with Places() as places:
        batches = list(source.epoch(Key(3)))
    assert {batch.x.device for batch in batches} == {meta}
    assert {tuple(batch.x.shape) for batch in batches} == {(8, *X.shape[1:])}
    assert asked == ([(X.size, meta)] if as_bytes else [])
    # Of bytes only indices and labels are on the CPU; float data go there batch by batch.
    assert places.largest == (32 if as_bytes else 8 * X[0].size)


def test_bytes_kept_on_the_device_are_the_same_batches(monkeypatch):
    images = Images((X * 255).astype(np.uint8), Y, 255)
    view = TensorView(make_classifier(clip_values=(-1.0, 1.0)))
    plain = stream.as_stream(images, None, 8, view)
    monkeypatch.setattr(stream, "runs_ahead", lambda device: True)
    monkeypatch.setattr(stream, "fits", lambda size, device: True)
    kept = stream.as_stream(images, None, 8, view)
    for ours, theirs in zip(kept.epoch(Key(1)), plain.epoch(Key(1)), strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
    assert kept.fingerprint() == plain.fingerprint()


def test_what_fits_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 1000))
    assert memory.fits(99, torch.device("cuda"))
    assert not memory.fits(100, torch.device("cuda"))
    assert [memory.runs_ahead(torch.device(kind)) for kind in ("cuda", "cpu", "mps", "meta")] == [
        True,
        False,
        False,
        False,
    ]
