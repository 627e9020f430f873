"""Policies: made, dropped and shown, and whether they decide over a table's rows."""

from __future__ import annotations

import pyarrow as pa

from kalam.access.book import Book
from kalam.access.conditions import check_condition
from kalam.access.model import Command, Narrowed, Policy, Privilege
from kalam.engine.gate import Gate
from kalam.engine.grants import check_grantees
from kalam.engine.session import Request
from kalam.errors import AlreadyExists, KalamError, NotFound, TableInUse, TooLarge, Unsupported
from kalam.names import listed
from kalam.query.policies import Policies
from kalam.query.queries import resolve
from kalam.query.results import Result, list_result
from kalam.schema import SelectOptions, Table
from kalam.sql.access.statements import (
    CreatePolicy,
    DisableRowLevelSecurity,
    DropPolicy,
    EnableRowLevelSecurity,
    PolicyExpression,
    ShowPolicies,
)
from kalam.sql.text.statements import TableRef
from kalam.storage.log.catalogue import Catalogue
from kalam.threads import INLINE_CHARACTERS_MAX
from kalam.views.plan import readers_of

TEXT, TRUTH = pa.string(), pa.bool_()
POLICIES_MAX = 100
"""Of one table: a row is looked at by all of them."""
FIELDS = (
    *(("policy", TEXT), ("namespace", TEXT), ("table_name", TEXT), ("command", TEXT), ("grantees", TEXT)),
    *(("using", TEXT), ("with_check", TEXT), ("enabled", TRUTH)),
)


