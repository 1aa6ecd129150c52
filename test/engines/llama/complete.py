"""Two greedy completions by llama-cpp-python in this process: ``complete.py MODEL PROMPT``.

With RING2_LLAMA_LIBRARY they are captured, the first under TRACEPARENT, the second streamed under no
trace. Prints what came out as JSON; with ``late`` behind the prompt, the error of an import that comes
too late.
"""

import contextlib
import hashlib
import json
import os
import sys

model, prompt, *more = sys.argv[1:]


def late() -> str:
    import llama_cpp  # noqa: F401

    try:
        import ring2.llama_cpp  # noqa: F401
    except Exception as error:  # noqa: BLE001  whatever it is, it is printed
        return str(error)
    return ""


if more == ["late"]:
    print(json.dumps({"late": late()}))
    sys.exit()

named = lambda *_, **__: contextlib.nullcontext()  # noqa: E731
refused = ""
if os.environ.get("RING2_LLAMA_LIBRARY"):
    import ring2.llama_cpp

    named = ring2.llama_cpp.request
    try:
        with named("two words"):
            pass
    except ring2.Ring2Error as error:
        refused = error.code

from llama_cpp import Llama  # noqa: E402

llama = Llama(model, n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False, logits_all=True)
with named("python-1", traceparent=os.environ.get("TRACEPARENT")):
    first = llama.create_completion(prompt, max_tokens=8, temperature=0, logprobs=3)
tokens = llama.input_ids[: llama.n_tokens].tolist()
logits = hashlib.sha256(llama.scores[: llama.n_tokens].tobytes()).hexdigest()
with named("python-2"):
    parts = llama.create_completion("One, two, three,", max_tokens=8, temperature=0, stream=True)
    second = "".join(part["choices"][0]["text"] for part in parts)
llama.close()
print(json.dumps({
    "first": first["choices"][0], "second": second, "tokens": tokens, "logits": logits,
    "prompt": first["usage"]["prompt_tokens"], "refused": refused,
}, default=float))
