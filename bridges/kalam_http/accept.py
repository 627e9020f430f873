"""Which format an answer has, after the request's Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from kalam.errors import InvalidValue, Unsupported


def choose_format(header: str | None, offered: Sequence[str]) -> str:
    """The one of ``offered`` that the Accept header wants most, the first of several; no header takes the first.

    Raises Unsupported where it allows none of them.
    """
    if header is None or not header.strip():
        return offered[0]
    best = max(offered, key=lambda media_type: quality(header, media_type))
    if quality(header, best) > 0:
        return best
    raise Unsupported(
        f"this route cannot answer in any format of Accept: {header[:200]!r}",
        hint=f"ask for {', '.join(offered)}, or leave the Accept header out",
    )


def check_accepts(header: str | None, offered: str) -> None:
    """Raise Unsupported unless the Accept header allows ``offered``; no header allows everything."""
    choose_format(header, [offered])


def integers_as_text(header: str | None, media_type: str) -> bool:
    """Whether an Accept header asks for ``media_type`` with ``integers=text``; raises InvalidValue for another word."""
    asked = (_deciding(header or "", media_type) or {}).get("integers", "number")
    if asked not in ("number", "text"):
        raise InvalidValue(f"integers in Accept is number or text; found {asked[:40]!r}")
    return asked == "text"


def quality(header: str, media_type: str) -> float:
    """How much an Accept header wants ``media_type``, from 0 (not at all) to 1; the most specific range decides."""
    parameters = _deciding(header, media_type)
    if parameters is None:
        return 0.0
    try:
        return float(parameters.get("q", 1.0))
    except ValueError:
        return 0.0


def _deciding(header: str, media_type: str) -> dict[str, str] | None:
    """The parameters of the range that says most about ``media_type``; None where none does."""
    ranges = {media_type: 3, media_type.partition("/")[0] + "/*": 2, "*/*": 1}
    best_rank, found = 0, None
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        rank = ranges.get(name, 0)
        if rank > best_rank:
            best_rank, found = rank, parameters
    if found is None:
        return None
    pairs = (parameter.partition("=") for parameter in found)
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}
