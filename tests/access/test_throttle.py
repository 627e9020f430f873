"""Tables of how long logins are held up."""

from __future__ import annotations

import pytest

from kalam.access.throttle import ADDRESS_FREE, USER_FREE, WINDOW_S, Failures, Throttle, network, pause_s


@pytest.mark.parametrize(
    ("failures", "of_user", "at_address"),
    [
        (0, 0, 0),
        (1, 0, 0),
        (4, 0, 0),
        (5, 1, 0),
        (6, 2, 0),
        (7, 4, 0),
        (8, 8, 0),
        (9, 16, 0),
        (10, 32, 0),
        (11, 60, 0),
        (12, 60, 0),
        (49, 60, 0),
        (50, 60, 1),
        (51, 60, 2),
        (55, 60, 32),
        (56, 60, 60),
        (5_000, 60, 60),
    ],
)
def test_the_pause_after_so_many_failures(failures: int, of_user: float, at_address: float) -> None:
    assert pause_s(failures, USER_FREE) == of_user
    assert pause_s(failures, ADDRESS_FREE) == at_address


def test_the_fifth_failure_begins_a_second_and_each_further_one_doubles_it() -> None:
    throttle, now, pauses = Throttle(), 0.0, []
    for _ in range(14):
        pauses.append(throttle.failed(now, "ada", "10.0.0.1"))
        now += pauses[-1]
    assert pauses == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_pause_ends_by_itself() -> None:
    throttle = Throttle()
    for _ in range(6):
        throttle.failed(100.0, "ada", "10.0.0.1")
    waits = [throttle.wait_s(now, "ada", "10.0.0.2") for now in (100.0, 101.5, 101.9, 102.0, 200.0)]
    assert waits == [2.0, 0.5, pytest.approx(0.1), 0.0, 0.0]


def test_another_user_at_the_address_is_held_up_from_the_fiftieth_failure_on() -> None:
    throttle, now = Throttle(), 0.0
    for count in range(1, 50):
        throttle.failed(now, "ada", "10.0.0.1")
        assert throttle.wait_s(now, "ben", "10.0.0.1") == 0.0, count
    assert throttle.failed(now, "ada", "10.0.0.1") == 60.0
    assert throttle.wait_s(now, "ben", "10.0.0.1") == 1.0
    assert throttle.wait_s(now, "ben", "10.0.0.2") == 0.0
    assert throttle.wait_s(now, None, "10.0.0.1") == 1.0


def test_names_that_are_none_count_at_the_address_alone() -> None:
    throttle = Throttle()
    waits = [throttle.failed(0.0, None, "10.0.0.1") for _ in range(50)]
    assert waits == [0.0] * 49 + [1.0]


def test_who_succeeds_begins_anew_and_the_address_does_not() -> None:
    throttle = Throttle()
    for _ in range(50):
        throttle.failed(0.0, "ada", "10.0.0.1")
    throttle.succeeded("ada")
    assert throttle.wait_s(0.0, "ada", "10.0.0.2") == 0.0
    assert throttle.wait_s(0.0, "ada", "10.0.0.1") == 1.0


def test_failures_count_for_fifteen_minutes() -> None:
    throttle = Throttle()
    for number in range(5):
        throttle.failed(number * 10.0, "ada", "10.0.0.1")
    assert throttle.wait_s(40.0, "ada", "") == 1.0
    assert throttle.failed(WINDOW_S - 1.0, "ada", "") == 2.0  # all six within the window
    assert throttle.failed(WINDOW_S + 10.0, "ada", "") == 1.0  # the first two are out of it


def test_memory_is_bounded_and_the_oldest_is_forgotten() -> None:
    failures = Failures(free=4, keys_max=100)
    for number in range(1_000):
        for _ in range(6):
            failures.add(f"user{number}", float(number))
    assert len(failures) == 100
    assert failures.wait_s("user0", 999.0) == 0.0
    assert failures.wait_s("user999", 999.0) == 2.0


def test_of_one_key_no_more_is_kept_than_counts() -> None:
    failures = Failures(free=4)
    for _ in range(100_000):
        failures.add("ada", 1.0)
    assert failures.wait_s("ada", 1.0) == 60.0
    assert len(failures._times["ada"]) < 20  # noqa: SLF001 - memory is what this is about


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("no address", "no address"),
        ("x" * 1_000, "x" * 64),
    ],
)
def test_an_ipv6_network_is_one_address(address: str, counted: str) -> None:
    assert network(address) == counted
