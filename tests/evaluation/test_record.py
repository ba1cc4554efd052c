"""The directory of what a long evaluation has finished: what it gives back, and what it refuses."""

import resource

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat.engine.checkpoint import write_checkpoint
from art_lbgat.evaluation.record import Entry, Record
from art_lbgat.fingerprint import sha256_of, weights_sha256


def make_record(path):
    entry = Entry(torch.arange(3), torch.rand(3, 1, 4, 4), {"softmax": "is one"}, 0.5)
    with Record(path, {"eps": 0.1}) as kept:
        kept.add("apgd-ce", entry, 8)
    return entry


def test_a_record_gives_back_what_was_added(tmp_path):
    entry = make_record(tmp_path / "state")
    with Record(tmp_path / "state", {"eps": 0.1}) as kept:
        found = kept.get("apgd-ce", 8)
        assert kept.get("apgd-ce", 0) is None
        assert kept.get("square", 8) is None
    assert torch.equal(found.rows, entry.rows)
    assert torch.equal(found.x_adv, entry.x_adv)
    assert (found.flags, found.seconds) == (entry.flags, entry.seconds)


BATCH = "apgd-ce/step-000000008.safetensors"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGE = {
    "truncated": (BATCH, truncate, "is damaged.*Delete it"),
    "a flipped bit": (BATCH, flip, "is damaged: its SHA-256.*Delete it"),
    "another batch's": (BATCH, lambda p: write_checkpoint(p.parent, 8, {"rows": 1}, {}), "Delete it"),
    "no run": ("run.json", lambda path: path.write_text("[1]"), "run.json is damaged"),
    "another program's": ("run.json", lambda path: path.rename(path.with_name("mine")), "holds something else"),
}


@pytest.mark.parametrize(("name", "damage", "match"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_named_and_left_alone(name, damage, match, tmp_path):
    path = tmp_path / "state"
    make_record(path)
    damage(path / name)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=f"state_path: .*{match}") as error, Record(path, {"eps": 0.1}) as kept:
        kept.get("apgd-ce", 8)
    assert str(path) in str(error.value)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_record_that_is_in_use_is_locked_and_free_afterwards(tmp_path):
    path = tmp_path / "state"
    make_record(path)
    for _ in range(2):  # the second time nothing is written, only read
        with Record(path, {"eps": 0.1}), pytest.raises(BlockingIOError, match=r"another run is using .*state"):
            Record(path, {"eps": 0.1})
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        Record(tmp_path / "none" / "state", {})
    (tmp_path / "old.sqlite").write_text("as earlier versions wrote it")
    with pytest.raises(ValueError, match=r"expected a directory, got the file .*old.sqlite"):
        Record(tmp_path / "old.sqlite", {})


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    path = tmp_path / "state"
    entry = make_record(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Record(path, {"eps": 0.1}) as kept:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"state_path: .*state cannot be written"):
                kept.add("apgd-t", entry._replace(x_adv=torch.rand(3, 100, 100)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Record(path, {"eps": 0.1}) as kept:
        assert torch.equal(kept.get("apgd-ce", 8).x_adv, entry.x_adv)
        assert kept.get("apgd-t") is None


def test_weights_hash_sees_values_names_and_types_only():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    digest = weights_sha256(model)
    assert digest == weights_sha256(model.train()) == weights_sha256(model.eval())
    assert len(digest) == 64
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-7
    assert weights_sha256(model) != digest
    seen = [weights_sha256(module) for module in (model, model[0])]
    seen += [weights_sha256(model.to(dtype)) for dtype in (torch.float64, torch.bfloat16)]  # in place
    assert len(set(seen)) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_an_array_has_the_hash_of_its_tensor(dtype):
    values = torch.arange(12).reshape(3, 4).to(dtype)
    array = np.asfortranarray(values.numpy())
    array.setflags(write=False)
    assert sha256_of([array]) == sha256_of([values]) == sha256_of([values.t().contiguous().t()])
    assert sha256_of([values.t().contiguous()]) != sha256_of([values])
    assert len({sha256_of([values[:0]]), sha256_of([array[:, :0]]), sha256_of([])}) == 3
