"""A model of four layers with trained weights: the first ones of SmolLM2, with its tokenizer.

    python cut_model.py SOURCE TARGET
"""

import json
import shutil
import sys
from pathlib import Path

LAYERS = 4


def cut_model(source: Path, target: Path) -> Path:
    """Writes the first layers of a Llama model as a model of its own."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    kept = {
        name: tensor for name, tensor in load_file(source / "model.safetensors").items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < LAYERS
    }
    kept.pop("lm_head.weight", None)
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config |= {"num_hidden_layers": LAYERS, "tie_word_embeddings": True}
    (target / "config.json").write_text(json.dumps(config))
    for path in source.iterdir():
        if path.name not in ("model.safetensors", "config.json"):
            shutil.copy(path, target)
    return target


if __name__ == "__main__":
    cut_model(Path(sys.argv[1]), Path(sys.argv[2]))