class PolicyStatements:
    """Carries them out. What could hear or read the table ends before a change is answered."""

    def __init__(self, policies: Policies, book: Book, gate: Gate, catalogue: Catalogue) -> None:
        self._policies, self._book, self._gate, self._catalogue = policies, book, gate, catalogue

    async def create(self, statement: CreatePolicy, request: Request) -> Result:
        """CREATE POLICY; its expressions are planned over the table before it is taken."""
        table = self._owned(statement.ref, request)
        expressions = [each for each in (statement.using, statement.check) if each is not None]
        for expression in expressions:
            await self._check(table, expression, request.session.user)
        async with self._book.changing:
            table = self._owned(statement.ref, request)
            for expression in expressions:  # an ALTER may have come meanwhile
                check_condition(table, expression.text)
            check_grantees(self._book, statement.grantees)
            self._check_free(table, statement.name)
            policy = Policy(
                table_id=table.table_id,
                name=statement.name,
                command=Command(statement.command),
                grantees=statement.grantees,
                using=None if statement.using is None else statement.using.text,
                check=None if statement.check is None else statement.check.text,
            )
            await self._book.put_policy(policy)
        await self._end_reading(table)
        enabled = self._catalogue.newest(table).row_security
        later = "" if enabled else f"; it counts from ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY on"
        return Result(message=f"policy {policy.name} on {table.name} created{later}")

    async def _check(self, table: Table, expression: PolicyExpression, user: str) -> None:
        """Raise what the expression has against it, with its place in the request."""
        if len(expression.text) > INLINE_CHARACTERS_MAX:
            raise TooLarge(f"the expression of a policy has at most {INLINE_CHARACTERS_MAX:,} characters")
        try:
            await self._policies.check(table, expression.text, user)
        except KalamError as exc:
            if "line" in exc.fields:
                line, column = exc.fields["line"], exc.fields["column"]
                exc.fields["line"] = expression.line + line - 1
                exc.fields["column"] = column + (expression.column - 1 if line == 1 else 0)
            raise

    def _check_free(self, table: Table, name: str) -> None:
        if self._book.policy(table.table_id, name) is not None:
            raise AlreadyExists(
                f"table {table.name} has a policy {name} already", hint=f"DROP POLICY {name} ON {table.name} first"
            )
        if len(self._book.policies.get(table.table_id, ())) >= POLICIES_MAX:
            raise Unsupported(f"a table has at most {POLICIES_MAX} policies")

    async def drop(self, statement: DropPolicy, request: Request) -> Result:
        """DROP POLICY."""
        name = resolve(statement.ref, request.session.namespace)
        if statement.if_exists and not self._gate.sees(request.session.identity, self._catalogue.tables.get(name)):
            return Result(message=f"skipped: there is no table {name}")
        async with self._book.changing:
            table = self._owned(statement.ref, request)
            policy = self._book.policy(table.table_id, statement.name)
            if policy is None:
                if statement.if_exists:
                    return Result(message=f"skipped: there is no policy {statement.name} on {table.name}")
                raise NotFound(
                    f"there is no policy {statement.name} on {table.name}", hint=f"SHOW POLICIES ON {table.name}"
                )
            await self._book.drop_policy(policy)
        await self._end_reading(table)
        return Result(message=f"policy {policy.name} on {table.name} dropped")

    async def enable(self, statement: EnableRowLevelSecurity, request: Request) -> Result:
        """ALTER TABLE … ENABLE ROW LEVEL SECURITY: from here on the table's policies decide over its rows."""
        return await self._set(statement.ref, request, enabled=True)

    async def disable(self, statement: DisableRowLevelSecurity, request: Request) -> Result:
        """ALTER TABLE … DISABLE ROW LEVEL SECURITY: its policies stay, and nobody asks them."""
        return await self._set(statement.ref, request, enabled=False)

    async def _set(self, ref: TableRef, request: Request, *, enabled: bool) -> Result:
        word = "enabled" if enabled else "disabled"
        async with self._book.changing:
            table = self._owned(ref, request)
            if table.row_security is enabled:
                return Result(message=f"skipped: row level security of {table.name} is {word} already")
            if enabled:
                self._check_untrusted(table)
                if reading := readers_of(table, self._catalogue):
                    told = self._gate.told(request.session.identity, "materialized view", reading)
                    raise TableInUse(
                        f"table {table.name} is read by {told}, which would show its rows past the policies",
                        hint="DROP MATERIALIZED VIEW comes first",
                    )
            await self._catalogue.set_access(table, owned_by=table.owned_by, row_security=enabled)
            self._book.touch()
        await self._end_reading(table)
        return Result(message=f"row level security of {table.name} {word}")

    def _check_untrusted(self, table: Table) -> None:
        """Raise TableInUse while somebody may read the table's stream at the broker, where no policy is asked."""
        trusted = [
            grantee
            for grantee, grants in self._book.grants.items()
            if any(each.table_id == table.table_id and each.privilege is Privilege.JETSTREAM for each in grants)
        ]
        if trusted:
            raise TableInUse(
                f"JETSTREAM on {table.name} is granted to {listed(sorted(trusted))}",
                hint=f"REVOKE JETSTREAM ON TABLE {table.name} FROM them first",
            )

    def _owned(self, ref: TableRef, request: Request) -> Table:
        table = self._gate.owned(ref, request.session, "say who sees which of its rows")
        if table.per_user:
            raise Unsupported(f"table {table.name} is a USER table: everybody sees their own rows there and no others")
        if isinstance(table.options, SelectOptions):
            raise Unsupported(f"{table.name} is a view: the policies of what it reads hold for its owner")
        return table

    async def _end_reading(self, table: Table) -> None:
        await self._book.narrowed(Narrowed(users=None, tables=frozenset((table.table_id,)), policies=True))

    def show(self, statement: ShowPolicies, request: Request) -> Result:
        """SHOW POLICIES: of all tables for administrators, else of one's own."""
        identity = request.session.identity
        on = None if statement.on is None else self._gate.table(statement.on, request.session).table_id
        tables = [each for each in self._catalogue.tables.values() if on in (None, each.table_id)]
        rows = [
            (
                *(policy.name, table.name.namespace, table.name.table, policy.command.value),
                *(", ".join(policy.grantees), policy.using, policy.check, table.row_security),
            )
            for table in sorted(tables, key=lambda table: table.name)
            if self._gate.owns(identity, table)
            for policy in sorted(self._book.policies.get(table.table_id, ()), key=lambda policy: policy.name)
        ]
        return list_result(FIELDS, rows)
