"""Leaderboards: published ranks, and where a result stands among them."""

import dataclasses
import math

import pytest

from art_lbgat.evaluation.results import Accuracy
from art_lbgat.robustbench import compare, leaderboard
from art_lbgat.robustbench.leaderboard import architecture_key
from tests.robustbench.results import made_result

LBGAT = [
    ("cifar10", "Cui2020Learnable_34_20", 5357, 63, 99),
    ("cifar10", "Cui2020Learnable_34_10", 5286, 68, 99),
    ("cifar100", "Cui2020Learnable_34_10_LBGAT9_eps_8_255", 3120, 19, 38),
    ("cifar100", "Cui2020Learnable_34_20_LBGAT6", 3020, 26, 38),
    ("cifar100", "Cui2020Learnable_34_10_LBGAT6", 2933, 28, 38),
    ("cifar100", "Cui2020Learnable_34_10_LBGAT0", 2716, 34, 38),
]
BOARDS = {
    ("cifar10", "Linf"): 99, ("cifar10", "L2"): 21, ("cifar10", "corruptions"): 23, ("cifar100", "Linf"): 38,
    ("cifar100", "corruptions"): 13, ("imagenet", "Linf"): 30, ("imagenet", "corruptions"): 12,
    ("imagenet", "corruptions_3d"): 12,
}  # fmt: skip


