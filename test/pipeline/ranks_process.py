"""One rank of a model that two processes run over gloo, with ring2 attached; for tests.

    stock-tp   a Transformers model that its own tp_plan shards: attach finds the ranks by itself
    own-tp     a model with HookPoints, heads and MLP sharded, all_reduce behind each branch
    own-pp     the same model whole, in two stages with send and recv
    dead       as own-tp, but rank 1 is killed in the first decode; to be the last one

Each mode is one request of that name: a prefill, then tokens one by one, chosen by the largest logit.
Rank 0 also runs the unsharded twin and saves what its modules held as {out}/{mode}.npz, by forward hooks
of its own.
"""

import argparse
import json
import math
import os
import signal
from typing import Any

import numpy
import torch
import torch.distributed as distributed
from torch import nn

import ring2

torch.set_num_threads(1)

VOCABULARY, HIDDEN, HEADS, KV_HEADS, WIDTH, INTER, LAYERS = 96, 32, 4, 2, 8, 48, 2
NEW_TOKENS = 3


class Config:
    """What ring2 reads of a model's configuration."""

    num_hidden_layers, hidden_size, vocab_size = LAYERS, HIDDEN, VOCABULARY
    num_attention_heads, num_key_value_heads, head_dim = HEADS, KV_HEADS, WIDTH


