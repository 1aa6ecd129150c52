"""The selection syntax."""

import pytest

from ring2 import Ring2Error
from ring2._catalogue import HOOKS
from ring2._selection import PRESETS, parse, register_preset, resolve_layers, select

AVAILABLE = {
    "resid_pre": frozenset(range(12)),
    "pattern": frozenset(range(12)),
    "router_logits": frozenset({1, 3, 5}),
    "final_ln": frozenset({-1}),
    "final_logits": frozenset({-1}),
}


def _select(text, layers="all"):
    return select(text, layers, AVAILABLE, 12, "Model")[0]


def test_aliases_and_unions_name_hooks():
    names = [item.hook for item in parse("hidden-states, hidden_states,logits,token-ids")]
    assert names == ["resid_pre", "resid_pre", "final_logits", "token_ids"]


def test_a_selection_may_be_a_list():
    assert set(_select(["resid_pre[1]", "logits"])) == {"resid_pre", "final_logits"}


def test_presets_are_those_of_the_catalogue():
    assert len(PRESETS["full"]) == len(HOOKS)
    assert set(PRESETS["full"]) - set(PRESETS["vllm-full"]) == {"attn_scores", "pattern"}
    assert _select("hf-only") == {
        "resid_pre": tuple(range(12)), "final_ln": (-1,), "pattern": tuple(range(12)),
        "final_logits": (-1,),
    }


def test_what_a_preset_names_and_the_model_lacks_is_skipped_and_said():
    chosen, skipped = select("full", "all", AVAILABLE, 12, "Model")
    assert set(chosen) == set(AVAILABLE)
    assert "mlp_out" in skipped and "resid_pre" not in skipped


@pytest.mark.parametrize(
    ("text", "layers"),
    [("resid_pre[0,5,11]", (0, 5, 11)), ("resid_pre[::4]", (0, 4, 8)), ("resid_pre[-1]", (11,)),
     ("resid_pre[2:5]", (2, 3, 4)), ("resid_pre[0, 8::2]", (0, 8, 10)),
     ("resid_pre[0],resid_pre[3]", (0, 3)), ("resid_pre[all]", tuple(range(12)))],
)
def test_brackets_choose_layers(text, layers):
    assert _select(text, layers=[1])["resid_pre"] == layers


@pytest.mark.parametrize(
    "layers", ["::4", [0, 4, 8], range(0, 12, 4), slice(None, None, 4), (0, -8, 8)]
)
def test_layers_may_be_text_numbers_or_ranges(layers):
    assert sorted(resolve_layers(layers, 12, "x")) == [0, 4, 8]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "at least one"), ("  ", "at least one"), ("resid_pree", "resid_pre"),
     ("resid_pre,", "after the last comma"), ("resid_pre[", "separated by commas"),
     ("resid_pre[a]", "layers like"), ("resid_pre[::0]", "layers like"),
     ("resid_pre[12]", "from 0 to 11"), ("resid_pre[5:5]", "at least one"),
     ("resid_pre[]", "layers like"), ("final_ln[0]", "has no layers"),
     ("mlp_out", "not captured"), ("router_logits[0,2]", "layers 1, 3, 5"), ("resid_pre;logits", "separated by commas")],
)
def test_what_cannot_be_selected_is_refused_with_what_there_is(text, expected):
    with pytest.raises(Ring2Error) as caught:
        _select(text)
    assert caught.value.code == "RING2_E_SELECTION"
    assert expected in str(caught.value)


def test_an_explicit_hook_that_the_model_lacks_names_those_it_has():
    with pytest.raises(Ring2Error, match="resid_pre, pattern, final_ln, final_logits, router_logits"):
        _select("resid_pre,z")


def test_layers_without_the_hook_are_left_out_of_a_range_and_said():
    assert _select("router_logits") == {"router_logits": (1, 3, 5)}
    chosen, skipped = select("router_logits[3:6]", "all", AVAILABLE, 12, "Model")
    assert chosen == {"router_logits": (3, 5)} and skipped == ("router_logits[4]",)


def test_a_preset_of_ones_own_is_a_name_for_a_selection(monkeypatch):
    monkeypatch.setattr("ring2._selection.PRESETS", dict(PRESETS))
    register_preset("mine", "hidden-states,logits,mlp_out")
    chosen, skipped = select("mine[::6],final_ln", "all", AVAILABLE, 12, "Model")
    assert chosen == {"resid_pre": (0, 6), "final_logits": (-1,), "final_ln": (-1,)}
    assert skipped == ("mlp_out",)


@pytest.mark.parametrize(
    ("name", "hooks", "expected"),
    [("full", "resid_pre", "new preset"), ("logits", "resid_pre", "new preset"),
     ("resid_pre", "q", "new preset"), ("a b", "q", "letters, digits"),
     ("other", "nothing", "known hook"), ("other", "", "at least one"),
     ("other", "resid_pre[1]", "without layers")],
)
def test_a_preset_that_is_taken_or_names_nothing_is_refused(name, hooks, expected):
    before = dict(PRESETS)
    with pytest.raises(Ring2Error, match=expected):
        register_preset(name, hooks)
    assert before == PRESETS
