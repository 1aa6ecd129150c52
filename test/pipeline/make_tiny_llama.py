"""Saves a tiny random Llama (four layers, four heads, two key heads) in the folder that is named."""

import sys

import torch
import transformers

torch.manual_seed(0)
config = transformers.AutoConfig.for_model(
    "llama", vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, head_dim=8,
)
transformers.AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[1])
