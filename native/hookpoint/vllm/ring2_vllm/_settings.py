"""Settings of the plugin: environment variables, and ``additional_config["ring2"]`` above them.

Values are checked when a worker starts its capture. What is wrong raises Ring2Error, which ends in
one log line; the engine serves on without capture.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ring2._errors import Ring2Error

SWITCH = "RING2_VLLM"
VARIABLES = {
    "hooks": "RING2_VLLM_HOOKS",
    "layers": "RING2_VLLM_LAYERS",
    "segment": "RING2_VLLM_SEGMENT",
    "directory": "RING2_VLLM_DIRECTORY",
    "payload_mb": "RING2_VLLM_PAYLOAD_MB",
    "when_full": "RING2_VLLM_WHEN_FULL",
    "pattern_queries": "RING2_VLLM_PATTERN_QUERIES",
}
OFF = ("0", "off", "false", "no")
PATTERN_QUERIES_MAX = 4096
TRACED = "traced"  # what a worker writes for vLLM's compile cache, beside the settings


class Settings(NamedTuple):
    """What a worker captures, and where to."""

    hooks: str = "hidden-states,resid_final,logits,token-ids,pattern[::8]"
    layers: str = "all"
    segment: str = ""  # the model's name and the process id
    directory: str = ""  # /dev/shm
    payload_mb: float = 256.0
    when_full: str = "drop"
    pattern_queries: int = 1  # of each request and step, its last ones


def enabled(environment: Mapping[str, str] = os.environ) -> bool:
    """False when ``RING2_VLLM`` says off."""
    return environment.get(SWITCH, "on").strip().lower() not in OFF


def _error(name: str, expected: str, actual: object) -> Ring2Error:
    return Ring2Error("RING2_E_ARGUMENT", f"expected {name} to be {expected}, got {actual!r}")


def _value(name: str, given: object) -> object:
    """A given value in the type of the setting's default."""
    kind = type(Settings._field_defaults[name])
    try:
        if isinstance(given, (str, int, float)) and not isinstance(given, bool):
            return kind(given)
    except ValueError:
        pass
    raise _error(name, "a number" if kind is not str else "a string", given)


def read(additional: object, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force. Raises RING2_E_ARGUMENT for what cannot be meant."""
    given: dict[str, object] = {}
    for name, variable in VARIABLES.items():
        text = environment.get(variable)
        if text:
            given[name] = _value(name, text)
    own: Any = additional.get("ring2") if isinstance(additional, Mapping) else None
    if own is not None and not isinstance(own, Mapping):
        raise _error('additional_config["ring2"]', "an object", own)
    for name, value in (own or {}).items():
        if name == TRACED:
            continue
        if name not in Settings._fields:
            known = ", ".join(Settings._fields)
            raise _error('a name in additional_config["ring2"]', f"one of {known}", name)
        given[name] = _value(name, value)
    settings = Settings(**given)
    if not 0 <= settings.pattern_queries <= PATTERN_QUERIES_MAX:
        raise _error("pattern_queries", f"0 to {PATTERN_QUERIES_MAX}", settings.pattern_queries)
    return settings
