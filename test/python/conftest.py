"""Fixtures: the real model once per run, tiny random ones, segments in a folder of their own."""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

sys.path.insert(0, os.path.dirname(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

import ring2  # noqa: E402
from ring_reader import Reader  # noqa: E402

torch.set_num_threads(1)


def _model_folder() -> str:
    from prepare_model import prepare

    chosen = os.environ.get("RING2_MODEL_DIR")
    if chosen and os.path.isfile(os.path.join(chosen, "config.json")):
        return chosen
    return prepare(chosen or os.path.join(os.path.expanduser("~"), ".cache", "ring2", "models"))


@pytest.fixture(scope="session")
def model_folder() -> str:
    return _model_folder()


@pytest.fixture(scope="session")
def model(model_folder):
    """SmolLM2-135M-Instruct with its trained weights, float32, sdpa attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder).eval()


@pytest.fixture(scope="session")
def eager_model(model_folder):
    """The same weights with eager attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def tokenizer(model_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder, padding_side="left")


@pytest.fixture(scope="session")
def chat(tokenizer):
    """Chat prompts as a left-padded batch."""

    def encode(*questions: str):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
            )
            for question in questions
        ]
        return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)

    return encode


class Attached:
    """A probe and the reader of its segment."""

    def __init__(self, probe, reader) -> None:
        self.probe = probe
        self.reader = reader

    def finish(self):
        """Detaches and drains everything."""
        self.probe.detach()
        return self.reader.drain()


@pytest.fixture
def attach(tmp_path):
    """ring2.attach into a segment of this test, with a reader on it."""
    opened: list[Attached] = []

    def start(model, hooks="hf-only", **options) -> Attached:
        options.setdefault("payload_mb", 256)
        options.setdefault("segment", f"test{len(opened)}")
        probe = ring2.attach(model, hooks, directory=str(tmp_path), **options)
        attached = Attached(probe, Reader(probe.path))
        opened.append(attached)
        return attached

    yield start
    for attached in opened:
        attached.probe.detach()
        attached.reader.close()


@pytest.fixture
def tiny():
    """A random model of a family: two layers, four heads, two key heads."""

    def make(family: str, **changes):
        import transformers

        torch.manual_seed(0)
        facts = dict(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
            head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )
        if family == "gpt2":
            facts = dict(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128,
                         bos_token_id=1, eos_token_id=2, pad_token_id=0)
        config = transformers.AutoConfig.for_model(family, **{**facts, **changes})
        return transformers.AutoModelForCausalLM.from_config(config).eval()

    return make
