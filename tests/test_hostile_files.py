"""Files made to do harm: archives, images, state files, weights and pickles end in one error that names them."""

import io
import json
import os
import pickle  # noqa: TID251 (to make malicious files)
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch.torch_version import TorchVersion

from art_lbgat.data import images, load_npz, read_images, read_npz_images
from art_lbgat.engine.checkpoint import write_checkpoint
from art_lbgat.evaluation.record import Entry, Record
from art_lbgat.recipes import Recipe
from art_lbgat.robustbench import import_robustbench
from art_lbgat.robustbench.images import corrupted_images, load_images, missing_data
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench_import import AutoAttack
from art_lbgat.weights import read_weights
from tests.conftest import conv_net, make_data


def npy(shape, dtype="|u1", content=b""):
    """An array file whose header says what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def archive(path, x, y=None, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as target:
        target.writestr("x.npy", x)
        target.writestr("y.npy", npy((2,), "<i8", bytes(16)) if y is None else y)
    return path


def bomb(path):
    """Zeros, a thousand times as many as the file has bytes."""
    archive(path, npy((1, 3, 1, 4 << 20), content=bytes(12 << 20)))


def broken(path):
    archive(path, npy((2, 3, 8, 8), content=np.random.default_rng(0).bytes(384)))
    data = bytearray(path.read_bytes())
    data[150:400] = b"\xff" * 250
    path.write_bytes(data)


ARCHIVES = {
    "a bomb": (bomb, "bytes that would fill 12,58"),
    "a header of ten terabytes": (lambda path: archive(path, npy((10**7, 3, 1000, 1000))), "under 'x' of"),
    "a header of too many sizes": (lambda path: archive(path, npy((1 << 62, 1 << 62))), "under 'x' of"),
    "a header that is code": (lambda path: archive(path, npy("__import__('os').system('touch marker')")), "under 'x' of"),
    "damaged data": (broken, "under 'x' of"),
    "no array": (lambda path: archive(path, b"text"), "a file that is no array"),
    "objects": (lambda path: archive(path, npy((2,), "|O", pickle.dumps([1, 2]))), "Object arrays cannot be loaded"),
    "half an archive": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)), "is none"),
    "a single pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "is none"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_of_arrays(case, tmp_path, monkeypatch):
    make, message = ARCHIVES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(images, "SMALL_ARRAY", 1 << 20)
    make(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=message) as error:
        read_npz_images(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


def test_nothing_of_an_archive_is_written_anywhere(tmp_path):
    """Names in it lead nowhere, and real images may be packed as well as they can."""
    path, x = tmp_path / "a.npz", np.zeros((20, 8, 8, 3), np.uint8)
    np.savez_compressed(path, x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.zeros(20, int))
    with zipfile.ZipFile(path, "a") as target:
        for name in ("../up.npy", "/tmp/absolute.npy", "..\\up.npy"):  # noqa: S108
            target.writestr(name, npy((2,), content=b"ab"))
    assert load_npz(path, validation=0.2).nb_classes == 2
    assert [each.name for each in tmp_path.rglob("*")] == ["a.npz"]


def member(name, **changes):
    info = tarfile.TarInfo(name)
    info.size = 0 if changes else 4
    for key, value in changes.items():
        setattr(info, key, value)
    return info


MEMBERS = {
    "up": member("../up"),
    "deep up": member("CIFAR-10-C/../../up"),
    "a link outside": member("CIFAR-10-C/link", type=tarfile.SYMTYPE, linkname="../../up"),
    "an absolute link": member("CIFAR-10-C/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": member("CIFAR-10-C/link", type=tarfile.LNKTYPE, linkname="../up"),
    "a device": member("CIFAR-10-C/device", type=tarfile.CHRTYPE),
    "a pipe": member("CIFAR-10-C/pipe", type=tarfile.FIFOTYPE),
}


def unpacking(folder, info):
    """What RobustBench does with a download, which is ``info`` in a tar file."""

    def download(*_, save_dir, **__):
        with tarfile.open(folder / "download.tar", "w") as target:
            target.addfile(info, io.BytesIO(b"evil"))
        shutil.unpack_archive(folder / "download.tar", extract_dir=save_dir, format="tar")

    return download


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python has no filter for archives")
@pytest.mark.parametrize("case", MEMBERS)
def test_archives_that_robustbench_unpacks(case, tmp_path, monkeypatch):
    monkeypatch.setattr(import_robustbench().data, "zenodo_download", unpacking(tmp_path, MEMBERS[case]))
    load, _ = corrupted_images("cifar10", "corruptions", None, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"data_dir: no fog in .*(Outside|Absolute|Special|Link)\w*Error"):
        load(1, 1, "fog")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()) == ["download.tar"]
    assert tarfile.TarFile.extraction_filter is None


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python has no filter for archives")
def test_an_absolute_member_and_a_good_one_stay_in_the_folder(tmp_path):
    for name in (str(tmp_path / "absolute"), "CIFAR-10-C/fog.npy"):
        with missing_data("fog", "it there"):
            unpacking(tmp_path, member(name))(save_dir=tmp_path / "data")
    assert not (tmp_path / "absolute").exists()
    assert (tmp_path / "data" / "CIFAR-10-C" / "fog.npy").read_bytes() == b"evil"


def test_images_that_pillow_would_give_to_another_program(tmp_path, monkeypatch):
    """PostScript is a language, and Pillow has Ghostscript run it."""
    from PIL import EpsImagePlugin

    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", format="EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was run"))
    with pytest.raises(ValueError, match=r"paths: expected an image in .*a.jpg"):
        read_images([tmp_path / "a.jpg"])


def test_images_that_are_none_or_would_fill_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    for content in (b"", b"GIF89a", b"BM" + bytes(60), b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"paths: expected an image in .*a.png"):
            read_images([path])
    Image.new("1", (2000, 2000)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ValueError, match=r"paths: expected an image in .*a.png .*decompression bomb"):
        read_images([path])


def test_torchscript_and_tar_archives(tmp_path):
    """Torch before 2.6 ran or unpickled these whatever ``weights_only`` said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script.pt .* is a TorchScript archive, which holds code"):
        read_weights(tmp_path / "script.pt")
    for number, name in enumerate((b"\x80\x02x".decode("latin1"), "PK\x03\x04")):
        path = tmp_path / f"{number}.pt"
        with tarfile.open(path, "w", encoding="latin1", format=tarfile.GNU_FORMAT) as target:
            target.addfile(member(name), io.BytesIO(b"evil"))
        with pytest.raises(ValueError, match=rf"{number}.pt .* is a tar archive"):
            read_weights(path)


