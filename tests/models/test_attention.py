"""Attention, masks, rotary positions and the cache."""

import torch

import tiny
from openjanus.models.attention import Documents, attend, cache_mask, causal_mask, rotary, rotate
from openjanus.models.cache import STRIDE, KeyValueCache


def test_a_position_sees_earlier_attended_positions_and_itself():
    attended = torch.tensor([[False, True, True], [True, False, True]])
    mask = causal_mask(attended, new=3)[:, 0].int().tolist()
    assert mask[0] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask[1] == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_new_positions_are_the_last_ones_of_the_mask():
    attended = torch.tensor([[True, False, True, True]])
    assert causal_mask(attended, new=2)[0, 0].int().tolist() == [[1, 0, 1, 0], [1, 0, 1, 1]]


def test_grouped_queries_equal_repeated_keys_and_values():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 5, 4), torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
    repeated = attend(query, key.repeat_interleave(3, dim=1), value.repeat_interleave(3, dim=1), causal=True)
    torch.testing.assert_close(attend(query, key, value, causal=True), repeated)


def test_rotary_dot_products_depend_on_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(i: int, j: int) -> torch.Tensor:
        at = [rotary(torch.tensor([[p]]), 8, 5000.0, torch.float32) for p in (i, j)]
        return (rotate(query, *at[0]) * rotate(key, *at[1])).sum()

    torch.testing.assert_close(score(7, 3), score(104, 100), rtol=1e-4, atol=1e-5)
    assert (score(7, 3) - score(7, 4)).abs() > 1e-3


def test_rotary_angles_are_exact_at_late_positions_in_half_precision():
    exact = rotary(torch.tensor([[4001]]), 8, 10000.0, torch.float32)[0]
    half = rotary(torch.tensor([[4001]]), 8, 10000.0, torch.bfloat16)[0]
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=1 / 256)


def test_cached_positions_see_what_is_attended_up_to_their_own_place():
    attended = torch.tensor([[True, True, True, True], [True, False, True, True]])
    mask = cache_mask(attended, torch.tensor([[1, 2], [2, 3]]))[:, 0].int().tolist()
    assert mask[0] == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert mask[1] == [[1, 0, 1, 0], [1, 0, 1, 1]]


def test_the_cache_keeps_each_row_at_its_own_positions_and_writes_over_them():
    config = tiny.CONFIGS["janus"].language
    cache = KeyValueCache(config, rows=2, capacity=4, device=torch.device("cpu"), dtype=torch.float32)
    assert cache.capacity == STRIDE, "room comes in whole strides"
    ones = torch.ones(2, config.kv_heads, 2, config.head_size)
    cache.write(0, torch.tensor([[0, 1], [1, 2]]), ones, ones, upto=4)
    keys, values = cache.write(0, torch.tensor([[1, 2], [2, 3]]), ones * 2, ones * 3, upto=4)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 2, 0], [0, 1, 2, 2]]
    assert values[:, 0, :, 0].tolist() == [[1, 3, 3, 0], [0, 1, 3, 3]]


def test_documents_come_apart_and_together_again():
    groups = [torch.tensor([[0, 1, 2], [5, 6, -1]]), torch.tensor([[3]])]
    documents = Documents.found(groups, torch.Size((2, 5)))
    rows = torch.arange(20.0).view(2, 5, 2)
    apart = documents.take_apart(rows)
    assert [group.shape for group in apart] == [(2, 3, 2), (1, 1, 2)]
    held = []
    for group, taken in zip(groups, apart, strict=True):
        for token, content in zip(group.flatten().tolist(), taken.flatten(0, 1), strict=True):
            if token >= 0:
                held.append(token)
                assert torch.equal(content, rows.flatten(0, 1)[token])
    assert torch.equal(documents.put_together(apart).flatten(0, 1)[held], rows.flatten(0, 1)[held])
    assert documents.longest == 3
