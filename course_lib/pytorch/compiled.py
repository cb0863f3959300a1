"""What `torch.compile` was given: the modules behind it, and how to run them as they are written.

Compiled code runs no hooks; and hooks that are on while it is compiled become part of it.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import nn

WRAPPER = "_orig_mod"
"""The name under which `torch.compile(module)` holds the module."""

ABOUT_HOOKS = r"Using `torch\.compile\(module\)` when there are global hooks"


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` was given; any other module as it is."""
    while isinstance(inner := getattr(model, WRAPPER, None), nn.Module):
        model = inner
    return model


def written_name(name: str) -> str:
    """Return the path of a module or a parameter as the model's author wrote it."""
    return ".".join(part for part in name.split(".") if part != WRAPPER)


def uncompile(model: nn.Module) -> nn.Module:
    """Return a model as it was before any part of it was compiled; the model itself is changed."""
    for module in model.modules():
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = unwrapped(child)
        module._compiled_call_impl = None
        forward = vars(module).get("forward")
        if hasattr(forward, "_torchdynamo_orig_callable"):
            del module.forward
    return unwrapped(model)


class Uncompiled:
    """From here on, compiled code runs as it is written, until `remove` is called."""

    def __init__(self) -> None:
        self._stance = None
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and to import it takes long
            with contextlib.suppress(RuntimeError):  # within compiled code it cannot be asked for
                self._stance = torch.compiler.set_stance("force_eager")

    def remove(self) -> None:
        """Let compiled code run compiled again."""
        if self._stance is not None:
            with contextlib.suppress(RuntimeError):
                self._stance.__exit__(None, None, None)


class Silence:
    """No warning, until `remove` is called, that the hooks of all modules meet a compiled one.

    Such hooks run once more, for the wrapper; it is not among the modules that are watched.
    """

    def __init__(self) -> None:
        warnings.filterwarnings("ignore", message=ABOUT_HOOKS, category=UserWarning)
        self._filters, self._filter = warnings.filters, warnings.filters[0]

    def remove(self) -> None:
        """Let the warning be shown again."""
        with contextlib.suppress(ValueError):
            self._filters.remove(self._filter)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Run what was compiled uncompiled within, and warn of no hook."""
    silence, uncompiled = Silence(), Uncompiled()
    try:
        yield
    finally:
        uncompiled.remove()
        silence.remove()
