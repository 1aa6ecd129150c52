"""What detach ends."""

import torch

import ring2


def test_detach_inside_a_request_ends_it(tiny, attach):
    model = tiny("llama")
    attached = attach(model, "resid_pre")
    with ring2.request("cut"):
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 6, 7]]))
        records = attached.finish()
    assert records.kinds[-1] == "REQUEST_END"
    assert records.ends[0]["tokens"] == 3
