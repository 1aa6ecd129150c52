"""Which token ids end a row of a batch, as far as anybody has said.

Inside ``model.generate`` they are those in force for that call, resolved as Transformers does:
its argument, then its ``generation_config``, then the model's. Outside of it a loop of the caller's
own says nothing: the model's ``generation_config`` counts, or its ``config`` where that has none,
and the tokenizer that ``attach`` was given. Nothing here looks at a forward pass.
"""

import functools
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

# (the EndTokens whose model generates in this context, the ids in force there).
_in_force: ContextVar[tuple["EndTokens", frozenset[int]] | None] = ContextVar(
    "ring2_end_tokens", default=None
)


class EndTokens:
    """The end-of-sequence ids of one model, for the generation that runs in this context."""

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def current(self) -> frozenset[int]:
        """The ids in force for a forward pass that runs now."""
        known = _in_force.get()
        if known is not None and known[0] is self:
            return known[1]
        model = self._model
        ids = _ids(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
        if not ids:
            ids = _ids(getattr(getattr(model, "config", None), "eos_token_id", None))
        return ids | _ids(getattr(self._tokenizer, "eos_token_id", None))

    def install(self) -> Callable[[], None] | None:
        """Notes the ids of every ``generate`` call of the model; returns what undoes it.

        The replacement is a method, so that a deep copy of the model generates with itself. None
        for a model that has no ``generate``.
        """
        model = self._model
        if not callable(getattr(model, "generate", None)):
            return None
        own = model.__dict__.get("generate")
        inner = type(model).generate if own is None else _without_self(own)

        @functools.wraps(inner)
        def generate(this: Any, *args: Any, **kwargs: Any) -> Any:
            token = _in_force.set((self, self._of_call(args, kwargs)))
            try:
                return inner(this, *args, **kwargs)
            finally:
                _in_force.reset(token)

        replacement = types.MethodType(generate, model)
        model.__dict__["generate"] = replacement

        def restore() -> None:
            # Somebody who has replaced it since then keeps their own.
            if model.__dict__.get("generate") is not replacement:
                return
            del model.__dict__["generate"]
            if own is not None:
                model.__dict__["generate"] = own

        return restore

    def _of_call(self, args: tuple, kwargs: dict[str, Any]) -> frozenset[int]:
        """The ids that end a row of this call."""
        given = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
        sources = (given, getattr(self._model, "generation_config", None))

        def in_force(name: str) -> Any:
            if name in kwargs:
                return kwargs[name]
            values = (getattr(source, name, None) for source in sources)
            return next((value for value in values if value is not None), None)

        ends = _ids(in_force("eos_token_id"))
        # A row that another criterion stops shows by its padding alone, which is fed only to ended
        # rows. Without such criteria a padding id before the end is a token that was generated.
        criteria = kwargs.get("stopping_criteria", args[3] if len(args) > 3 else None)
        if ends and (criteria or in_force("stop_strings")):
            return ends | _ids(in_force("pad_token_id"))
        return ends


def _without_self(function: Callable[..., Any]) -> Callable[..., Any]:
    """A replacement of ``generate`` on the model itself, which takes no model, as a method."""

    def method(_this: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return method


def _ids(value: Any) -> frozenset[int]:
    """One id, several, or a tensor of them; anything else is none."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    values = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    return frozenset(item for item in values if isinstance(item, int))
