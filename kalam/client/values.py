"""Values of numpy and pandas as Python's own, which is what messages can carry, and libraries that may be missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def plain(value: Any) -> Any:
    """A scalar or array of numpy, or a scalar of pandas, as Python's own value; raises TypeError for anything else.

    Their marks for a missing value are None; times are cut to microseconds.
    """
    match type(value).__module__.partition(".")[0]:
        case "numpy":
            return _of_numpy(value)
        case "pandas":
            return _of_pandas(value)
    raise TypeError(f"a {type(value).__name__} is no value")


def _of_numpy(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        is_day = np.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D")
        return value.astype("datetime64[D]" if is_day else "datetime64[us]").item()
    own = value.item()
    if isinstance(own, np.generic):
        raise TypeError(f"a {type(value).__name__} is wider than any value")
    return own


def _of_pandas(value: Any) -> Any:
    import pandas as pd

    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime(warn=False)
    raise TypeError(f"a {type(value).__name__} is no value")


def library(name: str, wanted_for: str) -> Any:
    """An installed library; raises ImportError that says how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        raise ImportError(f"{wanted_for} needs {name}: pip install {name}", name=name) from exc
