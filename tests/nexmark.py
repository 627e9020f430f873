"""An online auction house, after Nexmark: persons, auctions and bids in the order in which they come, from a seed.

Of fifty events one is a person, three are auctions and the others are bids. They come in rounds, half an hour or more
apart, within which a tenth of a second lies between two events and some bids are a little late. So windows of ten
seconds have many bids, sessions end, and the day changes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kalam.rows.lone_values import timestamp_text

Row = tuple[Any, ...]
COLUMNS = {
    "person": "id BIGINT PRIMARY KEY, name TEXT NOT NULL, email TEXT, card TEXT, city TEXT, state TEXT, "
    "date_time TIMESTAMP NOT NULL, extra TEXT",
    "auction": "id BIGINT PRIMARY KEY, item TEXT NOT NULL, description TEXT, initial_bid BIGINT, reserve BIGINT, "
    "date_time TIMESTAMP NOT NULL, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, "
    "extra TEXT",
    "bid": "id BIGINT PRIMARY KEY, auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, "
    "channel TEXT NOT NULL, url TEXT NOT NULL, date_time TIMESTAMP NOT NULL, extra TEXT",
}
"""Bids have a number of their own, which tells those of one moment apart."""
START = datetime(2026, 3, 7, 11, 50, tzinfo=UTC)
_CITIES = [("Portland", "OR"), ("Boise", "ID"), ("Fresno", "CA"), ("Reno", "NV"), ("Tampa", "FL"), ("Salem", "OR")]
_FIRST, _LAST = ("Ada", "Bo", "Cleo", "Dmitri", "Élise", "Farid"), ("Okafor", "Ng", "Ruiz", "Şahin", "O'Neil")
_ITEMS = ("a lamp", "an atlas", "a kite", "a violin", "seven spoons")
_CHANNELS = ("Apple", "Google", "Facebook", "Baidu")


@dataclass
class House:
    """What an auction house has seen so far. Its events are those of the seed, however they are asked for."""

    seed: int
    now: datetime = START
    persons: list[Row] = field(default_factory=list)
    auctions: list[Row] = field(default_factory=list)
    bids: int = 0

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def rounds(self, count: int) -> dict[str, list[Row]]:
        """The rows of the next rounds of fifty events, by the name of their table."""
        made: dict[str, list[Row]] = {name: [] for name in COLUMNS}
        for _ in range(count):
            for name, row in self._round():
                made[name].append(row)
        return made

    def _round(self) -> Iterator[tuple[str, Row]]:
        self.now += timedelta(minutes=self._dice.randrange(30, 90), microseconds=self._dice.randrange(1_000_000))
        for number in range(50):
            self.now += timedelta(milliseconds=self._dice.randrange(50, 200))
            if number == 0:
                self.persons.append(self._person())
                yield "person", self.persons[-1]
            elif number in (1, 10, 25):
                self.auctions.append(self._auction())
                yield "auction", self.auctions[-1]
            else:
                yield "bid", self._bid()

    def _extra(self) -> str | None:
        return self._dice.choice((None, "", "ccc", "c" * self._dice.randrange(9) + "d"))

    def _person(self) -> Row:
        dice, number = self._dice, 1_000 + len(self.persons)
        city, state = dice.choice(_CITIES)
        name = f"{dice.choice(_FIRST)} {dice.choice(_LAST)}"
        card = " ".join(f"{dice.randrange(10_000):04}" for _ in range(4))
        return number, name, f"p{number}@example.com", card, city, state, self.now, self._extra()

    def _auction(self) -> Row:
        dice, number = self._dice, 5_000 + len(self.auctions)
        first = dice.randrange(1, 1_000)
        expires = self.now + timedelta(seconds=dice.choice((2, 30, 7_200)))
        seller = self._recent(self.persons)[0]
        item = dice.choice(_ITEMS)
        limit = first + dice.randrange(500)
        category = dice.randrange(10, 15)
        return number, item, f"{item}, as new", first, limit, self.now, expires, seller, category, self._extra()

    def _bid(self) -> Row:
        dice = self._dice
        self.bids += 1
        channel = dice.choice((*_CHANNELS, f"channel-{dice.randrange(50)}"))
        found = f"https://www.example.com/{dice.choice('abc')}/{dice.choice('xyz')}/item.htm?query=1"
        of_channel = channel not in _CHANNELS and dice.random() < 0.7
        url = found + f"&channel_id={dice.randrange(10**6)}" if of_channel else found
        at = self.now - timedelta(milliseconds=dice.choice((0, 0, 0, 3_000)))
        price = int(10 ** dice.uniform(2, 8))
        auction, bidder = self._recent(self.auctions)[0], self._recent(self.persons)[0]
        return self.bids, auction, bidder, price, channel, url, at, self._extra()

    def _recent(self, rows: Sequence[Row]) -> Row:
        """One of the last few rows, more often than not the last."""
        return rows[-min(len(rows), 1 + int(self._dice.expovariate(1)))]


def values(rows: Sequence[Row]) -> str:
    """Rows as the VALUES of an INSERT."""
    return ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        value = timestamp_text(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)