class Attention(nn.Module):
    """Grouped-query attention over this rank's heads, with a cache of its own."""

    def __init__(self, layer: int, shards: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = HEADS // shards, KV_HEADS // shards
        self.q_proj = nn.Linear(HIDDEN, self.heads * WIDTH, bias=False)
        self.k_proj = nn.Linear(HIDDEN, self.kv_heads * WIDTH, bias=False)
        self.v_proj = nn.Linear(HIDDEN, self.kv_heads * WIDTH, bias=False)
        self.o_proj = nn.Linear(self.heads * WIDTH, HIDDEN, bias=False)
        self.q, self.k, self.v, self.z, self.pattern = (
            ring2.HookPoint(name, layer) for name in ("q", "k", "v", "z", "pattern")
        )
        self.cache: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens = x.shape[:2]
        q = self.q(self.q_proj(x).view(batch, tokens, self.heads, WIDTH))
        k = self.k(self.k_proj(x).view(batch, tokens, self.kv_heads, WIDTH))
        v = self.v(self.v_proj(x).view(batch, tokens, self.kv_heads, WIDTH))
        if self.cache:
            k, v = torch.cat((self.cache[0], k), 1), torch.cat((self.cache[1], v), 1)
        self.cache = [k, v]
        keys, repeat = k.shape[1], self.heads // self.kv_heads
        k, v = (one.repeat_interleave(repeat, 2).transpose(1, 2) for one in (k, v))
        scores = q.transpose(1, 2) @ k.transpose(2, 3) / math.sqrt(WIDTH)
        hidden = torch.ones(tokens, keys, dtype=torch.bool).triu_(1 + keys - tokens)
        weights = self.pattern(scores.masked_fill(hidden, -torch.inf).softmax(-1))
        z = self.z((weights @ v).transpose(1, 2).contiguous())
        return self.o_proj(z.reshape(batch, tokens, -1))


class Block(nn.Module):
    def __init__(self, layer: int, shards: int) -> None:
        super().__init__()
        self.shards = shards
        self.resid_pre = ring2.HookPoint("resid_pre", layer)
        self.attention = Attention(layer, shards)
        self.up = nn.Linear(HIDDEN, INTER // shards, bias=False)
        self.mlp_post = ring2.HookPoint("mlp_post", layer)
        self.down = nn.Linear(INTER // shards, HIDDEN, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.resid_pre(x)
        x = x + self.reduced(self.attention(nn.functional.rms_norm(x, (HIDDEN,))))
        inner = self.mlp_post(nn.functional.silu(self.up(nn.functional.rms_norm(x, (HIDDEN,)))))
        return x + self.reduced(self.down(inner))

    def reduced(self, x: torch.Tensor) -> torch.Tensor:
        if self.shards > 1:
            distributed.all_reduce(x)
        return x


class Model(nn.Module):
    """The layers [first, last) of the model, and what comes before and behind them."""

    def __init__(self, first: int = 0, last: int = LAYERS, shards: int = 1) -> None:
        super().__init__()
        self.config = Config()
        self.first, self.last = first, last
        if first == 0:
            self.embed = nn.Embedding(VOCABULARY, HIDDEN)
            self.token_ids = ring2.HookPoint("token_ids")
        self.blocks = nn.ModuleDict(
            {str(layer): Block(layer, shards) for layer in range(first, last)}
        )
        if last == LAYERS:
            self.final_ln = ring2.HookPoint("final_ln")
            self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
            self.final_logits = ring2.HookPoint("final_logits")

    def forward(self, x: torch.Tensor, cache_position: torch.Tensor) -> torch.Tensor:
        if self.first == 0:
            x = self.embed(self.token_ids(x))
        for block in self.blocks.values():
            x = block(x)
        if self.last < LAYERS:
            return x
        return self.final_logits(self.head(self.final_ln(nn.functional.rms_norm(x, (HIDDEN,)))))


def whole_model() -> Model:
    torch.manual_seed(7)
    return Model().eval()


def load_share(model: Model, whole: dict[str, torch.Tensor], rank: int, shards: int) -> None:
    """Rows of projections into heads and the MLP, columns of those back; the rest as it is."""
    share = {}
    for name in model.state_dict():
        tensor = whole[name]
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "up.weight")):
            tensor = tensor.chunk(shards, 0)[rank]
        elif name.endswith(("o_proj.weight", "down.weight")):
            tensor = tensor.chunk(shards, 1)[rank]
        share[name] = tensor
    model.load_state_dict(share)


def generate(step: Any, prompt: list[int]) -> list[int]:
    """``step`` takes tokens and a position and returns the last row of logits."""
    tokens = list(prompt)
    fed = 0
    for _ in range(1 + NEW_TOKENS):
        logits = step(torch.tensor([tokens[fed:]]), torch.tensor([fed]))
        fed = len(tokens)
        tokens.append(int(logits.argmax()))
    return tokens


class Recorder:
    """What HookPoints of the unsharded twin held: hook.layer → the parts of all steps."""

    def __init__(self, model: nn.Module) -> None:
        self.parts: dict[str, list[torch.Tensor]] = {}
        for module in model.modules():
            if isinstance(module, ring2.HookPoint):
                name = f"{module.hook_name}.{module.layer}"
                module.register_forward_hook(
                    lambda _m, _a, output, name=name: self.add(name, output)
                )

    def add(self, name: str, tensor: torch.Tensor) -> None:
        self.parts.setdefault(name, []).append(tensor[0].clone())

    def joined(self) -> dict[str, numpy.ndarray]:
        joined = {}
        for name, parts in self.parts.items():
            axis = 0
            if name.startswith("pattern"):
                axis, keys = 1, max(part.shape[-1] for part in parts)
                parts = [nn.functional.pad(part, (0, keys - part.shape[-1])) for part in parts]
            joined[name] = torch.cat(parts, axis).numpy()
        return joined


def stock_reference(path: str, prompt: list[int]) -> tuple[dict[str, numpy.ndarray], list[int]]:
    """The same of the stock model, by hooks on its modules and its own outputs."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    held = Recorder(nn.Module())
    for layer, block in enumerate(model.model.layers):
        attention = block.self_attn
        block.register_forward_pre_hook(
            lambda _m, args, layer=layer: held.add(f"resid_pre.{layer}", args[0])
        )
        for name in ("q", "k", "v"):
            getattr(attention, f"{name}_proj").register_forward_hook(
                lambda _m, _a, output, name=name, layer=layer: held.add(
                    f"{name}.{layer}", output.unflatten(-1, (-1, attention.head_dim))
                )
            )
        block.mlp.down_proj.register_forward_pre_hook(
            lambda _m, args, layer=layer: held.add(f"mlp_post.{layer}", args[0])
        )
        attention.register_forward_hook(
            lambda _m, _a, output, layer=layer: held.add(f"pattern.{layer}", output[1])
        )
    model.lm_head.register_forward_hook(lambda _m, _a, output: held.add("final_logits.-1", output))
    tokens = stock_generate(model, prompt)
    held.parts["token_ids.-1"] = [torch.tensor(tokens[:-1])]
    return held.joined(), tokens


def stock_generate(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        return model.generate(
            ids, max_new_tokens=1 + NEW_TOKENS, min_new_tokens=1 + NEW_TOKENS, do_sample=False,
            attention_mask=torch.ones_like(ids), pad_token_id=0,
        )[0].tolist()


def own_reference(prompt: list[int]) -> tuple[dict[str, numpy.ndarray], list[int]]:
    model = whole_model()
    held = Recorder(model)
    with torch.no_grad():
        tokens = generate(lambda ids, at: model(ids, cache_position=at)[0, -1], prompt)
    return held.joined(), tokens


def save_tiny_llama(path: str) -> None:
    """Four heads and two key heads, with random weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INTER,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
        max_position_embeddings=128, head_dim=WIDTH,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)


