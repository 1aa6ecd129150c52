"""How far a fetched residual stream is from that of Transformers for the same tokens.

    python compare_with_transformers.py MODEL LAYER TOKEN_IDS.npy RESID_PRE.npy

Prints {"difference": …}: the largest difference of an element over the largest magnitude.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM

folder, layer, ids_path, fetched_path = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = torch.from_numpy(np.load(ids_path).astype(np.int64))[None]
fetched = np.load(fetched_path).astype(np.float64)
with torch.no_grad():
    states = model(input_ids=ids, output_hidden_states=True).hidden_states
expected = states[int(layer)][0].double().numpy()
if fetched.shape != expected.shape:
    raise SystemExit(f"expected shape {expected.shape}, got {fetched.shape}")
difference = np.abs(fetched - expected).max() / np.abs(expected).max()
print(json.dumps({"difference": float(difference)}))
