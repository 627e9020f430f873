"""``kalam bench``: the flags."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kalam.cli.failure import WrongUsage

MEASUREMENTS: Final = (
    "idle",
    "streams",
    "stream_tables",
    "inserts",
    "flush",
    "select",
    "stored_tables",
    "lake",
    "live",
    "logins",
    "adopt",
    "views",
    "postgres",
    "peers",
)


def bench(
    only: Annotated[
        str | None, typer.Option(help=f"Some of {','.join(MEASUREMENTS)}.  [default: all]", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: does it work, not how fast is it.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="How long events are paced; the idle server is watched twice as long.  [default: 5]"
        ),
    ] = None,
    cold_rows: Annotated[
        int | None, typer.Option(min=1_000, help="Rows in Parquet when SELECT is measured.  [default: 5000000]")
    ] = None,
    point_rows: Annotated[
        int | None,
        typer.Option(
            min=1_000, help="Flushed rows of which single ones are read by key.  [default: 500000, then 5000000]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a server of its own next to the bare engines.

    Starts a server in a temporary folder (TMPDIR says on which disk) and needs many minutes; --quick needs two or
    three.
    """
    chosen = _chosen(only)
    from kalam.bench.run import run_bench
    from kalam.bench.sizes import Sizes

    sizes = Sizes.chosen(quick=quick, seconds=seconds, cold_rows=cold_rows, point_rows=point_rows)
    raise typer.Exit(run_bench(chosen, sizes, as_json=as_json))


def _chosen(only: str | None) -> tuple[str, ...]:
    """The measurements to make, in their order."""
    if only is None:
        return MEASUREMENTS
    names = {name.strip() for name in only.split(",")}
    if unknown := names - set(MEASUREMENTS):
        raise WrongUsage(f"--only: {', '.join(sorted(unknown))!r} is none of {', '.join(MEASUREMENTS)}")
    return tuple(name for name in MEASUREMENTS if name in names)
