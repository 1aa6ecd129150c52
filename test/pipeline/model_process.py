"""A model process for tests: stock Transformers with ring2 attached, driven over standard input.

Reads one JSON command per line and answers each with one line of JSON:

    {"do": "generate", "requests": [{"id", "text", "traceparent"?, "attributes"?}], "tokens": N,
     "reference"?: true, "pause"?: S}
                               one left-padded batch; with `reference`, what the model itself says
                               is saved as {out}/{id}.npz and named in the answer; with `pause`,
                               {"paused": S} is said before forward pass S, and a line waited for
    {"do": "counters"}         records and bytes that the segment says were committed
    {"do": "die", "request", "text", "layer": L, "step": S}
                               generates, and in step S claims a tensor of layer L and is killed
    {"do": "detach"}           detaches and ends

The reference comes from the same forward passes by the model's own `output_hidden_states` and
`output_logits`; attention comes from a second model over the same weights with eager attention.
"""

import argparse
import ctypes
import functools
import json
import os
import signal
import sys

import numpy
import ring2
import torch
from ring2 import _native
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)


class Tensor(ctypes.Structure):
    """ring2_tensor of native/include/ring2.h."""

    _fields_ = [
        ("hook", ctypes.c_uint32), ("layer", ctypes.c_int32), ("dtype", ctypes.c_uint32),
        ("ndim", ctypes.c_uint32), ("step", ctypes.c_int64), ("dims", ctypes.c_int64 * 8),
        ("strides", ctypes.c_int64 * 8), ("ranks", ctypes.c_uint16 * 4),
    ]


class Claim(ctypes.Structure):
    """ring2_claim of native/include/ring2.h."""

    _fields_ = [
        ("payload", ctypes.c_void_p), ("payload_bytes", ctypes.c_uint64),
        ("position", ctypes.c_uint64),
    ]


