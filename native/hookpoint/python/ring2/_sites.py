"""What a place to capture is: a module, one of its sides, and the view in the catalogue's axes.

Types and views only; which modules of a model they are is known by _families.py and _models.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

INPUT = "input"
OUTPUT = "output"
SCORES = "scores"  # attention scores before softmax, by the attention function
WEIGHTS = "weights"  # attention probabilities, by the attention function or the module's output

View = Callable[[Any], Any]


class Heads(NamedTuple):
    """[…, heads · head_dim] as […, heads, head_dim]; the operator does it, by numbers alone.

    With a ``count``, only so many heads from ``first`` on: one of the parts that a fused projection
    has side by side. Without one, four axes are left as they are.
    """

    head_dim: int
    first: int = 0
    count: int = 0

    @property
    def code(self) -> int:
        """Beside a hook's number; as in torch_shape.h."""
        return self.head_dim << 16 | self.first << 32 | self.count << 48


class Site(NamedTuple):
    """One place to capture.

    ``part`` is the index among positional arguments, or in an output that is a tuple;
    ``argument`` the name of an input that is passed by name.
    """

    hook: str
    layer: int  # -1 for a global hook
    module: Any
    side: str
    view: View | Heads | None = None
    part: int = 0
    argument: str = "hidden_states"


class Structure(NamedTuple):
    """A model as ring2 sees it.

    ``entrances`` are the modules whose call is a forward pass of the model: the one that was
    attached and, in a wrapper, the language model inside.
    """

    sites: tuple[Site, ...]
    layer_count: int
    info: dict[str, object]
    captures_token_ids: bool
    entrances: tuple[Any, ...]
    config: Any = None  # the language model's, where it has one


def as_int32(tensor: Any) -> Any:
    """Numbers of experts in the catalogue's dtype; they are below 2^31."""
    import torch

    return tensor.to(torch.int32)


def as_float32(tensor: Any) -> Any:
    """Weights in the catalogue's dtype; exact, as it is at least as wide as the model's."""
    import torch

    return tensor.to(torch.float32)
