"""What the exporter wants, as this thread took it at the beginning of its step.

The words lie natively, by thread and segment; a ``Control`` asks them. It holds until the thread
takes another one or ends its step, so it is never kept beyond a step.
"""

from typing import Any

_WANTS_NOTHING = 1
_CHOOSES_REQUESTS = 2
_CHOOSES_TOKENS = 4


class Control:
    """One snapshot of the control words of a segment."""

    __slots__ = ("_native", "_slot", "chooses_requests", "chooses_tokens", "sequence",
                 "wants_nothing")

    def __init__(self, native: Any, slot: int) -> None:
        self._native = native
        self._slot = slot
        taken = native.ring2_torch_take_control(slot)
        self.sequence = taken >> 8
        """For the STEP that is captured by it: says the exporter what it can expect."""
        self.wants_nothing = bool(taken & _WANTS_NOTHING)
        """No hook, no request or no token is wanted: write no STEP and no REQUEST."""
        self.chooses_requests = bool(taken & _CHOOSES_REQUESTS)
        self.chooses_tokens = bool(taken & _CHOOSES_TOKENS)

    def wants(self, hook: int, layer: int) -> bool:
        """Whether tensors of a hook id and layer (-1: a global hook) are wanted."""
        return self._native.ring2_torch_control_wants(self._slot, hook, layer) == 1

    def wants_request(self, request_id: str, sampled: bool) -> bool:
        """``sampled``: whether the request came with a sampled trace context."""
        if not self.chooses_requests:
            return True
        data = request_id.encode("utf-8", "surrogatepass")
        return self._native.ring2_torch_wants_request(self._slot, data, len(data), sampled) == 1

    def wants_tokens(self, phase: int, token_start: int, token_end: int) -> bool:
        """Whether any of the tokens [token_start, token_end) of a request is wanted."""
        if not self.chooses_tokens:
            return True
        return self._native.ring2_torch_wants_tokens(self._slot, phase, token_start, token_end) == 1
