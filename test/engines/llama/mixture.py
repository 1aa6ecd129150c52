"""Writes a tiny mixture of experts with random weights as GGUF: ``mixture.py ARCHITECTURE FILE``.

ARCHITECTURE is ``qwen2moe`` (a shared expert, weights as the softmax gives them) or ``llama`` (Mixtral:
no shared expert, the chosen weights sum to 1).
"""

import sys

import numpy
from gguf import GGUFWriter, TokenType

LAYERS, HIDDEN, HEADS, KV_HEADS, EXPERTS, CHOSEN, INNER, SHARED = 3, 64, 4, 2, 8, 2, 32, 96

LETTERS = "abcdefghijklmnopqrstuvwxyz\u2581"

architecture, path = sys.argv[1:]
random = numpy.random.default_rng(7)
writer = GGUFWriter(path, architecture)


def add(name: str, *shape: int, silent: int = 0) -> None:
    values = random.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.1)
    values[:silent] = 0
    writer.add_tensor(name, values.astype(numpy.float32))


def add_norm(name: str) -> None:
    writer.add_tensor(name, numpy.ones(HIDDEN, numpy.float32))


def add_vocabulary() -> int:
    pieces = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    pieces += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    pieces += [(piece, TokenType.NORMAL) for piece in LETTERS]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([kind for _, kind in pieces])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(pieces)


def add_layer(block: str) -> None:
    width = HIDDEN // HEADS
    for name, rows in (("attn_q", HIDDEN), ("attn_k", KV_HEADS * width), ("attn_v", KV_HEADS * width)):
        add(f"{block}.{name}.weight", rows, HIDDEN)
        if architecture == "qwen2moe":
            add(f"{block}.{name}.bias", rows)
    add(f"{block}.attn_output.weight", HIDDEN, HIDDEN)
    add_norm(f"{block}.attn_norm.weight")
    add_norm(f"{block}.ffn_norm.weight")
    add(f"{block}.ffn_gate_inp.weight", EXPERTS, HIDDEN)
    add(f"{block}.ffn_gate_exps.weight", EXPERTS, INNER, HIDDEN)
    add(f"{block}.ffn_up_exps.weight", EXPERTS, INNER, HIDDEN)
    add(f"{block}.ffn_down_exps.weight", EXPERTS, HIDDEN, INNER)
    if architecture == "qwen2moe":
        add(f"{block}.ffn_gate_inp_shexp.weight", HIDDEN)
        add(f"{block}.ffn_gate_shexp.weight", SHARED, HIDDEN)
        add(f"{block}.ffn_up_shexp.weight", SHARED, HIDDEN)
        add(f"{block}.ffn_down_shexp.weight", HIDDEN, SHARED)


writer.add_name(f"tiny {architecture}")
writer.add_context_length(256)
writer.add_block_count(LAYERS)
writer.add_embedding_length(HIDDEN)
writer.add_feed_forward_length(INNER)
writer.add_expert_feed_forward_length(INNER)
writer.add_expert_shared_feed_forward_length(SHARED)
writer.add_head_count(HEADS)
writer.add_head_count_kv(KV_HEADS)
writer.add_rope_dimension_count(HIDDEN // HEADS)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_expert_count(EXPERTS)
writer.add_expert_used_count(CHOSEN)
size = add_vocabulary()
writer.add_vocab_size(size)
add("token_embd.weight", size, HIDDEN)
add_norm("output_norm.weight")
# Greedy answers are letters: single bytes are seldom text.
add("output.weight", size, HIDDEN, silent=size - len(LETTERS))
for layer in range(LAYERS):
    add_layer(f"blk.{layer}")
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
