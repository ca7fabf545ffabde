"""Which lane is whose, and what lies in it."""

from array import array

from openjanus.engine.lanes import Lanes, common


def keys(*values: int) -> "array[int]":
    return array("q", values)


def test_lanes_are_taken_side_by_side_and_come_back():
    lanes = Lanes(3)
    assert [lanes.take(keys(1)), lanes.take(keys(1))] == [0, 1]
    lanes.give_back(0)
    assert lanes.free == 2 and lanes.take(keys(1)) == 2, "the one never used"
    lanes.give_back(2)
    assert lanes.take(keys(1)) == 0
    lanes.grow(5)
    assert (len(lanes), lanes.free, lanes.take(keys(1))) == (5, 3, 2)


def test_of_free_lanes_the_one_used_longest_ago_is_taken():
    lanes = Lanes(3)
    for number in (5, 6, 7):
        lane = lanes.take(keys(number))
        lanes.hold(lane, keys(number, number))
        lanes.give_back(lane)
    assert lanes.take(keys(8)) == 0
    lanes.give_back(0)
    assert [lanes.longest(keys(6, 6)), lanes.longest(keys(7, 7))] == [(1, 2), (2, 2)], "the others can be begun with"
    assert lanes.take(keys(9)) == 1


def test_a_row_that_goes_on_where_a_lane_ends_takes_it():
    lanes = Lanes(3)
    for _ in range(3):
        lanes.take(keys(1))
    for lane, held in enumerate((keys(1, 2), keys(1, 2, 3), keys(4))):
        lanes.hold(lane, held)
        lanes.give_back(lane)
    assert lanes.take(keys(1, 2, 3, 9)) == 1, "the longest that begins it"
    lanes.give_back(1)
    assert lanes.take(keys(1, 2, 8)) == 0, "what another turn has in lane 1 is left there"


def test_lanes_that_would_run_along_for_nothing_cost_more_than_what_is_forgotten():
    lanes = Lanes(8)
    for lane in range(8):
        assert lanes.take(keys(lane)) == lane
    for lane in (3, 4, 0, 1, 7, 6):
        lanes.give_back(lane)
    assert lanes.take(keys(1)) == 3, "between those that run"
    lanes.give_back(2)
    lanes.give_back(5)
    assert lanes.take(keys(1)) == 4
    # Where as many run along whatever is taken, all of them are as good.
    recorded = Lanes(8, lambda first, last: 4 if last < 4 else 8)
    assert [recorded.take(keys(1)) for _ in range(2)] == [0, 1]
    recorded.give_back(0)
    assert recorded.take(keys(1)) == 2


def test_the_longest_beginning_is_found_in_lanes_of_any_owner():
    lanes = Lanes(3)
    lanes.hold(0, keys(1, 2, 3))
    lanes.hold(2, keys(1, 2, 9))
    lanes.extend(2, keys(7))
    assert lanes.longest(keys(1, 2, 9, 7, 5)) == (2, 4)
    assert lanes.longest(keys(1, 2)) == (0, 2)
    assert lanes.longest(keys(5)) == (0, 0)
    lanes.hold(2, keys(5))
    assert lanes.longest(keys(5, 6)) == (2, 1), "what a lane held before is gone"


def test_common_beginnings():
    assert common(keys(), keys(1)) == common(keys(2), keys(1)) == 0
    assert common(keys(1, 2, 3), keys(1, 2)) == 2
    assert common(keys(1, 2, 3), keys(1, 5, 3)) == 1
