"""What each of two processes does in ``test_processes.py``: one training in float64, written down."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from art_lbgat import LBGATTrainer
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import NOT_REPEATED, trades


class Net(nn.Module):
    """No BatchNorm, whose statistics would be those of the rows of one process; one layer takes no part."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4))
            self.unused = nn.Linear(3, 3)
        self.double()

    def forward(self, x):
        return self.net(x.double())


#: What follows the share of the run, and so the number of its epochs.
CURVES = {"eps_warmup": 0.5, "max_iter_schedule": ((0.0, 1), (0.5, 3)), "ema_start": 0.3, "ema_warmup": True}


def train(directory, nb_epochs, curves=False):
    """Weights of student and guide as one row, and the history."""
    classifier, guide = (make_classifier(Net(seed), lr=0.05) for seed in (0, 1))
    options = {
        "guidance": "ikl",
        "ema_decay": 0.8,
        "awp_gamma": 0.01,
        "awp_start_epoch": 2,
        "max_grad_norm": 1.0,
        "regularizer": "trades",
        "eps_warmup": 0.0,
    }
    options |= CURVES if curves else {}
    trainer = LBGATTrainer(
        classifier, guide, trades(classifier), **options, seed=3, verbose=False, keep="last", checkpoint_dir=directory
    )
    # 27 samples in batches of 8: the last has three rows, too few for two processes with two each
    how = {"batch_size": 8, "nb_epochs": nb_epochs, "scheduler": "one-cycle" if curves else None}
    trainer.fit(*make_data(27), validation_data=make_data(13, seed=1), **how)
    weights = [value.flatten() for each in (classifier, guide) for value in each.model.state_dict().values()]
    history = trainer.history.drop(columns=NOT_REPEATED).to_json(orient="records", double_precision=15)
    return {"weights": torch.cat(weights).tolist(), "history": json.loads(history)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = train(sys.argv[1], int(sys.argv[2]), "curves" in sys.argv)
    Path(f"{sys.argv[1]}-{os.environ['RANK']}.json").write_text(json.dumps(found))
