"""What queries over streams of others hold together."""

from __future__ import annotations

import pytest

from kalam.errors import TooBusy
from kalam.tables.foreign.room import Room


class Holder:
    """Something that was read."""


def nothing_gives_way(surplus: int, holder: object) -> None:
    """All that is kept is in use."""


def test_one_read_alone_may_be_larger_than_the_room() -> None:
    Room(100, nothing_gives_way).hold(Holder(), 150)


def test_a_read_that_grows_past_the_room_beside_others_ends_and_the_others_go_on() -> None:
    room, first, second = Room(100, nothing_gives_way), Holder(), Holder()
    room.hold(first, 60)
    room.hold(second, 40)
    with pytest.raises(TooBusy):
        room.hold(second, 50)
    room.hold(first, 100)
    room.release(first)
    room.hold(second, 50)


def test_what_is_kept_gives_way_to_what_is_read() -> None:
    kept, reading = Holder(), Holder()

    def give_way(surplus: int, holder: object) -> None:
        assert (surplus, holder) == (30, reading)
        room.release(kept)

    room = Room(100, give_way)
    room.note(kept, 90)
    room.hold(reading, 40)


def test_what_nobody_has_any_more_holds_nothing() -> None:
    room, lent, reading = Room(100, nothing_gives_way), Holder(), Holder()
    room.hold(lent, 90)
    with pytest.raises(TooBusy):
        room.hold(reading, 20)
    del lent
    room.hold(reading, 20)
