"""Operators by which a compiled model begins and ends its steps, and computes attention beside it.

A compiler traces hooks once, with tensors that hold nothing; what depends on values (who the
request is, where padding lies, whether anybody wants a tensor) is decided when the graph runs. So a
traced hook calls an operator, and the operator calls back into Python. Each changes the probe's
token, as ``ring2::capture`` does: a compiler then neither drops them nor changes their order.

``traced`` says which of the two ways a hook has to go. Probes are known by number, so that the
code of a model whose probe is gone runs on and captures nothing.
"""

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ._steps import model_input

logger = logging.getLogger("ring2")

_OPERATORS = {
    "begin": "(Tensor(a!) token, int probe, Tensor? ids, Tensor? embeddings, Tensor? mask, "
    "Tensor? positions, Tensor? cache_position, Tensor? filled, SymInt past, Tensor? keys, "
    "bool picks_logits) -> ()",
    "end": "(Tensor(a!) token, int probe, Tensor? keys) -> ()",
    "attend": "(Tensor(a!) token, int probe, int layer, Tensor query, Tensor key, Tensor? mask, "
    "bool known_mask, float? scaling, bool causal) -> ()",
    "fail": "(Tensor(a!) token, int probe, int hook, int layer) -> ()",
}


class Handlers(NamedTuple):
    """What the operators call in a probe. None of them raises."""

    begin: Callable[[dict[str, Any]], None]
    end: Callable[["TracedCache | None"], None]
    attend: Callable[..., None]
    fail: Callable[[int, int], None]
    settle: Callable[[], None]


class TracedCache:
    """A key-value cache as a compiled graph shows it: how full it is, and where its keys lie."""

    __slots__ = ("__weakref__", "address", "past")

    def __init__(self, past: int, keys: Any) -> None:
        self.past = past
        self.address = 0 if keys is None else keys.data_ptr()

    def get_seq_length(self) -> int:
        return self.past


_numbers = itertools.count(1)
_handlers: dict[int, Handlers] = {}
_lock = threading.Lock()
_library: Any = None


def traced() -> bool:
    """Whether a compiler traces the caller, instead of running it."""
    import torch

    return torch.compiler.is_dynamo_compiling()


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which a compiler runs as it is, with all that it calls."""
    import torch

    return torch.compiler.disable(function)


def never_first(*functions: Any) -> None:
    """A compiler begins no graph with these functions; inside a graph it follows them."""
    from torch._dynamo.eval_frame import skip_code

    for function in functions:
        skip_code(function.__code__)


def register(handlers: Handlers) -> int:
    """Makes the operators call these; returns the number to give them."""
    import torch

    _define()
    torch.compiler.assume_constant_result(_settle)
    number = next(_numbers)
    _handlers[number] = handlers
    return number


def forget(number: int) -> None:
    _handlers.pop(number, None)


def announces_itself() -> bool:
    """Whether the compiler of this process says when it begins to trace."""
    try:
        from torch._dynamo import callback_handler
    except ImportError:
        return False
    return hasattr(callback_handler, "register_start_callback")


def be_told(number: int) -> None:
    """Has a probe's ``settle`` called before a compiler traces anything. Costs nothing again.

    Said again before every step: whoever resets the compiler makes it forget whom it tells.
    """
    from torch._dynamo import callback_handler

    if _settle_all not in callback_handler.start_callbacks and number in _handlers:
        callback_handler.register_start_callback(_settle_all)


def _settle_all(_: object) -> None:
    for handlers in list(_handlers.values()):
        handlers.settle()


def _settle(number: int) -> bool:
    """What a compiler runs when it begins to trace a forward pass, before it sees its modules."""
    handlers = _handlers.get(number)
    if handlers is not None:
        handlers.settle()
    return True


def start_anew() -> None:
    """Has what is compiled already compiled again, with the hooks that are there now.

    A compiler does not look at hooks again once it has compiled a module.
    """
    frames = sys.modules.get("torch._dynamo.convert_frame")
    if frames is None or not frames.input_codes.seen:
        return
    import torch

    torch.compiler.reset()
    logger.info("ring2: compiled code of this process is compiled again, with the capture in it")


def _define() -> None:
    global _library
    import torch

    with _lock:
        if _library is not None:
            return
        library = torch.library.Library("ring2", "FRAGMENT")
        # Their Python must run at every pass, so a CUDA graph must not take them in.
        unsafe = getattr(torch.Tag, "cudagraph_unsafe", None)
        for name, schema in _OPERATORS.items():
            library.define(name + schema, tags=() if unsafe is None else (unsafe,))
            library.impl(name, globals()[f"_{name}"], "CompositeExplicitAutograd")
            library.impl(name, _nothing, "Meta")
        _library = library


def _nothing(*_: Any) -> None:
    """On tensors without bytes (shape propagation, compilation) there is no step."""


def _begin(
    _token: Any, probe: int, ids: Any, embeddings: Any, mask: Any, positions: Any,
    cache_position: Any, filled: Any, past: int, keys: Any, picks_logits: bool,
) -> None:
    handlers = _handlers.get(probe)
    if handlers is None:
        return
    cache = TracedCache(past if filled is None else int(filled), keys)
    handlers.begin({
        "input_ids": ids, "inputs_embeds": embeddings, "attention_mask": mask,
        "position_ids": positions, "cache_position": cache_position, "past_key_values": cache,
        "logits_to_keep": ids if picks_logits else 0,
    })


def _end(_token: Any, probe: int, keys: Any) -> None:
    handlers = _handlers.get(probe)
    if handlers is not None:
        handlers.end(None if keys is None else TracedCache(0, keys))


def _attend(_token: Any, probe: int, *arguments: Any) -> None:
    handlers = _handlers.get(probe)
    if handlers is not None:
        handlers.attend(*arguments)


def _fail(_token: Any, probe: int, hook: int, layer: int) -> None:
    handlers = _handlers.get(probe)
    if handlers is not None:
        handlers.fail(hook, layer)


# ---------------------------------------------------------------------- what is traced


def _layer_keys(cache: Any) -> Any:
    """The keys of a cache's first layer; None while there are none."""
    layers = getattr(cache, "layers", None)
    if layers is None or len(layers) == 0:
        return None
    return getattr(layers[0], "keys", None)