@pytest.mark.parametrize(("version", "warned"), [("2.9.1+cu130", True), ("2.10.0", False), ("2.14.1", False)])
def test_a_torch_with_known_holes_is_warned_of(version, warned, tmp_path, monkeypatch, caplog):
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    read_weights(tmp_path / "w.pt")
    assert ("CVE-2026-24747" in caplog.text) == warned


class Calls:
    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_files_of_cifar_with_another_checksum_are_not_unpickled(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Calls(os.system, "touch marker"), protocol=protocol))
    with pytest.raises(ValueError, match=r"data_dir: .*test_batch or .*batches.meta is missing or damaged, or not the"):
        load_images("cifar10", "Linf", None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


EVIL = pickle.dumps(Calls(os.system, "touch marker"))
ROWS = {"rows": torch.arange(3), "x_adv": torch.zeros(3, 2), "flags": {}, "seconds": 0.5}
STATES = {
    "a pickle": ("natural/step-000000000.safetensors", EVIL),
    "tensors without a header": ("natural/step-000000000.safetensors", save({"rows": torch.arange(3)})),
    "other fields": ("natural/step-000000000.safetensors", {**ROWS, "more": 1}),
    "a run that is a pickle": ("run.json", EVIL),
    "a run that is a list": ("run.json", b"[1]"),
}


@pytest.mark.parametrize(("name", "content"), STATES.values(), ids=STATES)
def test_state_files(name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state"
    with Record(path, {"a": 1}) as record:
        record.add("natural", Entry(torch.arange(3), torch.zeros(3, 2), {"flag": "text"}, 0.5))
    if isinstance(content, dict):
        write_checkpoint((path / name).parent, 0, content, {})
    else:
        (path / name).write_bytes(content)

    def read():
        with Record(path, {"a": 1}) as record:
            record.get("natural")

    with pytest.raises(ValueError, match=r"state_path: .*state"):
        read()
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_of_autoattack_that_names_another_file(tmp_path):
    """It would go on writing there."""
    victim, path = tmp_path / "victim", tmp_path / "state.json"
    state = {"_attacks_to_run": ["apgd-ce"], "path": str(victim), "_run_attacks": [], "_robust_flags": [True, True],
             "_last_saved": "2026-01-01 00:00:00", "_SAVE_TIMEOUT": 60, "_clean_accuracy": 1.0}  # fmt: skip
    options = {"version": "custom", "attacks_to_run": ["apgd-ce"], "device": "cpu"}
    attack = AutoAttack(conv_net(), eps=0.01, **options)
    x, y = map(torch.from_numpy, make_data(2))
    for content in (state, {"path": None}, {"path": 3}, {}, []):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"state_path: .*state.json (was written as .*victim|is damaged)"):
            attack.run_standard_evaluation(x, y, state_path=path)
        assert not victim.exists()
    path.write_text(json.dumps({**state, "path": str(tmp_path / "x" / ".." / "state.json")}))
    with pytest.raises(ValueError, match="different set of attacks"):  # AutoAttack's own, which it raises for any file
        attack.run_standard_evaluation(x, y, state_path=path)


@pytest.mark.parametrize("content", [EVIL, pickle.dumps({"id": 1}, protocol=0), b"\xff\xfe", b"PK\x03\x04", b"[[["])
def test_recipes_and_results_that_are_no_text(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(content)
    for read in (Recipe.read, BenchmarkResult.load):
        with pytest.raises((ValueError, TypeError), match=r"path: .*file (is no|holds)"):
            read(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
