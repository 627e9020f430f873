"""Calls of functions in SQLite's words, and the types of what they give.

``RETURNED`` lists every scalar function that a catalogue query may call; ``functions`` and ``asking`` carry them out
under ``k_<name>``, but for a few that SQLite has itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlglot import exp

from kalam.errors import SyntaxFault, Unsupported
from kalam_pg.catalogue import pg_types
from kalam_pg.catalogue.coded import UNKNOWN, Coded, alike, as_type, quoted, text_of
from kalam_pg.catalogue.coding import Coding, Expr
from kalam_pg.catalogue.scopes import Scope
from kalam_pg.catalogue.series import SERIES, running, series

SAME: Final = "the type of the first argument"


def _names(kind: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


RETURNED: Final = {
    **_names(
        "text",
        "format_type pg_get_constraintdef pg_get_indexdef pg_get_viewdef pg_get_expr pg_get_partkeydef pg_get_ruledef "
        "pg_get_serial_sequence pg_get_functiondef pg_get_function_arguments pg_get_function_identity_arguments "
        "pg_get_function_result pg_get_triggerdef pg_get_statisticsobjdef pg_get_statisticsobjdef_columns "
        "pg_get_partition_constraintdef obj_description col_description shobj_description current_setting set_config "
        "version pg_size_pretty pg_describe_object pg_export_snapshot pg_tablespace_location pg_relation_filepath "
        "array_to_string quote_ident quote_literal quote_nullable format concat concat_ws left right lpad rpad "
        "split_part btrim ltrim rtrim lower upper initcap reverse repeat replace translate substring substr md5 chr "
        "regexp_replace to_char pg_current_snapshot txid_current_snapshot pg_current_wal_lsn pg_last_wal_receive_lsn "
        "pg_last_wal_replay_lsn pg_get_function_sqlbody to_hex pg_collation_for pg_current_logfile",
    ),
    **_names(
        "name",
        "pg_get_userbyid current_schema current_database current_catalog current_user session_user current_role user "
        "pg_encoding_to_char pg_client_encoding getdatabaseencoding",
    ),
    **_names(
        "bool",
        "pg_table_is_visible pg_type_is_visible pg_function_is_visible pg_operator_is_visible pg_opclass_is_visible "
        "pg_opfamily_is_visible pg_collation_is_visible pg_conversion_is_visible pg_statistics_obj_is_visible "
        "pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible "
        "has_table_privilege has_any_column_privilege has_column_privilege has_schema_privilege has_database_privilege "
        "has_function_privilege has_sequence_privilege has_type_privilege has_tablespace_privilege "
        "has_language_privilege has_foreign_data_wrapper_privilege has_server_privilege has_parameter_privilege "
        "pg_has_role pg_is_in_recovery pg_is_wal_replay_paused pg_is_other_temp_schema pg_relation_is_publishable "
        "pg_column_is_updatable pg_jit_available row_security_active starts_with pg_in_recovery "
        "pg_index_has_property pg_indexam_has_property pg_index_column_has_property",
    ),
    **_names(
        "int4",
        "pg_backend_pid array_length array_upper array_lower array_ndims cardinality array_position strpos length "
        "char_length character_length octet_length ascii pg_relation_is_updatable pg_char_to_encoding "
        "inet_server_port inet_client_port pg_column_size",
    ),
    **_names(
        "int8",
        "pg_relation_size pg_table_size pg_total_relation_size pg_indexes_size pg_database_size pg_tablespace_size "
        "txid_current pg_stat_get_numscans pg_stat_get_live_tuples pg_stat_get_dead_tuples pg_stat_get_tuples_inserted "
        "pg_stat_get_tuples_returned pg_stat_get_tuples_fetched pg_stat_get_blocks_fetched pg_stat_get_blocks_hit",
    ),
    **_names("oid", "pg_my_temp_schema pg_relation_filenode pg_get_replica_identity_index"),
    **_names("xid8", "pg_current_xact_id pg_current_xact_id_if_assigned"),
    **_names("void", "pg_advisory_unlock_all pg_stat_clear_snapshot"),
    **_names("_name", "current_schemas"),
    **_names("_text", "string_to_array parse_ident regexp_split_to_array regexp_match"),
    **_names("json", "json_build_object json_build_array to_json row_to_json"),
    **_names("jsonb", "jsonb_build_object jsonb_build_array to_jsonb"),
    **_names(
        "timestamptz",
        "now current_timestamp transaction_timestamp statement_timestamp clock_timestamp pg_postmaster_start_time "
        "pg_conf_load_time pg_stat_get_last_autovacuum_time pg_last_xact_replay_timestamp to_timestamp",
    ),
    "current_date": "date",
    "date_part": "float8",
    "age": "int4",
    "inet_client_addr": "inet",
    "inet_server_addr": "inet",
    "to_regclass": "regclass",
    "to_regtype": "regtype",
    "to_regnamespace": "regnamespace",
    "to_regrole": "regrole",
    "to_regproc": "regproc",
    "random": "float8",
    **_names(SAME, "abs round floor ceil ceiling array_append array_remove array_cat nullif"),
    "array_prepend": "_text",
    **_names("int4", "mod"),
}
"""What the scalar functions give."""

_NATIVE: Final = frozenset({"lower", "upper", "length", "replace", "substr", "abs", "round", "nullif"})
"""Those that SQLite has as PostgreSQL has them."""
_ALSO: Final = {"substring": "substr", "char_length": "length", "character_length": "length"}
_OIDS_OF: Final = {
    **_names("regclass", "pg_get_indexdef pg_get_viewdef pg_relation_size pg_table_size pg_total_relation_size"),
    **_names("regclass", "pg_indexes_size pg_table_is_visible"),
}
"""What a literal stands for as the first argument."""
_TRUTHS: Final = ("bool_and", "bool_or", "every")
_RANKS: Final = frozenset({"row_number", "rank", "dense_rank", "ntile"})
_KEPT_TYPES: Final = frozenset({"json_build_object", "jsonb_build_object", "json_build_array", "to_json", "to_jsonb"})


def call(of: Coding, name: str, nodes: Sequence[Expr], scope: Scope) -> Coded:
    """A call of a function; raises Unsupported for one that is not known here."""
    function = name.lower()
    if function == "array" and len(nodes) == 1 and isinstance(nodes[0], exp.Query):
        query = of.query(nodes[0], scope)
        kind = pg_types.array_of(query.outputs[0].type)
        return Coded(f"(SELECT json_group_array(c0) FROM ({query.sql}))", kind)
    aggregate = _aggregate(of, function, nodes, scope)
    if aggregate is not None:
        return aggregate
    arguments = [of.code(node, scope) for node in nodes]
    if function in SERIES:
        return _running(of, function, arguments, scope)
    if function in ("coalesce", "greatest", "least"):
        values, kind = of.of_one_type(arguments)
        listed = ", ".join(value.sql for value in values)
        if len(values) == 1:
            return Coded(listed, kind)
        return Coded(f"{function if function == 'coalesce' else f'k_{function}'}({listed})", kind)
    if function not in RETURNED:
        raise Unsupported(
            f"function {function[:64]}() is not one that catalogue queries may call",
            hint="beside relations of pg_catalog and information_schema only their own functions are at hand",
        )
    return _scalar(of, function, arguments)


def _scalar(of: Coding, function: str, arguments: Sequence[Coded]) -> Coded:
    kind = RETURNED[function]
    if function in _OIDS_OF and arguments:
        arguments = [as_type(arguments[0], _OIDS_OF[function], of.parameters), *arguments[1:]]
    if function == "nullif" and len(arguments) == 2:
        arguments = alike(arguments[0], arguments[1], of.parameters)
    settled = [as_type(each, "text", of.parameters) if each.parameter else each for each in arguments]
    if kind is SAME:
        kind = settled[0].type if settled and settled[0].type != UNKNOWN else "text"
    native = _ALSO.get(function, function)
    if function == "substring" and len(settled) == 2 and settled[1].type in (UNKNOWN, "text"):
        return Coded(f"k_substring({settled[0].sql}, {settled[1].sql})", "text")
    if native in _NATIVE:
        listed = [text_of(each) if kind == "text" and place == 0 else each.sql for place, each in enumerate(settled)]
        return Coded(f"{native}({', '.join(listed)})", kind)
    return Coded(f"k_{function}({', '.join(_passed(function, each) for each in settled)})", kind)


def _passed(function: str, argument: Coded) -> str:
    """An argument as a function of ours takes it: with texts for what has names, and truths for JSON."""
    if function in ("format", "concat", "concat_ws", "quote_ident", "quote_literal", "array_to_string"):
        return argument.sql if pg_types.is_array(argument.type) else text_of(argument)
    if function in _KEPT_TYPES and argument.type == "bool":
        return f"json(CASE {argument.sql} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE 'null' END)"
    return argument.sql


def _running(of: Coding, function: str, arguments: Sequence[Coded], scope: Scope) -> Coded:
    """A function that gives rows, in a select list."""
    if scope.series is None:
        raise Unsupported(f"{function}() stands in FROM or in a select list")
    found = series(function, arguments, of.parameters)
    scope.series.append(found.array)
    return found.element(running(len(scope.series) - 1))


def _aggregate(of: Coding, function: str, nodes: Sequence[Expr], scope: Scope) -> Coded | None:
    """A call of an aggregate, or of a function that only a window has; None for others."""
    if function in _RANKS:
        return Coded(f"{function}({', '.join(of.code(node, scope).sql for node in nodes)})", "int8")
    if function in ("lag", "lead", "first_value", "last_value"):
        listed = [of.settled(node, scope) for node in nodes]
        return Coded(f"{function}({', '.join(each.sql for each in listed)})", listed[0].type)
    if function == "count":
        if not nodes or isinstance(nodes[0], exp.Star):
            return Coded("count(*)", "int8")
        return Coded(f"count({_distinct(of, nodes[0], scope).sql})", "int8")
    if function in ("min", "max", "sum", "avg") or function in _TRUTHS:
        if len(nodes) != 1:
            raise SyntaxFault(f"{function}() has one argument")
        value = _distinct(of, nodes[0], scope)
        if function in _TRUTHS:
            return Coded(f"{'max' if function == 'bool_or' else 'min'}({value.sql})", "bool")
        kind = {"sum": "int8" if value.type in ("int2", "int4", "int8") else "numeric", "avg": "numeric"}
        return Coded(f"{function}({value.sql})", kind.get(function, value.type))
    if function in ("array_agg", "string_agg", "json_agg", "jsonb_agg"):
        return _collected(of, function, nodes, scope)
    return None


def _distinct(of: Coding, node: Expr, scope: Scope) -> Coded:
    if isinstance(node, exp.Distinct):
        inner = of.settled(node.expressions[0], scope)
        return Coded(f"DISTINCT {inner.sql}", inner.type)
    return of.settled(node, scope)


def _collected(of: Coding, function: str, nodes: Sequence[Expr], scope: Scope) -> Coded:
    """``array_agg`` and its like: SQLite before 3.44 has no order within an aggregate, so ours gets the keys."""
    from_order = next((node for node in nodes if isinstance(node, exp.Order)), None)
    plain = [node.this if isinstance(node, exp.Order) else node for node in nodes]
    terms = from_order.expressions if from_order is not None else []
    distinct = isinstance(plain[0], exp.Distinct)
    if distinct:
        plain = [*plain[0].expressions, *plain[1:]]
    if from_order is not None and isinstance(plain[0], exp.Order):
        plain[0] = plain[0].this
    values = [of.settled(node, scope) for node in plain]
    separator = values[1].sql if function == "string_agg" and len(values) > 1 else "NULL"
    directions = ",".join(
        ("d" if term.args.get("desc") else "a") + ("f" if term.args.get("nulls_first") else "l") for term in terms
    )
    keys = "".join(f", {of.settled(term.this, scope).sql}" for term in terms)
    value = text_of(values[0]) if function == "string_agg" else values[0].sql
    shape = ("D" if distinct else "A") + ("S" if function == "string_agg" else "J")
    kind = {"string_agg": "text", "array_agg": pg_types.array_of(values[0].type)}.get(function, function[:-4])
    return Coded(f"k_collected({quoted(shape)}, {quoted(directions)}, {separator}, {value}{keys})", kind)
