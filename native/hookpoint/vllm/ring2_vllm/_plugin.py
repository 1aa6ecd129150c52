"""``register``: what vLLM calls in each of its processes. It checks, wraps, and does nothing else.

An exception in a plugin ends vLLM's start, so nothing leaves this file. A vLLM whose symbols are not
those that were looked at is left alone, with one log line.
"""

import functools
import importlib
import inspect
import logging
import sys
from typing import Any

from . import _aborts, _settings, _trace

logger = logging.getLogger("vllm.ring2")

WORKER = "vllm.v1.worker.gpu_worker"
RUNNER = "vllm.v1.worker.gpu_model_runner"
SCHEDULER = "vllm.v1.core.sched.scheduler"
STATUS = "vllm.v1.request"

# What is wrapped or called, with the parameters that must be there.
SYMBOLS = (
    (WORKER, "Worker.load_model", ("self",)),
    (WORKER, "Worker.execute_model", ("self", "scheduler_output")),
    (WORKER, "Worker.shutdown", ("self",)),
    (RUNNER, "GPUModelRunner.execute_model", ("self", "scheduler_output")),
    (RUNNER, "GPUModelRunner._model_forward", ("self", "input_ids", "positions", "inputs_embeds")),
    (SCHEDULER, "Scheduler.finish_requests", ("self", "request_ids", "finished_status")),
    (SCHEDULER, "Scheduler.schedule", ("self",)),
    ("vllm.v1.engine.async_llm", "AsyncLLM.add_request", ("self", *_trace.PARAMETERS)),
    ("vllm.v1.engine.llm_engine", "LLMEngine.add_request", ("self", *_trace.PARAMETERS)),
)

# vLLM looks at a model's class in a short process of its own, where nothing is served.
INSPECTION = "vllm.model_executor.models.registry"

_registered = False


def _is_inspection() -> bool:
    specification = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(specification, "name", None) == INSPECTION


def find(module: str, name: str) -> Any:
    """The named part of a module of vLLM. Raises ImportError or AttributeError."""
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def missing() -> list[str]:
    """What of SYMBOLS this vLLM does not have, or has with other parameters."""
    absent = []
    for module, name, parameters in SYMBOLS:
        try:
            known = inspect.signature(find(module, name)).parameters
        except (ImportError, AttributeError, ValueError, TypeError):
            absent.append(f"{module}.{name}")
            continue
        absent += [f"{module}.{name}({p})" for p in parameters if p not in known]
    return absent


def register() -> None:
    """Wraps what capture needs, once per process. Never raises."""
    global _registered
    if _registered or not _settings.enabled() or _is_inspection():
        return
    _registered = True
    try:
        absent = missing()
        if absent:
            import vllm

            logger.warning(
                "ring2: nothing is captured: vLLM %s lacks %s. Tested with vLLM 0.32.0; install a "
                "ring2-vllm made for this version, or set RING2_VLLM=off.",
                vllm.__version__, ", ".join(absent),
            )
            return
        _wrap_worker(find(WORKER, "Worker"))
        aborted = find(STATUS, "RequestStatus.FINISHED_ABORTED")
        _aborts.wrap_scheduler(find(SCHEDULER, "Scheduler"), aborted)
        _trace.wrap_add_request(find("vllm.v1.engine.async_llm", "AsyncLLM"), False)
        _trace.wrap_add_request(find("vllm.v1.engine.llm_engine", "LLMEngine"), True)
    except Exception:  # noqa: BLE001  the engine must start, whatever this was
        logger.exception("ring2: nothing is captured; vLLM goes on without it")


def _wrap_worker(worker: type) -> None:
    if getattr(worker.load_model, "_ring2", False):
        return
    load_model, execute_model = worker.load_model, worker.execute_model
    shutdown = worker.shutdown

    @functools.wraps(load_model)
    def load(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load_model(self, *args, **kwargs)
        from ._start import start

        self._ring2 = start(self)
        return result

    @functools.wraps(execute_model)
    def execute(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        capture = getattr(self, "_ring2", None)
        if capture is None:
            return execute_model(self, scheduler_output, *args, **kwargs)
        capture.begin(scheduler_output)
        try:
            return execute_model(self, scheduler_output, *args, **kwargs)
        finally:
            capture.end()

    @functools.wraps(shutdown)
    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        capture = getattr(self, "_ring2", None)
        if capture is not None:
            capture.close()
        return shutdown(self, *args, **kwargs)

    load._ring2 = True
    worker.load_model, worker.execute_model, worker.shutdown = load, execute, stop
