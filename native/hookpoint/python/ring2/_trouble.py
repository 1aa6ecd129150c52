"""What a probe says of what it could not do: once each, and never to the model.

Holds whether the capture runs at all. Knows no tensors, steps or hooks.
"""

import logging

logger = logging.getLogger("ring2")


class Trouble:
    """Log lines of one probe, and whether it still captures."""

    def __init__(self, model_name: str) -> None:
        self.active = True
        self._model_name = model_name
        self._warned: set[str] = set()

    def warn(self, text: str) -> None:
        logger.warning("ring2: %s", text)

    def warn_once(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            self.warn(text)

    def disable(self, error: Exception) -> None:
        """Ends the capture after an error that was not expected; the model goes on."""
        if not self.active:
            return
        self.active = False
        logger.error(
            "ring2: capture of %s has stopped after an error; the model goes on without it: %s: %s",
            self._model_name, type(error).__name__, error, exc_info=error,
        )
