"""A recipe of `course_lib.cures` in PyTorch, in float64: the first gradient, and the training."""

from __future__ import annotations

import torch
from torch import nn

from course_lib._validation import require_type
from course_lib.cures import FLOW_INPUTS, Recipe, check_trial
from course_lib.data import DigitsSplit, draw_batches
from course_lib.pytorch.models import MODULES, blank_linear
from course_lib.specs import MLPWeights, check_weights, draw_weights

NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class HiddenLayer(nn.Module):
    r"""$h_l = [h_{l-1} +] f(\mathrm{norm}(W_l h_{l-1} + b_l))$, the sum only with a shortcut."""

    def __init__(self, n_in: int, n_out: int, recipe: Recipe, *, shortcut: bool) -> None:
        super().__init__()
        self.linear = blank_linear(n_in, n_out, dtype=torch.float64)
        self.norm = NORMS[recipe.norm](n_out, dtype=torch.float64)
        self.activation = MODULES[recipe.network.activation]()
        self.shortcut = shortcut

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return $h_l$ for $h_{l-1}$, a batch of rows."""
        f = self.activation(self.norm(self.linear(h)))
        return h + f if self.shortcut else f


def build_recipe(recipe: Recipe, weights: MLPWeights) -> nn.Sequential:
    """Return the network of `recipe` with a copy of `weights`, float64, in training mode."""
    spec = require_type("recipe", recipe, Recipe).network
    check_weights(spec, weights)
    layers = [
        HiddenLayer(matrix.shape[1], len(matrix), recipe, shortcut=recipe.shortcut and k > 0)
        for k, matrix in enumerate(weights.matrices[:-1])
    ]
    model = nn.Sequential(*layers, blank_linear(spec.width, spec.n_out, dtype=torch.float64))
    linears = [*(layer.linear for layer in layers), model[-1]]
    with torch.no_grad():
        for linear, matrix, bias in zip(linears, weights.matrices, weights.biases, strict=True):
            linear.weight.copy_(torch.tensor(matrix, device="cpu"))
            linear.bias.copy_(torch.tensor(bias, device="cpu"))
    return model


def run_recipe(
    recipe: Recipe, data: DigitsSplit, *, seed: int, steps: int = 150, batch_size: int = 32
) -> tuple[float, float]:
    """Return what `course_lib.cures.measure_trial` measures, for one seed: decades and accuracy.

    Arguments:
        recipe: the network and how it is trained.
        data: from `course_lib.data.load_digits_split`.
        seed: of the weights and the batches.
        steps: number of updates, at least 0.
        batch_size: digits in each, at least 1, and 2 with batch norm.
    """
    steps, batch_size = check_trial(recipe, data, steps=steps, batch_size=batch_size)
    weights = draw_weights(recipe.network, seed=seed)
    model = build_recipe(recipe, weights)
    x, y = torch.tensor(data.x_train), torch.tensor(data.y_train)
    states, h = [], x[:FLOW_INPUTS]
    for layer in model:
        h = layer(h)
        states.append(h)
    loss = nn.functional.cross_entropy(h, y[:FLOW_INPUTS])
    grads = torch.autograd.grad(loss, [states[0], states[-2]])
    first, last = (grad.norm() for grad in grads)
    model = build_recipe(recipe, weights)  # anew: the running averages have seen the data
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps, seed=seed)
    _train(model, recipe, x, y, batches)
    model.eval()
    with torch.no_grad():
        right = model(torch.tensor(data.x_test)).argmax(dim=1) == torch.tensor(data.y_test)
    return (first.log10() - last.log10()).item(), right.double().mean().item()


def _train(
    model: nn.Module, recipe: Recipe, x: torch.Tensor, y: torch.Tensor, batches: object
) -> None:
    matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others}]
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.SGD
    rule = kind(groups, lr=recipe.learning_rate)
    for rows in map(torch.from_numpy, batches):
        rule.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        rule.step()
