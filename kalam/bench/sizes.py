"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a run; the defaults are those of a full one.

    In each of the ``rounds`` Kalam and the bare engine take turns, and the best of each counts: what else the machine
    does meanwhile can only slow down.
    """

    rounds: int = 2
    events: int = 300_000
    paced_per_s: int = 2_000
    paced_s: float = 5.0
    single_rows: int = 200_000
    batched_rows: int = 1_000_000
    flush_rows: int = 1_000_000
    cold_rows: int = 5_000_000
    hot_rows: int = 10_000
    overridden_rows: int = 10_000
    query_runs: int = 7
    fan_out_events: int = 100_000
    paced_tables: int = 100
    window_rows: int = 1_000_000
    crowd_connections: int = 2_000
    probes: int = 20
    keyed_rows: int = 100_000
    point_reads: int = 100_000
    cold_point_rows: tuple[int, ...] = (500_000, 5_000_000)
    cold_point_reads: int = 20_000
    cold_point_turns: int = 7
    updated_rows: int = 100_000
    single_updates: int = 2_000
    imported_rows: int = 1_000_000
    loaded_rows: int = 5_000_000
    random_rows: int = 300_000
    lake_rounds: int = 6
    lake_rows: int = 100_000
    lake_s: float = 12.0
    lasting_rows: int = 10_000_000
    bucket_keys: int = 20_000
    live_queries: tuple[int, ...] = (10, 100, 1_000, 10_000)
    live_per_s: int = 2_000
    feed_per_s: int = 20_000
    logins: int = 300
    crowd_logins: int = 500
    login_rounds: int = 5
    adopted_messages: int = 300_000
    viewed_rows: int = 300_000
    many_views: int = 100
    adopt_rounds: int = 4
    pg_rows: int = 1_000_000
    pg_many_rows: int = 20_000
    pg_points: int = 5_000
    pg_constants: int = 2_000
    pg_connections: int = 1_000
    peer_turns: int = 5
    peer_single_rows: int = 40_000
    peer_batched_rows: int = 200_000
    peer_events: int = 200_000
    peer_paced_per_s: tuple[int, ...] = (2_000, 10_000)
    peer_live_queries: int = 100

    @property
    def idle_s(self) -> float:
        """How long the idle server is watched."""
        return 2 * self.paced_s

    @classmethod
    def chosen(
        cls, *, quick: bool, seconds: float | None = None, cold_rows: int | None = None, point_rows: int | None = None
    ) -> Self:
        """The sizes that the flags ask for; None stands for the default."""
        sizes = cls._quick() if quick else cls()
        if seconds is not None:
            sizes = replace(sizes, paced_s=seconds)
        if point_rows is not None:
            sizes = replace(sizes, cold_point_rows=(point_rows,))
        return sizes if cold_rows is None else replace(sizes, cold_rows=cold_rows)

    @classmethod
    def _quick(cls) -> Self:
        return cls(
            rounds=1,
            events=10_000,
            paced_s=0.5,
            single_rows=5_000,
            batched_rows=20_000,
            flush_rows=20_000,
            cold_rows=50_000,
            hot_rows=500,
            overridden_rows=500,
            query_runs=3,
            fan_out_events=2_000,
            paced_tables=10,
            window_rows=20_000,
            crowd_connections=50,
            probes=3,
            keyed_rows=5_000,
            point_reads=2_000,
            cold_point_rows=(2_000, 5_000),
            cold_point_reads=500,
            cold_point_turns=1,
            updated_rows=5_000,
            single_updates=50,
            imported_rows=20_000,
            loaded_rows=25_000,
            random_rows=5_000,
            lake_rounds=1,
            lake_rows=2_000,
            lake_s=0.2,
            lasting_rows=40_000,
            bucket_keys=2_000,
            live_queries=(2, 20),
            live_per_s=200,
            feed_per_s=2_000,
            logins=10,
            crowd_logins=20,
            login_rounds=1,
            viewed_rows=20_000,
            many_views=3,
            adopted_messages=5_000,
            adopt_rounds=1,
            pg_rows=20_000,
            pg_many_rows=2_000,
            pg_points=100,
            pg_constants=50,
            pg_connections=20,
            peer_turns=1,
            peer_single_rows=2_000,
            peer_batched_rows=20_000,
            peer_events=10_000,
            peer_live_queries=5,
        )
