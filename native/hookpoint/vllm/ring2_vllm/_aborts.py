"""How requests ended: from the scheduler to the workers, with the outputs that go there anyway.

vLLM tells a worker that a request is over, not how. Its scheduler knows, in whatever process it is; the
names of aborted requests become an attribute of the next output, which is pickled with it. What ended
since the last output is told when a worker of the same process closes.

vLLM also aborts a request in the scheduler whose answer is whole: when its text holds a stop string,
and when the input of a streaming session ends. What could be one of these is not called aborted.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

logger = logging.getLogger("vllm.ring2")

ABORTED = "aborted"  # an outcome
NAMES = "_ring2_aborted"  # on a scheduler's output, and on the scheduler until then


class Untold(NamedTuple):
    """Internal ids of requests that ended since a scheduler's last output, in sets that it adds to."""

    finished: set[str]
    aborted: set[str]


_untold: dict[int, Untold] = {}  # of the schedulers of this process


def aborted_of(scheduled: Any) -> Iterable[str]:
    """Internal ids of the requests that an output of the scheduler names as aborted."""
    return getattr(scheduled, NAMES, ())


def untold() -> Untold:
    """What no output of this process's schedulers has told yet."""
    schedulers = _untold.values()
    return Untold(
        set().union(*(one.finished for one in schedulers)),
        set().union(*(one.aborted for one in schedulers)),
    )


def _is_certain(request: Any) -> bool:
    parameters = getattr(request, "sampling_params", None)
    resumable = getattr(request, "resumable", False)
    return parameters is not None and not getattr(parameters, "stop", None) and not resumable


def _note(scheduler: Any, finished: Iterable[Any] | None) -> None:
    names = vars(scheduler).setdefault(NAMES, set())
    names.update(one.request_id for one in finished or () if _is_certain(one))


def _tell(scheduler: Any, output: Any) -> None:
    names = vars(scheduler).setdefault(NAMES, set())
    if names:
        setattr(output, NAMES, frozenset(names))
        names.clear()
    _untold[id(scheduler)] = Untold(getattr(scheduler, "finished_req_ids", set()), names)


def _guarded(act: Callable[..., None]) -> Callable[..., None]:
    """The same, which never raises: the engine must go on, whatever this was."""
    said = False

    def guarded(*args: Any) -> None:
        nonlocal said
        try:
            act(*args)
        except Exception:  # noqa: BLE001
            if not said:
                logger.exception("ring2: aborted requests cannot be told from others any more")
            said = True

    return guarded


def wrap_scheduler(scheduler: type, aborted_status: Any) -> None:
    """Has every output of ``scheduler`` name the requests that were aborted since the last one."""
    finish_requests, schedule = scheduler.finish_requests, scheduler.schedule
    note, tell = _guarded(_note), _guarded(_tell)

    @functools.wraps(finish_requests)
    def finish(self: Any, request_ids: Any, finished_status: Any) -> Any:
        finished = finish_requests(self, request_ids, finished_status)
        if finished_status == aborted_status:
            note(self, finished)
        return finished

    @functools.wraps(schedule)
    def scheduled(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = schedule(self, *args, **kwargs)
        tell(self, output)
        return output

    scheduler.finish_requests, scheduler.schedule = finish, scheduled
