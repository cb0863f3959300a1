"""Lecture 3's network and its repairs in PyTorch: built layer by layer, trained in a loop."""

from __future__ import annotations

import torch
from torch import nn

from course_lib._validation import require_type
from course_lib.data import DigitsSplit, draw_batches
from course_lib.pytorch.models import MODULES, blank_linear
from course_lib.pytorch.randomness import generators_kept
from course_lib.repairs import Repair, RepairRun, check_repair
from course_lib.specs import MLPWeights, check_weights


def build_repair(repair: Repair, weights: MLPWeights) -> nn.Sequential:
    """Return the network of `repair` with a copy of `weights`, float32, in training mode.

    Each hidden layer is Linear, activation, then batch norm and dropout if there are any. Batch
    norm has Keras's eps of 1e-3, and the repair's share of each new batch in its averages.
    """
    network = require_type("repair", repair, Repair).network
    check_weights(network, weights)
    layers: list[nn.Module] = []
    for k, (matrix, bias) in enumerate(zip(weights.matrices, weights.biases, strict=True)):
        linear = blank_linear(matrix.shape[1], matrix.shape[0], dtype=torch.float32)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(matrix, device="cpu"))
            linear.bias.copy_(torch.tensor(bias, device="cpu"))
        layers.append(linear)
        if k < network.depth - 1:
            layers.append(MODULES[network.activation]())
            if repair.batch_norm:
                layers.append(nn.BatchNorm1d(len(matrix), 1e-3, momentum=repair.batch_share))
            if repair.dropout:
                layers.append(nn.Dropout(repair.dropout))
    return nn.Sequential(*layers)


def train_repair(
    repair: Repair, weights: MLPWeights, data: DigitsSplit, *, epochs: int, batch_size: int = 32,
    seed: int,
) -> RepairRun:  # fmt: skip
    """Train one repair from given weights and return its accuracy after every epoch.

    Arguments:
        repair: the network and how it is trained.
        weights: its initial weights.
        data: from `course_lib.data.load_digits_split`.
        epochs: at least 1.
        batch_size: at least 1, and 2 with batch norm.
        seed: of the batches, the same in both frameworks, and of PyTorch's dropout.
    """
    epochs, batch_size, seed = check_repair(
        repair, weights, data, epochs=epochs, batch_size=batch_size, seed=seed
    )
    model = build_repair(repair, weights)
    x, y = torch.tensor(data.x_train, dtype=torch.float32), torch.tensor(data.y_train)
    x_test, y_test = torch.tensor(data.x_test, dtype=torch.float32), torch.tensor(data.y_test)
    kind = torch.optim.Adam if repair.optimizer == "adam" else torch.optim.SGD
    rule = kind(model.parameters(), lr=repair.learning_rate)
    per_epoch = len(x) // batch_size
    batches = draw_batches(len(x), batch_size=batch_size, steps=epochs * per_epoch, seed=seed)
    losses, accuracies = [], []
    with generators_kept(seed):
        for step, rows in enumerate(map(torch.from_numpy, batches), start=1):
            rule.zero_grad()
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            if repair.clip_norm is not None:  # per tensor: what Keras's clipnorm means
                for parameter in model.parameters():
                    nn.utils.clip_grad_norm_([parameter], repair.clip_norm)
            rule.step()
            losses.append(loss.item())
            if step % per_epoch == 0:
                model.eval()
                with torch.no_grad():
                    accuracies.append((model(x_test).argmax(1) == y_test).float().mean().item())
                model.train()
    return RepairRun("PyTorch", len(losses), losses[0], tuple(accuracies))
