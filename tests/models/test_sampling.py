"""Choices: greedy, top-k, top-p, and the inverse of the cumulative distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openjanus.models.sampling import Sampling, guide, pick
from openjanus.types import TextOptions


def test_temperature_0_takes_the_first_of_the_largest_logits():
    logits = torch.tensor([[0.0, 5.0, 5.0], [2.0, 1.0, 0.0]])
    assert pick(logits, torch.tensor([0.9, 0.9]), temperature=0).tolist() == [1, 0]


def test_uniform_numbers_fall_into_the_shares_of_the_probabilities():
    logits = torch.tensor([0.5, 0.25, 0.25]).log().repeat(4, 1)
    assert pick(logits, torch.tensor([0.0, 0.49, 0.51, 0.999]), temperature=1).tolist() == [0, 0, 1, 2]


def test_frequencies_follow_the_softmax_of_logits_over_temperature():
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]]).repeat(20000, 1)
    uniform = torch.from_numpy(np.random.default_rng(0).random(20000, dtype=np.float32))
    picked = pick(logits, uniform, temperature=0.7)
    shares = torch.bincount(picked, minlength=4) / 20000
    torch.testing.assert_close(shares, (logits[0] / 0.7).softmax(-1), rtol=0, atol=0.015)


def test_top_k_keeps_the_largest_k():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).repeat(100, 1)
    uniform = torch.linspace(0, 0.999, 100)
    assert set(pick(logits, uniform, 1.0, top_k=2).tolist()) == {1, 3}
    assert set(pick(logits, uniform, 5.0, top_k=0).tolist()) == {0, 1, 2, 3}
    assert len(set(pick(torch.zeros(100, 4), uniform, 1.0, top_k=1).tolist())) == 1, "equals count one by one"


def test_extreme_temperatures_and_logits_still_give_a_choice():
    logits = torch.tensor([[3e38, -3e38, 0.0], [1.0, 2.0, 3.0]])
    uniform = torch.tensor([0.999, 0.999])
    for temperature in (1e-30, 1e-40, 1e-300):
        assert pick(logits, uniform, temperature).tolist() == [0, 2]
    assert all(0 <= choice < 3 for choice in pick(logits, uniform, temperature=1e30).tolist())


def test_top_p_keeps_the_fewest_that_reach_it_and_always_the_largest():
    logits = torch.tensor([0.1, 0.6, 0.3]).log().repeat(100, 1)
    uniform = torch.linspace(0, 0.999, 100)
    assert set(pick(logits, uniform, 1.0, top_p=0.55).tolist()) == {1}
    assert set(pick(logits, uniform, 1.0, top_p=0.65).tolist()) == {1, 2}
    assert set(pick(logits, uniform, 1.0, top_p=1e-9).tolist()) == {1}


@pytest.mark.parametrize("top_p", [5e-324, 1e-320, 1e-46])
def test_a_top_p_that_float32_takes_for_0_keeps_the_largest(top_p: float):
    logits, uniform = torch.tensor([[0.1, 0.6, 0.3], [0.6, 0.1, 0.3]]).log(), torch.tensor([0.999, 0.999])
    assert pick(logits, uniform, 1.0, top_p=top_p).tolist() == [1, 0]
    sampling, lanes = Sampling(3, torch.device("cpu")), [2, 0]
    sampling.join(2, TextOptions(temperature=1.0, top_p=top_p))
    sampling.join(0, TextOptions(temperature=1.0, top_p=top_p, top_k=2))
    assert sampling.pick(torch.tensor(lanes), logits, uniform, sampling.manner(lanes)).tolist() == [1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1, exclude_max=True, width=32), st.floats(0.01, 1), st.integers(0, 12))
def test_a_choice_never_falls_on_what_was_left_out(seed: int, uniform: float, top_p: float, top_k: int):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 5, (1, 10)).astype(np.float32))
    logits[0, -3:] = -torch.inf
    choice = int(pick(logits, torch.tensor([uniform]), 1.0, top_k, top_p))
    assert choice < 7
    if top_k:
        assert choice in logits[0].topk(min(top_k, 7)).indices.tolist()


def test_half_precision_logits_of_any_size_give_a_choice():
    logits = torch.tensor([[60000.0, -60000.0, 59000.0]], dtype=torch.float16)
    assert pick(logits, torch.tensor([0.5]), temperature=0.01).tolist() == [0]


def test_guidance_1_is_the_conditional_prediction_and_0_the_blank_one():
    conditional, blank = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(guide(conditional, blank, 1.0), conditional)
    torch.testing.assert_close(guide(conditional, blank, 0.0), blank)
    torch.testing.assert_close(guide(conditional, blank, 5.0), 5 * conditional - 4 * blank)
