"""Keys and values of every type of column, as SQL writes them."""

from __future__ import annotations

from collections.abc import Callable

KEYS: dict[str, Callable[[int], str]] = {
    "BIGINT": lambda n: str(n * 2**40 - 2**45),
    "INT": str,
    "SMALLINT": str,
    "TEXT": lambda n: "'" + "key ß ''"[: 3 + n % 3] + f"{n}'",
    "UUID": lambda n: f"'018f2b6e-7c1a-7e3d-9b1f-{n:012x}'",
    "TIMESTAMP": lambda n: f"'{1900 + n}-01-01T00:00:00.000001Z'",
    "DATE": lambda n: f"'{1900 + n}-02-28'",
    "DECIMAL(20,3)": lambda n: f"{n - 50}.125",
}
VALUES = {
    "flag BOOLEAN": ("true", "false"),
    "small SMALLINT": ("-32768", "32767"),
    "middle INT": ("-2147483648", "2147483647"),
    "big BIGINT": ("-9223372036854775808", "9223372036854775807"),
    "single FLOAT": ("CAST('NaN' AS FLOAT)", "CAST('-Infinity' AS FLOAT)", "0.1"),
    "double DOUBLE": ("CAST('NaN' AS DOUBLE)", "CAST('Infinity' AS DOUBLE)", "-0.0", "0.1"),
    "price DECIMAL(9,2)": ("-9999999.99", "0.01"),
    "amount DECIMAL(38,10)": ("9999999999999999999999999999.9999999999",),
    "words TEXT": ("''", "'ß😀'", "'" + "x" * 300 + "'"),
    "bytes BLOB": ("X''", "X'00ff'"),
    "moment TIMESTAMP": ("'0001-01-01T00:00:00Z'", "'9999-12-31T23:59:59.999999Z'", "'1969-12-31T23:59:59.5Z'"),
    "day DATE": ("'0001-01-01'", "'9999-12-31'"),
    "body JSON": ("""'{"a":[1,null]}'""", "'null'"),
    "uuid UUID": ("'018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f70'",),
}