def _tensor(value: Any) -> Any:
    import torch

    if isinstance(value, Mapping):
        value = value.get("full_attention", next(iter(value.values()), None))
    return value if isinstance(value, torch.Tensor) else None


def trace_hooks(
    token: Any, number: int, bind: Callable[..., Any], depth: list[int] | None
) -> tuple[Callable[..., None], Callable[[Any], None]]:
    """What a compiler traces before and after a forward pass: the operators in the graph.

    ``depth`` counts calls inside one another while they are traced, where several modules of a
    model begin forward passes.
    """

    def before(args: tuple, kwargs: dict[str, Any]) -> None:
        if depth is not None:
            depth[0] += 1
            if depth[0] > 1:
                return
        _settle(number)
        _trace_begin(token, number, bind(args, kwargs))

    def after(output: Any) -> None:
        if depth is not None:
            depth[0] -= 1
            if depth[0] > 0:
                return
        _trace_end(token, number, output)

    return before, after


def _trace_begin(token: Any, number: int, arguments: Mapping[str, Any]) -> None:
    import torch

    tensor, ids = model_input(arguments)
    cache = arguments.get("past_key_values")
    past, filled = 0, None
    if hasattr(cache, "get_seq_length"):
        length = cache.get_seq_length()
        if isinstance(length, torch.Tensor):
            filled = length
        else:
            past = length
    elif isinstance(cache, (tuple, list)) and len(cache) > 0 and cache[0] is not None:
        past = cache[0][0].shape[-2]
    torch.ops.ring2.begin(
        token, number, ids, None if ids is not None else tensor,
        _tensor(arguments.get("attention_mask")), _tensor(arguments.get("position_ids")),
        _tensor(arguments.get("cache_position")), filled, past, _layer_keys(cache),
        isinstance(arguments.get("logits_to_keep"), torch.Tensor),
    )


def _trace_end(token: Any, number: int, output: Any) -> None:
    import torch

    cache = getattr(output, "past_key_values", None)
    keys = None
    # A static cache is written in place: its keys were named when the step began, and reading them
    # here again would have them copied.
    if hasattr(cache, "get_seq_length") and not isinstance(cache.get_seq_length(), torch.Tensor):
        keys = _layer_keys(cache)
    torch.ops.ring2.end(token, number, keys)


def live_address(cache: Any) -> int:
    """Where the keys of a cache lie now; 0 when it has none."""
    keys = _layer_keys(cache)
    return 0 if keys is None else keys.data_ptr()