class ModelProcess:
    def __init__(self, arguments: argparse.Namespace) -> None:
        folder = arguments.model
        self.out = arguments.out
        # The tokenizer itself: Transformers' wrapper takes longer to import than the model to load.
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.probe = ring2.attach(
            self.model, arguments.hooks, segment=arguments.segment,
            directory=arguments.segments, payload_mb=arguments.payload_mb,
            tokenizer=self.tokenizer if arguments.vocabulary else None,
        )

    @functools.cached_property
    def eager(self):
        """The same weights, not copied, with eager attention."""
        config = AutoConfig.from_pretrained(
            self.model.config.name_or_path, attn_implementation="eager"
        )
        with torch.device("meta"):
            twin = AutoModelForCausalLM.from_config(config)
        twin.load_state_dict(self.model.state_dict(), assign=True, strict=False)
        twin.tie_weights()
        # What is no weight was made on the meta device and has to be made again.
        twin.model.rotary_emb = type(twin.model.rotary_emb)(config)
        return twin.eval()

    def encode(self, texts: list[str]):
        """A batch padded on the left, in the model's chat form."""
        chats = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in texts]
        ids = [self.tokenizer.encode(chat, add_special_tokens=False).ids for chat in chats]
        width = max(len(row) for row in ids)
        pad = self.model.generation_config.eos_token_id
        return {
            "input_ids": torch.tensor([[pad] * (width - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor(
                [[0] * (width - len(row)) + [1] * len(row) for row in ids]
            ),
        }

    def run(self, requests: list[dict], tokens: int, **options):
        inputs = self.encode([request["text"] for request in requests])
        infos = [
            ring2.RequestInfo(one["id"], one.get("traceparent"), one.get("attributes", {}))
            for one in requests
        ]
        with torch.inference_mode(), ring2.batch(infos):
            output = self.model.generate(
                **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                pad_token_id=self.model.generation_config.eos_token_id,
                return_dict_in_generate=True, **options,
            )
        return inputs, output

    def pause(self, step: int):
        """Stops before a forward pass until the next line comes; returns what takes that back."""
        passes = iter(range(1_000_000))

        def wait(_module, _args) -> None:
            if next(passes) == step:
                print(json.dumps({"paused": step}), flush=True)
                sys.stdin.readline()

        # Before the probe looks what is wanted.
        return self.model.register_forward_pre_hook(wait, prepend=True)

    def generate(self, command: dict) -> dict:
        pause = self.pause(command["pause"]) if "pause" in command else None
        reference = command.get("reference", False)
        requests = command["requests"]
        inputs, output = self.run(
            requests, command["tokens"], output_hidden_states=reference, output_logits=reference
        )
        if pause is not None:
            pause.remove()
        padding = (inputs["attention_mask"] == 0).sum(dim=1).tolist()
        width = inputs["input_ids"].shape[1]
        answers = []
        for row, request in enumerate(requests):
            prompt = width - padding[row]
            # The model never sees the last token it produced.
            answer = {"id": request["id"], "prompt": prompt,
                      "tokens": prompt + command["tokens"] - 1, "steps": command["tokens"],
                      "ids": output.sequences[row, padding[row]:].tolist()}
            if reference:
                path = os.path.join(self.out, f"{request['id']}.npz")
                numpy.savez(path, **self.reference(output, row, padding[row], width))
                answer["reference"] = path
            answers.append(answer)
        return {"requests": answers}

    def reference(self, output, row: int, padding: int, width: int) -> dict:
        ids = output.sequences[row, padding:-1]
        arrays = {"token_ids": ids.numpy(),
                  "final_logits": torch.stack([step[row] for step in output.logits]).numpy()}
        layers = self.model.config.num_hidden_layers
        for layer in range(layers):
            steps = [step[layer][row] for step in output.hidden_states]
            arrays[f"resid_pre.{layer}"] = torch.cat(steps)[padding:].numpy()
        with torch.inference_mode():
            attentions = self.eager(ids[None], output_attentions=True).attentions
        for layer in (0, layers // 2, layers - 1):
            arrays[f"pattern.{layer}"] = attentions[layer][0].numpy()
        return arrays

    def counters(self, _command: dict) -> dict:
        header = open(self.probe.path, "rb").read(4096)
        at = 336  # committed_records, then committed_bytes, of ring2_header
        return {"records": int.from_bytes(header[at : at + 8], "little"),
                "bytes": int.from_bytes(header[at + 8 : at + 16], "little")}

    def die(self, command: dict) -> dict:
        library = _native.library()
        steps = iter(range(1_000_000))
        width = self.model.config.hidden_size

        def hook(_module, _args) -> None:
            if next(steps) != command["step"]:
                return
            tensor = Tensor(hook=0, layer=command["layer"], dtype=1, ndim=3, step=1)
            tensor.dims[:3] = (1, 1, width)
            claim = Claim()
            handle = self.probe._producer._handle
            returned = library.ring2_claim_tensor(
                handle, ctypes.byref(tensor), ctypes.byref(claim)
            )
            if returned == 0:
                ctypes.memset(claim.payload, 1, claim.payload_bytes // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        # After the capture of this layer's input, which is a hook too.
        self.model.model.layers[command["layer"]].register_forward_pre_hook(hook)
        self.run([{"id": command["request"], "text": command["text"]}], command["step"] + 5)
        raise RuntimeError("still alive: the claim was refused")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--segments", required=True)
    parser.add_argument("--segment", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--hooks", required=True)
    parser.add_argument("--payload-mb", type=float, default=256)
    parser.add_argument("--vocabulary", action="store_true", help="send the tokenizer's texts")
    process = ModelProcess(parser.parse_args())
    commands = {"generate": process.generate, "counters": process.counters, "die": process.die}
    print(json.dumps({"ready": True, "layers": process.model.config.num_hidden_layers,
                      "segment": process.probe.path}), flush=True)
    for line in iter(sys.stdin.readline, ""):
        command = json.loads(line)
        if command["do"] == "detach":
            break
        print(json.dumps(commands[command["do"]](command)), flush=True)
    process.probe.detach()


if __name__ == "__main__":
    main()