def made(robust=5000, n=10_000, **changes):
    counts = {"natural": Accuracy(min(n, robust + n // 4), n), "robust": Accuracy(robust, n)}
    return made_result(**counts, **changes)


@pytest.mark.parametrize(("board", "n"), BOARDS.items())
def test_every_board_is_ranked_best_first(board, n):
    rows = leaderboard(*board)
    assert len(rows) == n
    assert {*zip(rows["dataset"], rows["threat_model"], strict=True)} == {board}
    assert rows["model_id"].is_unique
    assert rows["rank"].tolist() == [1 + (rows["robust_acc"] > acc).sum() for acc in rows["robust_acc"]]
    assert rows["rank"].is_monotonic_increasing


def test_ranked_by_external_where_there_is_one_and_ties_share_the_better_rank():
    rows = leaderboard().set_index("model_id")
    assert rows.loc["Xiao2020Enhancing", ["autoattack_acc", "external", "robust_acc"]].tolist() == [18.5, 7.4, 7.4]
    assert rows.loc["Xiao2020Enhancing", "rank"] == 94
    assert (rows["external"].dropna() == rows["robust_acc"][rows["external"].notna()]).all()
    ranks = leaderboard("cifar100").set_index("model_id")["rank"]
    assert ranks[["Cui2023Decoupled_WRN-34-10", "Jia2022LAS-AT_34_20"]].tolist() == [16, 16]
    assert 17 not in set(ranks)
    plain, three_d = (leaderboard("imagenet", name).set_index("model_id") for name in ("corruptions", "corruptions_3d"))
    assert (plain.loc["AlexNet", "robust_acc"], three_d.loc["AlexNet", "robust_acc"]) == (21.12, 28.47)


def test_the_radius_that_a_number_was_measured_at():
    for dataset, model_id, *_ in LBGAT:
        row = leaderboard(dataset).set_index("model_id").loc[model_id]
        assert row["eps_measured"] == (8 / 255 if model_id.endswith("8_255") else 0.031)
    rows = leaderboard("cifar100").set_index("model_id")
    assert rows.loc["Cui2020Learnable_34_10_LBGAT6", "eps"] == 8 / 255  # what the board itself writes
    assert (leaderboard()["eps_measured"] == 0.031).sum() == 7
    assert leaderboard("cifar10", "corruptions")["eps_measured"].isna().all()


def test_types_and_units():
    rows = leaderboard()
    columns = {
        float: ("robust_acc", "clean_acc", "autoattack_acc", "external", "eps", "eps_measured"),
        "boolean": ("additional_data", "unreliable", "in_model_zoo"),
        "int64": ("rank", "number_forward_passes"),
    }
    assert all(rows[name].dtype == kind for kind, names in columns.items() for name in names)
    assert rows["in_model_zoo"].sum() == 76
    assert rows["unreliable"].isna().any()
    texts = rows.drop(columns=rows.select_dtypes(["number", "boolean"]).columns)
    assert texts.map(lambda value: isinstance(value, str)).all().all()


@pytest.mark.parametrize(
    "board", [("cifar100", "L2"), ("cifar10", "corruptions_3d"), ("mnist", "Linf"), ("cifar10", "_mce")]
)
def test_boards_that_do_not_exist(board):
    with pytest.raises(ValueError, match=r"no leaderboard for .*'imagenet corruptions_3d'"):
        leaderboard(*board)


@pytest.mark.parametrize(("dataset", "model_id", "correct", "rank", "of"), LBGAT)
def test_published_ranks_of_lbgat(dataset, model_id, correct, rank, of):
    """By id, by a result that has the id, and by one more result of the same number."""
    published = compare(model_id, dataset, "Linf")
    assert (published.rank, published.of, published.robust_acc) == (rank, of, correct / 100)
    replaced = compare(made(correct, model_name=model_id, dataset=dataset))
    assert (replaced.rank, replaced.of) == (rank, of)
    assert replaced.around["model_id"].tolist().count(model_id) == 1
    added = compare(made(correct, dataset=dataset))
    assert (added.rank, added.of) == (rank, of + 1)
    assert published.best_rank <= rank <= published.worst_rank
    assert (published.best_rank, published.worst_rank) == (replaced.best_rank, replaced.worst_rank)


def test_rows_around():
    tie = compare(made(5357), n_rows=2).around  # in order of the ids among equal numbers
    assert tie["model_id"].tolist() == ["Cui2020Learnable_34_20", "mine", "Zhang2020Attacks"]
    assert tie["rank"].tolist() == [63, 63, 65]
    assert len(compare(made(5357), n_rows=1000).around) == 100
    middle = compare("Cui2020Learnable_34_20", n_rows=4).around
    assert middle["rank"].tolist() == [61, 62, 63, 64, 65]
    best, last = compare(made(10_000)), compare(made(0))
    assert (best.rank, best.best_rank, best.worst_rank, best.of) == (1, 1, 1, 100)
    assert last.rank == 98  # as those that have 0.00 too
    assert [len(frame) for frame in (best.around, last.around)] == [11, 11]
    with pytest.raises(ValueError, match="n_rows"):
        compare("Cui2020Learnable_34_20", n_rows=0)


def test_same_architecture_whatever_it_is_called():
    for name in ("wrn-34-10", "WideResNet-34-10"):
        rows = compare(made(architecture=name)).same_architecture
        assert len(rows) == 1 + (leaderboard()["architecture"] == "WideResNet-34-10").sum() > 10
        assert set(rows[~rows["own"]]["architecture"]) == {"WideResNet-34-10"}
    assert len(compare(made(architecture="unheard-of")).same_architecture) == 1
    published = {name for board in BOARDS for name in leaderboard(*board)["architecture"]}
    assert len({architecture_key(name) for name in published}) == len(published)
    assert architecture_key("wrn-34-10") != architecture_key("wrn-341-0")


def test_rows_of_the_same_extra_data():
    board = leaderboard()
    plain = board[~board["additional_data"] & (board["synthetic_images"] == "")]
    extra = board[board["additional_data"] & (board["synthetic_images"] == "")]
    synthetic = board[~board["additional_data"] & (board["synthetic_images"] != "")]
    assert min(len(plain), len(extra), len(synthetic)) > 5
    for options, rows in (({}, plain), ({"additional_data": True}, extra), ({"synthetic_images": "1M"}, synthetic)):
        found = compare(made(), **options).same_data
        assert set(found[~found["own"]]["model_id"]) == set(rows["model_id"])
    known = compare(made(model_name="Rade2021Helper_R18_ddpm")).same_data  # what the board says about that model
    assert set(known["model_id"]) == set(synthetic["model_id"])


def test_fewer_images_give_a_wider_range_of_ranks():
    full, part = compare(made(5000)), compare(made(50, 100))
    assert part.best_rank < full.best_rank <= full.rank <= full.worst_rank < part.worst_rank


def test_the_many_corruptions_of_one_image_are_no_new_images():
    result = made(8_800, threat_model="corruptions", eps=None)
    found = compare(dataclasses.replace(result, robust=Accuracy(660_000, 750_000)))
    low, high = (100 * end for end in Accuracy(8_800, 10_000).interval)
    board = leaderboard("cifar10", "corruptions")["robust_acc"]
    assert (found.robust_acc, found.label) == (88.0, "like for like")
    assert (found.best_rank, found.worst_rank) == (1 + (board > high).sum(), 1 + (board > low).sum())


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"eps": 0.031}, "eps 0.031 instead of 8/255"),
        ({"n": 1000, "robust": 500}, "1,000 images instead of 10,000"),
        ({"differences": ("images that are not the published files",)}, "images that are not the published files"),
        ({"flags": {"softmax": "...", "dynamic": "..."}}, "AutoAttack raised a flag: softmax, dynamic"),
        (
            {"model_name": "Xiao2020Enhancing", "robust": 1850},
            "the board ranks this model by 7.40 % of an external evaluation",
        ),
    ],
)
def test_what_differs_is_said(changes, difference):
    assert compare(made()).differences == ()
    found = compare(made(**changes))
    assert found.differences == (difference,)
    assert found.label == f"not like for like: {difference}"
    assert found.label in str(found)
    unreliable = compare("Xiao2020Enhancing").differences
    assert unreliable == ("eps 0.031 instead of 8/255", "AutoAttack raised a flag")
    assert compare("Cui2020Learnable_34_10_LBGAT9_eps_8_255", "cifar100").label == "like for like"
    assert compare("Standard", "cifar10", "corruptions").differences == ()


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"dataset": "cifar100", "threat_model": "L2"}, (), "no leaderboard"),
        ({"eps": None}, (), "eps: expected a finite number > 0, got None"),
        ({"eps": math.nan}, (), "eps: expected a finite number > 0, got nan"),
        ({"threat_model": "corruptions"}, (), "eps: expected None under corruptions"),
        ({}, ("cifar10", "L2"), "threat_model: the result was measured on 'Linf'"),
        ({}, ("cifar100",), "dataset: the result was measured on 'cifar10'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        compare(made(**changes), *arguments)
    with pytest.raises(ValueError, match="cifar100 Linf has no row 'Cui2020Learnable_34_20'"):
        compare("Cui2020Learnable_34_20", "cifar100")


def test_a_comparison_reads_well():
    found = compare("Cui2020Learnable_34_10_LBGAT6", "cifar100")
    lines = str(found).splitlines()
    assert lines[0].startswith("Cui2020Learnable_34_10_LBGAT6, cifar100 Linf: robust 29.33 %, rank 28 of 38 (26 to 31 ")
    assert lines[1] == "not like for like: eps 0.031 instead of 8/255"
    assert [line.split()[1:3] for line in lines if ">" in line] == [[">", "Cui2020Learnable_34_10_LBGAT6"]]
    assert found == compare("Cui2020Learnable_34_10_LBGAT6", "cifar100")
    (row,) = found.to_frame().to_dict("records")
    assert (row["rank"], row["of"], row["best_rank"], row["worst_rank"]) == (28, 38, 26, 31)
    board = leaderboard("cifar100")
    same = board[board["architecture"] == "WideResNet-34-10"]
    assert (row["rank_same_architecture"], row["of_same_architecture"]) == (1 + (same["rank"] < 28).sum(), len(same))
    plain = board[~board["additional_data"] & (board["synthetic_images"] == "")]
    assert (row["rank_same_data"], row["of_same_data"]) == (1 + (plain["rank"] < 28).sum(), len(plain))
    assert row["label"] == "not like for like: eps 0.031 instead of 8/255"
