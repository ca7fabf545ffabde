"""The language model: cached and padded runs equal full ones, and transformers' Llama where both exist."""

import copy
import dataclasses

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import tiny
from openjanus.config import LanguageConfig
from openjanus.models.attention import Documents, causal_mask
from openjanus.models.cache import KeyValueCache
from openjanus.models.llama import Llama, Span
from openjanus.train.parallel import compile_block

CONFIG = tiny.CONFIGS["janus"].language


def _run(model: Llama, ids: torch.Tensor) -> torch.Tensor:
    return model(model.embed(ids), torch.arange(ids.shape[1]).expand_as(ids))


def test_lanes_that_run_side_by_side_and_in_pieces_equal_full_runs():
    model = tiny.tiny_model("janus").language
    ids = torch.arange(24).view(2, 12) * 7 % 300
    whole = _run(model, ids)
    cache = KeyValueCache(CONFIG, 3, 12, torch.device("cpu"), torch.float32)

    def span(lane: int, start: int, end: int) -> Span:
        places = torch.arange(start, end)[None]
        return Span(slice(lane, lane + 1), places, places, upto=12)

    # Lane 2 reads five tokens, then lane 0 reads all but one beside its next three, then both take what is left, lane 1 idle.
    model.step(model.embed(ids[1, :5]), [span(2, 0, 5)], cache)
    model.step(model.embed(torch.cat((ids[0, :11], ids[1, 5:8]))), [span(0, 0, 11), span(2, 5, 8)], cache)
    model.step(model.embed(ids[1, 8:11]), [span(2, 8, 11)], cache)
    last = torch.tensor([[11], [cache.nowhere], [11]])
    x = model.embed(torch.stack((ids[0, 11], ids[0, 0], ids[1, 11])))
    hidden = model.step(x, [Span(slice(0, 3), last, last, upto=12)], cache)
    torch.testing.assert_close(hidden[[0, 2]], whole[:, 11], rtol=0, atol=1e-5)


def test_left_padding_changes_nothing_and_never_gives_nan():
    model = tiny.tiny_model("janus").language
    ids = torch.arange(8)[None] + 40
    alone = _run(model, ids)
    padded = torch.cat((torch.full((1, 3), 342), ids), dim=1)
    attended = torch.tensor([[False] * 3 + [True] * 8])
    positions = (torch.arange(11) - 3).clamp(min=0)[None]
    hidden = model(model.embed(padded), positions, causal_mask(attended, 11))
    assert hidden.isfinite().all()
    torch.testing.assert_close(hidden[:, 3:], alone, rtol=0, atol=1e-5)


def test_what_is_compiled_serves_documents_in_any_groups():
    model, counter = copy.deepcopy(tiny.tiny_model("janus").language), CompileCounter()
    ids = torch.arange(12).view(1, 12)
    compiled: list[int] = []
    groups_of_batches = [
        [[range(5), range(5, 9)], [range(9, 12)]],
        [[range(12)]],
        [[range(7)], [range(7, 10)], [range(10, 12)]],
        [[range(3), range(3, 6), range(6, 9), range(9, 12)]],
    ]

    def run(rows: int, groups: list[list[range]]) -> torch.Tensor:
        """The documents of the first row, with other rows below it, each one document."""
        others = [torch.arange(12 * row, 12 * row + 12)[None] for row in range(1, rows)]
        first = [torch.tensor([[*own, *[-1] * (len(group[0]) - len(own))] for own in group]) for group in groups]
        places = [*first, *others]
        documents = Documents.found(places, torch.Size((rows, 12)))
        return model.run_documents(model.embed(ids.expand(rows, 12)), documents, [None] * len(places))

    try:
        plain = [run(2 + number, groups) for number, groups in enumerate(groups_of_batches)]
        for block in model.model.layers:
            compile_block(block, counter)
        for number, groups in enumerate(groups_of_batches):
            torch.testing.assert_close(run(2 + number, groups), plain[number])
            compiled.append(counter.frame_count)
    finally:
        torch.compiler.reset()
    # Once for the first number of rows, once for any; never again for how documents lie in them.
    assert compiled[0] < compiled[1] == compiled[2] == compiled[3]


def test_the_rotary_base_matters():
    model = tiny.tiny_model("janus").language
    other = Llama(dataclasses.replace(CONFIG, rope_theta=10000.0))
    other.load_state_dict(model.state_dict())
    ids = torch.arange(12)[None]
    assert (_run(model, ids) - _run(other, ids)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4, "rope_theta": 10000.0},
        {"head_dim": 16, "rms_norm_eps": 1e-5},
        {"vocab_size": 77, "num_hidden_layers": 3, "intermediate_size": 40},
    ],
)
def test_logits_equal_those_of_transformers_llama(changes: dict[str, float]):
    transformers = pytest.importorskip("transformers")
    config = dataclasses.replace(CONFIG, **changes)
    torch.manual_seed(1)
    model = Llama(config).eval()
    peer_config = transformers.LlamaConfig(**vars(config), attention_bias=False, tie_word_embeddings=False)
    peer_config.rope_parameters = {"rope_type": "default", "rope_theta": config.rope_theta}
    peer = transformers.LlamaForCausalLM(peer_config).eval()
    peer.load_state_dict(model.state_dict())
    ids = torch.randint(0, config.vocab_size, (2, 9))
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(_run(model, ids)), peer(ids).logits, rtol=0, atol=1e-5)


def test_impossible_sizes_are_refused():
    from openjanus.errors import ConfigError

    with pytest.raises(ConfigError, match="num_key_value_heads 3"):
        LanguageConfig(num_attention_heads=4, num_key_value_heads=3, hidden_size=64)
    with pytest.raises(ConfigError, match="hidden_size 65"):
        LanguageConfig(num_attention_heads=4, hidden_size=65)
    with pytest.raises(ConfigError, match="head_dim 7 is odd"):
        LanguageConfig(num_attention_heads=4, hidden_size=28)
