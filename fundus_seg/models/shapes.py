"""Networks without numbers, on torch's device `meta`: their shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def without_numbers() -> Iterator[None]:
    """Within, what is built takes no memory and no time."""
    with torch.device("meta"), NoFilling():
        yield


class NoFilling(TorchFunctionMode):
    """Leaves tensors without numbers as they are: torch would import its whole compiler to fill them at random."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, unless it is of `torch.nn.init` or one that they call, and its tensor has no numbers."""
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", None) == nn.init.__name__:
            tensor = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("tensor")
            if tensor is not None and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