def build(mode: str, rank: int, path: str) -> tuple[Any, dict[str, Any]]:
    """The model of this rank, and what attach has to be told of it."""
    if mode == "stock-tp":
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path, tp_plan="auto").eval(), {}
    whole = whole_model().state_dict()
    if mode != "own-pp":
        model = Model(shards=2).eval()
        load_share(model, whole, rank, 2)
        return model, {"ranks": ring2.Ranks(tp=rank), "world": ring2.World(tp=2)}
    half = LAYERS // 2
    model = Model(0, half).eval() if rank == 0 else Model(half, LAYERS).eval()
    load_share(model, whole, 0, 1)
    return model, {"ranks": ring2.Ranks(pp=rank), "world": ring2.World(pp=2)}


def run(model: Any, mode: str, rank: int, prompt: list[int]) -> list[int]:
    if mode == "stock-tp":
        return stock_generate(model, prompt)
    if mode != "own-pp":
        return generate(lambda ids, at: model(ids, cache_position=at)[0, -1], prompt)

    def staged(ids: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        logits = torch.empty(VOCABULARY)
        if rank == 0:
            distributed.send(model(ids, cache_position=at).contiguous(), 1)
            distributed.recv(logits, 1)
            return logits
        x = torch.empty(1, ids.shape[1], HIDDEN)
        distributed.recv(x, 0)
        logits = model(x, cache_position=at)[0, -1].clone()
        distributed.send(logits, 0)
        return logits

    return generate(staged, prompt)


def serve(mode: str, traceparent: str, rank: int, arguments: argparse.Namespace) -> None:
    """One request of one mode, and its reference."""
    prompt = [5, 17, 3, 42, 8, 11, 29]
    model, place = build(mode, rank, arguments.model)
    probe = ring2.attach(
        model, arguments.hooks, segment=f"{mode}-{rank}", directory=arguments.segments,
        payload_mb=16, model_name=f"tiny-{mode}", **place,
    )
    if mode == "dead":
        be_left(model, mode, rank, prompt, traceparent)
        return
    with ring2.request(mode, traceparent=traceparent):
        tokens = run(model, mode, rank, prompt)
    losses = probe.losses()
    probe.detach()
    assert all(records == 0 for records, _ in losses.values()), losses
    if rank == 0:
        stock = mode == "stock-tp"
        held, expected = stock_reference(arguments.model, prompt) if stock else own_reference(prompt)
        numpy.savez(os.path.join(arguments.out, f"{mode}.npz"), **held)
        assert tokens == expected, (tokens, expected)


def be_left(model: Any, mode: str, rank: int, prompt: list[int], traceparent: str) -> None:
    """Rank 1 does not come back from this; rank 0 ends the request with the error that it gets."""
    if rank == 1:
        kill_in_step(model, 1)
    try:
        with ring2.request(mode, traceparent=traceparent):
            run(model, mode, rank, prompt)
    except RuntimeError as error:
        print(f"left alone: {error}", flush=True)
        return
    raise AssertionError("the other rank was not missed")


def kill_in_step(model: Any, step: int) -> None:
    steps = iter(range(1_000))

    def hook(*_: object) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_hook(hook)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", required=True, help="JSON: mode to traceparent, in order")
    parser.add_argument("--rank", required=True, type=int)
    parser.add_argument("--segments", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--hooks", required=True)
    arguments = parser.parse_args()
    with torch.no_grad():
        distributed.init_process_group("gloo", rank=arguments.rank, world_size=2)
        if arguments.rank == 0:
            save_tiny_llama(arguments.model)
        distributed.barrier()
        for mode, traceparent in json.loads(arguments.requests).items():
            serve(mode, traceparent, arguments.rank, arguments)


if __name__ == "__main__":
    main()
