"""Attention, masks, rotary positions and the cache."""

import torch

import tiny
from openjanus.models.attention import Documents, Packed, attend, causal_mask, entry_mask, rotary, rotate
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


def test_a_new_position_sees_the_entries_up_to_its_own():
    mask = (entry_mask(torch.tensor([[1, 2], [2, 3]]), 4, torch.float32)[:, 0] == 0).int().tolist()
    assert mask == [[[1, 1, 0, 0], [1, 1, 1, 0]], [[1, 1, 1, 0], [1, 1, 1, 1]]]


def filled(cache: KeyValueCache) -> torch.Tensor:
    """Three lanes, written twice in places."""
    config = tiny.CONFIGS["janus"].language
    ones = torch.ones(2, config.kv_heads, 2, config.head_size)
    cache.write(0, slice(0, 2), torch.tensor([[0, 1], [1, 2]]), ones, ones, upto=4)
    keys, values = cache.write(0, slice(1, 3), torch.tensor([[1, 2], [2, 3]]), ones * 2, ones * 3, upto=4)
    assert torch.equal(keys.sign(), values.sign())
    return cache.keys[0, :, 0, :4, 0]


def test_the_cache_keeps_each_lane_at_its_own_entries_and_writes_over_them():
    cache = KeyValueCache(tiny.CONFIGS["janus"].language, 3, 4, torch.device("cpu"), torch.float32)
    assert cache.entries == STRIDE - 1, "room comes in whole strides, one entry of which is nobody's"
    assert filled(cache).tolist() == [[1, 1, 0, 0], [0, 2, 2, 0], [0, 0, 2, 2]]


def test_the_cache_grows_and_copies_what_it_holds():
    cache = KeyValueCache(tiny.CONFIGS["janus"].language, 3, 4, torch.device("cpu"), torch.float32)
    held = filled(cache).clone()
    cache.grow(5, 2 * STRIDE)
    assert (cache.lanes, cache.entries) == (5, 3 * STRIDE - 1)
    assert torch.equal(cache.keys[0, :3, 0, :4, 0], held)
    cache.copy(2, 4, entries=3)
    assert cache.keys[0, 4, 0, :4, 0].tolist() == [0, 0, 2, 0]
    assert cache.values[0, 4, 0, :4, 0].tolist() == [0, 0, 3, 0]


def test_packed_groups_come_apart_and_together_again():
    packed, x = Packed(((3, 1), (1, 4), (2, 2))), torch.arange(22.0).view(11, 2)
    groups = packed.take_apart(x)
    assert [group.shape for group in groups] == [(3, 1, 2), (1, 4, 2), (2, 2, 2)]
    assert torch.equal(packed.put_together(groups), x)


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
    assert documents.positions.flatten()[held].tolist() == [0, 1, 2, 0, 1, 0]
