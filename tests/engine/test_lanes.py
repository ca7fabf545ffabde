"""Which lane is whose, and what lies in it."""

from array import array

from openjanus.engine.lanes import Lanes, common


def keys(*values: int) -> "array[int]":
    return array("q", values)


def test_lanes_are_taken_from_the_bottom_and_come_back():
    lanes = Lanes(3)
    assert [lanes.take(), lanes.take()] == [0, 1]
    lanes.give_back(0)
    assert lanes.free == 2 and lanes.take() == 0
    lanes.grow(5)
    assert (len(lanes), lanes.free, lanes.take()) == (5, 3, 2)


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
