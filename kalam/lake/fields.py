"""A table's columns as Iceberg's schema, partition spec and name mapping: JSON values, pure.

Every field is optional, as in the files. JSON and UUID are texts in the files and are published as that; so is every
other type as what lies there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kalam.rows.field_ids import SYSTEM_IDS, name_owners
from kalam.rows.versions import History
from kalam.schema import SEQ, UPDATED, DataType, Table, TypeName

USER_FIELD_ID = 1_000_000_003
PARTITION_FIELD_ID = 1_000

_TYPES: Mapping[TypeName, str] = {
    TypeName.BOOLEAN: "boolean",
    TypeName.SMALLINT: "int",
    TypeName.INT: "int",
    TypeName.BIGINT: "long",
    TypeName.FLOAT: "float",
    TypeName.DOUBLE: "double",
    TypeName.TEXT: "string",
    TypeName.BLOB: "binary",
    TypeName.TIMESTAMP: "timestamptz",
    TypeName.DATE: "date",
    TypeName.JSON: "string",
    TypeName.UUID: "string",
}


def iceberg_type(data_type: DataType) -> str:
    """The name of a column type in Iceberg."""
    if data_type.name is TypeName.DECIMAL:
        return f"decimal({data_type.precision or 38}, {data_type.scale or 0})"
    return _TYPES[data_type.name]


def user_field(table: Table) -> str:
    """What the column of the user is called in the lake of a USER table."""
    return "_user_id" if table.column("user_id") else "user_id"


def field_types(table: Table) -> dict[int, tuple[str, str]]:
    """Name and Iceberg type of each field by its id."""
    found = {column.column_id: (column.name, iceberg_type(column.type)) for column in table.shown_columns}
    found[SYSTEM_IDS[UPDATED]] = UPDATED, "timestamptz"
    found[SYSTEM_IDS[SEQ]] = SEQ, "long"
    if table.per_user:
        found[USER_FIELD_ID] = user_field(table), "string"
    return found


def schema(table: Table) -> dict[str, Any]:
    """The schema of a table's present version, whose number is the schema's id."""
    fields = [
        {"id": field_id, "name": name, "required": False, "type": kind}
        for field_id, (name, kind) in field_types(table).items()
    ]
    return {"type": "struct", "schema-id": table.schema_version, "fields": fields}


def partition_spec(table: Table) -> dict[str, Any]:
    """The partition spec: by user, or none."""
    field = {
        "source-id": USER_FIELD_ID,
        "field-id": PARTITION_FIELD_ID,
        "transform": "identity",
        "name": user_field(table),
    }
    return {"spec-id": 0, "fields": [field] if table.per_user else []}


def name_mapping(history: History) -> list[dict[str, Any]]:
    """What the names in files without field ids mean; of columns that are gone too, so that they stay gone."""
    names: dict[int, list[str]] = {}
    for name, column_id in name_owners(history)[0].items():
        names.setdefault(column_id, []).append(name)
    for name, field_id in SYSTEM_IDS.items():
        names[field_id] = [name]
    return [{"field-id": field_id, "names": own} for field_id, own in names.items()]


def last_column_id(history: History) -> int:
    """The greatest field id that was ever given."""
    return max(USER_FIELD_ID, *(column.column_id for columns in history.values() for column in columns))
