"""Which requests were aborted: from the scheduler to the workers, with the outputs that go there anyway.

vLLM tells a worker that a request is over, not how. Its scheduler knows, in whatever process it is; the
names of aborted requests become an attribute of the next output, which is pickled with it.

vLLM also aborts a request in the scheduler whose answer is whole: when its text holds a stop string,
and when the input of a streaming session ends. What could be one of these is not called aborted.
"""

import functools
from collections.abc import Iterable
from typing import Any

ABORTED = "aborted"  # an outcome
NAMES = "_ring2_aborted"  # on a scheduler's output, and on the scheduler until then


def aborted_of(scheduled: Any) -> Iterable[str]:
    """Internal ids of the requests that an output of the scheduler names as aborted."""
    return getattr(scheduled, NAMES, ())


def _is_certain(request: Any) -> bool:
    parameters = getattr(request, "sampling_params", None)
    return parameters is not None and not parameters.stop and not request.resumable


def wrap_scheduler(scheduler: type, aborted_status: Any) -> None:
    """Has every output of ``scheduler`` name the requests that were aborted since the last one."""
    finish_requests, schedule = scheduler.finish_requests, scheduler.schedule

    @functools.wraps(finish_requests)
    def finish(self: Any, request_ids: Any, finished_status: Any) -> Any:
        finished = finish_requests(self, request_ids, finished_status)
        if finished_status == aborted_status:
            names = {one.request_id for one in finished if _is_certain(one)}
            setattr(self, NAMES, names | getattr(self, NAMES, set()))
        return finished

    @functools.wraps(schedule)
    def scheduled(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = schedule(self, *args, **kwargs)
        names = getattr(self, NAMES, None)
        if names:
            setattr(output, NAMES, names)
            setattr(self, NAMES, set())
        return output

    scheduler.finish_requests, scheduler.schedule = finish, scheduled
