"""A small chat service over one Hugging Face model, with ring2 attached.

An ordinary service: FastAPI, OpenTelemetry instrumentation (OTLP/gRPC, every OTEL_* variable means
what the specification says; tracing.py), greedy decoding. Requests that arrive together are generated as
one left-padded batch. It listens on the loopback address only and is no production server.

    python service.py --model FOLDER [--port 0] [--segment chat] [--keep-tensors FOLDER] [--allow-faults]

When it is ready it prints one line of JSON with its address. With --keep-tensors it also saves what
the model itself held (hidden states of some layers, by plain forward hooks that know nothing of
ring2), so that anyone can compare what was captured with the truth. With --allow-faults, and only
then, POST /faults adds noise to one layer's weights and DELETE /faults takes it away again: a real
cause of bad answers, to see what the telemetry makes of it.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy
import ring2
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from faults import NOISE_MAX, Fault, Faults
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel, Field
from tracing import Tracing
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH_SIZE_MAX = 4
BATCH_WINDOW_SECONDS = 0.030
WAITING_REQUESTS_MAX = 64
PROMPT_TOKENS_MAX = 2048
NEW_TOKENS_MAX = 512
MESSAGES_MAX = 64
MESSAGE_CHARACTERS_MAX = 16_384


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MESSAGE_CHARACTERS_MAX)


class ChatRequest(BaseModel):
    """What POST /chat takes. Decoding is greedy, so the only temperature is 0."""

    messages: list[Message] = Field(min_length=1, max_length=MESSAGES_MAX)
    max_tokens: int = Field(default=64, ge=1, le=NEW_TOKENS_MAX)
    temperature: Literal[0] = 0


class FaultRequest(BaseModel):
    """What POST /faults takes: noise in standard deviations of each weight of the layer."""

    layer: int = Field(ge=0)
    noise: float = Field(gt=0, le=NOISE_MAX)
    seed: int = Field(default=0, ge=0, lt=2**63)


class ChatResponse(BaseModel):
    text: str
    request_id: str
    trace_id: str
    prompt_tokens: int
    completion_tokens: int


@dataclass
class Job:
    """One chat request on its way through the batcher."""

    request_id: str
    traceparent: str | None
    tracestate: str | None
    prompt: list[int]
    max_tokens: int
    result: "concurrent.futures.Future[Completion]" = field(
        default_factory=concurrent.futures.Future
    )


@dataclass(frozen=True)
class Completion:
    """The tokens of one answer, and the fault that was in force while they were generated."""

    tokens: list[int]
    fault: Fault | None


class TensorKeeper:
    """Saves the hidden states that enter some layers, per request, as .npy files."""

    def __init__(self, model: Any, folder: str, layers: list[int]) -> None:
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        self._steps: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        for layer in layers:
            model.model.layers[layer].register_forward_pre_hook(self._hook(layer))

    def _hook(self, layer: int) -> Any:
        def hook(_module: Any, args: tuple) -> None:
            self._steps[layer].append(args[0].detach().clone())

        return hook

    def save(self, row: int, job: Job, padding: int, completion: list[int]) -> None:
        """Writes {request id}.resid_pre.{layer}.npy: [tokens, hidden]."""
        # The model never sees the last token it produced.
        tokens = len(job.prompt) + len(completion) - 1
        for layer, steps in self._steps.items():
            states = torch.cat([step[row] for step in steps])[padding : padding + tokens]
            path = os.path.join(self._folder, f"{job.request_id}.resid_pre.{layer}.npy")
            # Written under another name first: whoever sees the file sees all of it.
            with open(f"{path}.part", "wb") as file:
                numpy.save(file, states.numpy())
            os.replace(f"{path}.part", path)

    def clear(self) -> None:
        for steps in self._steps.values():
            steps.clear()


class Generator:
    """One thread that turns waiting jobs into batches and generates them."""

    def __init__(
        self, model: Any, tokenizer: Any, keeper: TensorKeeper | None, faults: Faults
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._keeper = keeper
        self._faults = faults
        self._jobs: queue.Queue[Job | None] = queue.Queue(WAITING_REQUESTS_MAX)
        self._held: list[Job] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="generator")
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Raises queue.Full when too many requests wait."""
        self._jobs.put_nowait(job)

    def close(self) -> None:
        """Finishes what waits and ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _next(self, timeout: float | None) -> Job | None:
        """The next job; None when none came in time, or the service stops."""
        if self._held:
            return self._held.pop(0)
        if self._stopping:
            return None
        try:
            job = self._jobs.get(timeout=timeout)
        except queue.Empty:
            return None
        self._stopping = job is None
        return job

    def _collect(self) -> list[Job]:
        first = self._next(None)
        if first is None:
            return []
        jobs, others = [first], []
        deadline = time.monotonic() + BATCH_WINDOW_SECONDS
        while len(jobs) < BATCH_SIZE_MAX:
            job = self._next(max(0.0, deadline - time.monotonic()))
            if job is None:
                break
            # One generate() has one length limit, so a batch has one too.
            (jobs if job.max_tokens == first.max_tokens else others).append(job)
        self._held = others + self._held
        return jobs

    def _run(self) -> None:
        while jobs := self._collect():
            try:
                with self._faults.lock:
                    completions, fault = self._generate(jobs), self._faults.current
            except Exception as error:  # the waiting callers get it; the thread goes on
                for job in jobs:
                    job.result.set_exception(error)
                continue
            for job, completion in zip(jobs, completions, strict=True):
                job.result.set_result(Completion(completion, fault))

    def _generate(self, jobs: list[Job]) -> list[list[int]]:
        width = max(len(job.prompt) for job in jobs)
        pad = self._tokenizer.pad_token_id
        padding = [width - len(job.prompt) for job in jobs]
        ids = [[pad] * left + job.prompt for left, job in zip(padding, jobs, strict=True)]
        mask = [[0] * left + [1] * len(job.prompt) for left, job in zip(padding, jobs, strict=True)]
        requests = [
            ring2.RequestInfo(
                job.request_id, job.traceparent, {"route": "/chat", "batch.size": len(jobs)},
                job.tracestate,
            )
            for job in jobs
        ]
        with torch.inference_mode(), ring2.batch(requests):
            output = self._model.generate(
                input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask),
                max_new_tokens=jobs[0].max_tokens, do_sample=False, pad_token_id=pad,
            )
        completions = [self._until_end(row) for row in output[:, width:].tolist()]
        if self._keeper is not None:
            for row, (job, completion) in enumerate(zip(jobs, completions, strict=True)):
                self._keeper.save(row, job, padding[row], completion)
            self._keeper.clear()
        return completions

    def _until_end(self, tokens: list[int]) -> list[int]:
        """The produced tokens with the end-of-sequence token, without what was fed after it."""
        end = self._tokenizer.eos_token_id
        return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def build_app(model: Any, tokenizer: Any, generator: Generator, lifespan: Any) -> FastAPI:
    app = FastAPI(title="chat-service", lifespan=lifespan)
    tracer = trace.get_tracer("chat-service")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/chat")
    async def chat(body: ChatRequest) -> ChatResponse:
        prompt = tokenizer.apply_chat_template(
            [message.model_dump() for message in body.messages],
            add_generation_prompt=True, return_dict=True,
        )["input_ids"]
        if len(prompt) > PROMPT_TOKENS_MAX:
            raise HTTPException(
                413, f"expected at most {PROMPT_TOKENS_MAX} prompt tokens, got {len(prompt)}"
            )
        request_id = f"chat-{uuid.uuid4().hex[:12]}"
        with tracer.start_as_current_span("llm.generate") as span:
            # What ring2 learns is this span, so that its spans have a parent inside the service.
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier)
            job = Job(
                request_id, carrier.get("traceparent"), carrier.get("tracestate"), prompt,
                body.max_tokens,
            )
            try:
                generator.submit(job)
            except queue.Full:
                raise HTTPException(503, "too many requests wait; try again later") from None
            completion = await asyncio.wrap_future(job.result)
            if completion.fault is not None:
                span.add_event("fault.injected", completion.fault.attributes())
            span.set_attributes({
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": model.config.name_or_path,
                "gen_ai.request.max_tokens": body.max_tokens,
                "gen_ai.usage.input_tokens": len(prompt),
                "gen_ai.usage.output_tokens": len(completion.tokens),
                "ring2.request.id": request_id,
            })
            trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        return ChatResponse(
            text=tokenizer.decode(completion.tokens, skip_special_tokens=True),
            request_id=request_id, trace_id=trace_id,
            prompt_tokens=len(prompt), completion_tokens=len(completion.tokens),
        )

    FastAPIInstrumentor.instrument_app(app, excluded_urls="healthz")
    return app


def add_fault_routes(app: FastAPI, faults: Faults) -> None:
    # Plain functions: they wait for the batch that runs, and must not hold up the event loop.
    @app.post("/faults", status_code=201)
    def inject(body: FaultRequest) -> dict[str, int | float]:
        fault = Fault(body.layer, body.noise, body.seed)
        try:
            injected = faults.inject(fault)
        except IndexError as error:
            raise HTTPException(422, str(error)) from None
        if not injected:
            raise HTTPException(409, "a fault is in force; DELETE /faults removes it")
        return fault.attributes()

    @app.delete("/faults", status_code=204)
    def remove() -> Response:
        faults.remove()
        return Response(status_code=204)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A small chat service with ring2 attached.")
    parser.add_argument("--model", required=True, help="folder that Transformers loads")
    parser.add_argument("--port", type=int, default=0, help="0 (default) chooses a free one")
    parser.add_argument("--segment", default="chat", help="name of the ring2 segment")
    parser.add_argument("--segment-directory", default=None, help="default /dev/shm")
    parser.add_argument(
        "--hooks", default="hidden-states,resid_final,pattern,q,k,v,logits,token-ids"
    )
    parser.add_argument("--payload-mb", type=float, default=256)
    parser.add_argument("--keep-tensors", default=None, metavar="FOLDER")
    parser.add_argument("--keep-layers", default=None, help="default: first, middle and last")
    parser.add_argument(
        "--allow-faults", action="store_true",
        help="serve POST and DELETE /faults, which break the model on purpose and mend it",
    )
    return parser.parse_args()


def _kept_layers(text: str | None, count: int) -> list[int]:
    if text is None:
        return sorted({0, count // 2, count - 1})
    return [int(part) for part in text.split(",")]


def main() -> None:
    arguments = parse_arguments()
    tracing = Tracing()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", arguments.port))
    listener.listen()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model).eval()
    keeper = None
    if arguments.keep_tensors is not None:
        layers = _kept_layers(arguments.keep_layers, model.config.num_hidden_layers)
        keeper = TensorKeeper(model, arguments.keep_tensors, layers)
    probe = ring2.attach(
        model, arguments.hooks, tokenizer=tokenizer, segment=arguments.segment,
        payload_mb=arguments.payload_mb, directory=arguments.segment_directory,
    )
    faults = Faults(model.model.layers)
    generator = Generator(model, tokenizer, keeper, faults)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> Any:
        ready = {
            "url": f"http://127.0.0.1:{listener.getsockname()[1]}", "pid": os.getpid(),
            "segment": probe.segment, "segment_path": probe.path,
        }
        print(json.dumps(ready), flush=True)
        yield
        generator.close()
        probe.detach()
        tracing.shutdown()

    app = build_app(model, tokenizer, generator, lifespan)
    if arguments.allow_faults:
        add_fault_routes(app, faults)
    # uvicorn shuts down in order and then raises the signal again; that this is the end is known.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    server.run(sockets=[listener])
    sys.stdout.flush()


if __name__ == "__main__":
    main()
