"""The one place that asks whether somebody may do something: every statement and every batch of rows passes here.

Law: what one may not see does not exist. A table on which somebody has no privilege is answered as one that is not
there, and no hint names it; what they see and may not do is ``permission_denied``. A statement of a new kind does not
pass before it is said here what it needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, assert_never, cast

import msgspec
from msgspec.structs import replace

from kalam.access.identity import Identity
from kalam.access.model import Ends, Narrowed, Privilege
from kalam.access.rights import Rights
from kalam.engine.session import Session, reads_rows
from kalam.errors import NamespaceNotFound, NotFound, PermissionDenied, TableNotFound, Unsupported
from kalam.names import SYSTEM_NAMESPACE, TableName, listed, numbered
from kalam.query.queries import resolve
from kalam.query.running import RunningQuery, note_use
from kalam.query.selects import read_through, views_through
from kalam.rows.taking import Conflict
from kalam.schema import Table
from kalam.sql.text import statements as sql
from kalam.sql.text import view_statements as views
from kalam.sql.text.alterations import RenameTable
from kalam.sql.text.cursor import Cursor
from kalam.sql.text.lexer import StatementText
from kalam.storage.log.catalogue import Catalogue

LOCATION = "LOCATION"
ONESELF: Final = "for another user statements on rows and tables are run, not those on users and rights"


class Gate:
    """Asks the rights of who asks."""

    def __init__(self, rights: Rights, catalogue: Catalogue) -> None:
        self.rights, self._catalogue = rights, catalogue

    def check(self, statement: sql.Statement, session: Session) -> None:  # noqa: C901 - one case a statement
        """Raise what keeps somebody from a statement: TableNotFound, NamespaceNotFound or PermissionDenied."""
        if not self.rights.on:
            return
        identity = session.identity
        for ref in sorted(set(_read_tables(statement)), key=str):
            if resolve(ref, session.namespace).namespace != SYSTEM_NAMESPACE:
                self._use(ref, session, Privilege.SELECT)
        match statement:
            case sql.Select(query):
                self._explaining(query, session)
            case sql.Subscribe() | sql.CreateTemporary():
                pass  # of what is made for a session alone there is nothing to ask
            case sql.Insert() | sql.Update() | sql.Delete() | sql.Merge():
                self._change(statement, session)
            case sql.CreateNamespace() | sql.DropNamespace():
                self.administrator(identity, "namespaces are made and dropped by administrators")
            case sql.CreateTable():
                self._create(statement, session)
            case sql.DropTable() | sql.TruncateTable() | sql.AlterTable() | sql.CommentOn():
                self._owned(statement, session)
            case sql.FlushTable() | sql.CompactTable() | sql.CheckTable():
                self._owned(statement, session)
            case sql.DescribeTable(ref) | sql.ShowStats(ref) | sql.ShowCreateTable(ref) | sql.ShowColumns(ref):
                self.table(ref, session)
            case sql.RefreshLake():
                if statement.ref is not None:
                    self.owned(statement.ref, session, "refresh its lake")
            case sql.Use(namespace) | sql.ShowTables(str(namespace)) | sql.FlushAllTables(str(namespace)):
                if namespace != SYSTEM_NAMESPACE:
                    self.namespace(namespace, identity)
            case sql.ShowStreams() | sql.DescribeStream():
                self.administrator(identity, "what lies in streams of others is shown to administrators")
            case sql.KillJob(job_id):
                self.administrator(identity, f"job {job_id} can be killed by administrators")
            case (
                sql.ShowTables()
                | sql.FlushAllTables()
                | sql.ShowNamespaces()
                | sql.ShowJobs()
                | sql.ShowQueries()
                | sql.ShowLiveQueries()
            ):
                pass  # they show and touch what one may
            case sql.CreateSelect():
                self._may_make(statement.ref, (), session)
                name = resolve(statement.ref, session.namespace)
                if statement.or_replace and self.sees(identity, self._catalogue.tables.get(name)):
                    self.owned(statement.ref, session, "replace it")
            case sql.DropSelect(ref):
                name = resolve(ref, session.namespace)
                if not statement.if_exists or self.sees(identity, self._catalogue.tables.get(name)):
                    self.owned(ref, session, "drop it")
            case sql.OnView():
                self._view(statement, session)
            case sql.KillQuery() | sql.KillLiveQuery() | sql.ShowLake() | sql.OnAccess() | sql.ExecuteAs():
                pass  # what belongs to others is not found; of the last two their own part asks
            case other:
                assert_never(other)

    def _use(self, ref: sql.TableRef, session: Session, *privileges: Privilege) -> None:
        """Raise what keeps somebody from doing this to a table; the request ends where the right is taken meanwhile."""
        table = self.table(ref, session, *privileges)
        for privilege in privileges:
            note_use(session.identity.rights_of, privilege, table.table_id)

    def _change(self, statement: sql.Insert | sql.Update | sql.Delete | sql.Merge, session: Session) -> None:
        reads = False
        match statement:
            case sql.Insert():
                self._use(statement.ref, session, Privilege.INSERT)
                reads = statement.returning is not None
                if statement.on_conflict is not None and statement.on_conflict.assignments:
                    self._use(statement.ref, session, Privilege.UPDATE)
                    reads = True
            case sql.Update():
                self._use(statement.ref, session, Privilege.UPDATE)
                reads = reads_rows(statement)
            case sql.Delete():
                self._use(statement.ref, session, Privilege.DELETE)
                reads = reads_rows(statement)
            case sql.Merge():
                done = {
                    Privilege.INSERT: statement.values is not None,
                    Privilege.UPDATE: bool(statement.assignments),
                    Privilege.DELETE: statement.deletes,
                }
                self._use(statement.ref, session, *(privilege for privilege, is_done in done.items() if is_done))
                reads = True
        if reads:
            self._use(statement.ref, session, Privilege.SELECT)

    def _explaining(self, query: sql.QueryText, session: Session) -> None:
        """Raise PermissionDenied where EXPLAIN tells what a view reads, or ANALYZE counts rows that policies hide."""
        if query.text[:1] not in "eE" or not Cursor(StatementText(query.text)).at("EXPLAIN"):
            return
        analyzes = Cursor(StatementText(query.text)).at("EXPLAIN", "ANALYZE")
        found = (self._catalogue.tables.get(resolve(use.ref, session.namespace)) for use in query.tables)
        for table in [each for each in found if each is not None]:
            if not all(self.owns(session.identity, view) for view in views_through(table, self._catalogue)):
                raise PermissionDenied(f"EXPLAIN is for those who may see what is read through the view {table.name}")
            for read in read_through(table, self._catalogue) if analyzes else ():
                if read.row_security:
                    raise PermissionDenied(f"EXPLAIN ANALYZE would count rows of {read.name} that its policies hide")

    def _view(self, asked: sql.OnView, session: Session) -> None:
        match statement := cast("views.ViewStatement", asked):
            case views.CreateView():
                self._may_make(statement.ref, statement.options, session)
            case views.DropView(ref):
                name = resolve(ref, session.namespace)
                if not statement.if_exists or self.sees(session.identity, self._catalogue.tables.get(name)):
                    self.owned(ref, session, "drop it")
            case views.AlterView(ref):
                self.owned(ref, session, "alter it")
            case views.RefreshView(ref):
                self.owned(ref, session, "refresh it")
            case views.ShowViews():
                pass  # those that one may see

    def _create(self, statement: sql.CreateTable, session: Session) -> None:
        self._may_make(statement.ref, statement.options, session)
        if statement.over is not None:
            self.administrator(session.identity, "a table OVER a stream of others is made by administrators")

    def _may_make(self, ref: sql.TableRef, options: Collection[str], session: Session) -> None:
        namespace = resolve(ref, session.namespace).namespace
        self.namespace(namespace, session.identity)
        self._may_create(namespace, session)
        if LOCATION in options:
            self.administrator(session.identity, "LOCATION is set by administrators")

    def _may_create(self, namespace: str, session: Session) -> None:
        if not self.rights.may_create(session.identity.rights_of, namespace):
            raise PermissionDenied(
                f"to make tables in {namespace} needs CREATE on it", hint=f"GRANT CREATE ON NAMESPACE {namespace} TO …"
            )

    def _owned(
        self,
        statement: sql.DropTable
        | sql.TruncateTable
        | sql.AlterTable
        | sql.FlushTable
        | sql.CompactTable
        | sql.CheckTable
        | sql.CommentOn,
        session: Session,
    ) -> None:
        match statement:
            case sql.DropTable(ref):
                name = resolve(ref, session.namespace)
                if statement.if_exists and not self.sees(session.identity, self._catalogue.find(name)):
                    return
                self.owned(ref, session, "drop it")
            case sql.AlterTable(ref, action):
                table = self.owned(ref, session, "alter it")
                if isinstance(action, RenameTable):
                    self._may_create(table.name.namespace, session)
            case sql.TruncateTable(ref):
                self.owned(ref, session, "truncate it")
            case sql.CommentOn(ref):
                self.owned(ref, session, "say what it is")
            case sql.FlushTable(ref):
                self.owned(ref, session, "flush it")
            case sql.CompactTable(ref):
                self.owned(ref, session, "compact it")
            case sql.CheckTable(ref):
                self.owned(ref, session, "check it")

    # What others ask.

    def newest(self, table: Table) -> Table:
        """A table as it is now; one that was dropped as it was."""
        return self._catalogue.by_id.get(table.table_id, table)

    def reader(self, identity: Identity) -> str | None:
        """Whose right to read a table is to be asked; None where everybody may."""
        return identity.rights_of if self.rights.on else None

    def sees(self, identity: Identity, table: Table | None) -> bool:
        """Whether a table exists for somebody."""
        return table is not None and (not self.rights.on or self.rights.sees(identity.rights_of, table))

    def known(self, name: TableName) -> Table | None:
        """The table of a name as it is now, whoever asks."""
        return self._catalogue.tables.get(name)

    def visible(self, identity: Identity, tables: Iterable[Table]) -> list[Table]:
        """Those of the tables that exist for somebody."""
        if not self.rights.on:
            return list(tables)
        return [table for table in tables if self.rights.sees(identity.rights_of, table)]

    def told(self, identity: Identity, noun: str, tables: Sequence[Table]) -> str:
        """Those of some tables that exist for somebody, by name, and how many others there are."""
        names = [str(table.name) for table in self.visible(identity, tables)]
        others = len(tables) - len(names)
        if not names:
            return numbered(others, noun)
        more = f" and {numbered(others, 'other')}" if others else ""
        return f"the {noun}{'s' if len(tables) > 1 else ''} {listed(names)}{more}"

    def namespaces(self, identity: Identity) -> list[str]:
        """The namespaces that exist for somebody."""
        tables = self._catalogue.tables.values()
        sees = self.rights.sees_namespace
        return [name for name in self._catalogue.namespaces if sees(identity.rights_of, name, tables)]

    def sees_namespace(self, name: str, identity: Identity) -> bool:
        """Whether a namespace exists for somebody."""
        tables = self._catalogue.tables.values()
        return name in self._catalogue.namespaces and self.rights.sees_namespace(identity.rights_of, name, tables)

    def namespace(self, name: str, identity: Identity) -> None:
        """Raise NamespaceNotFound unless a namespace exists for somebody."""
        if not self.sees_namespace(name, identity):
            raise NamespaceNotFound(f"there is no namespace {name!r}", hint=_near(name, self.namespaces(identity)))

    def named(self, name: TableName, identity: Identity) -> Table:
        """The table of a name, if it exists for somebody; raises NamespaceNotFound and TableNotFound."""
        if not self.rights.on:
            return self._catalogue.named(name)
        table = self._catalogue.find(name)
        if table is not None and self.rights.sees(identity.rights_of, table):
            return table
        self.namespace(name.namespace, identity)
        names = [str(other.name) for other in self.visible(identity, self._catalogue.tables_in(name.namespace))]
        raise TableNotFound(f"there is no table {name}", hint=_near(str(name), names))

    def table(self, ref: sql.TableRef, session: Session, *privileges: Privilege) -> Table:
        """The table that a statement names; raises what keeps somebody from seeing it or doing this to it."""
        return self.may(self.named(resolve(ref, session.namespace), session.identity), session.identity, *privileges)

    def may(self, table: Table, identity: Identity, *privileges: Privilege) -> Table:
        """The table; raises PermissionDenied without all of these privileges."""
        missing = [each.value for each in privileges if not self.rights.may(identity.rights_of, each, table)]
        if missing:
            raise PermissionDenied(
                f"{identity.rights_of} may not {' and '.join(missing)} on {table.name}",
                hint=f"its owner or an administrator can GRANT {', '.join(missing)} ON TABLE {table.name}",
            )
        return table

    def may_insert(self, name: TableName, identity: Identity, conflict: Conflict | None = None) -> None:
        """Raise what keeps somebody from sending rows into a table: TableNotFound or PermissionDenied."""
        table = self._catalogue.tables.get(name)
        if conflict != "update" and table is not None and self.has(table, identity, Privilege.INSERT):
            return  # as nearly always
        merging = (Privilege.UPDATE, Privilege.SELECT) if conflict == "update" else ()
        self.may(self.named(name, identity), identity, Privilege.INSERT, *merging)

    def has(self, table: Table, identity: Identity, privilege: Privilege) -> bool:
        """Whether somebody has a privilege on a table."""
        return self.rights.may(identity.rights_of, privilege, table)

    def owned(self, ref: sql.TableRef, session: Session, what: str) -> Table:
        """The table that a statement names; raises PermissionDenied unless it is somebody's own."""
        table = self.table(ref, session)
        if not self.rights.owns(session.identity.rights_of, table):
            raise PermissionDenied(f"only the owner of {table.name} and administrators may {what}")
        return table

    def owns(self, identity: Identity, table: Table) -> bool:
        """Whether a table is somebody's own, or somebody is an administrator."""
        return self.rights.owns(identity.rights_of, table)

    def acting(self, statement: sql.ExecuteAs, identity: Identity) -> Identity:
        """An administrator on the rows of another user; raises what keeps somebody from it."""
        self.administrator(identity, "only administrators act for others: EXECUTE AS USER")
        if isinstance(statement.statement, sql.OnAccess):
            raise Unsupported(ONESELF)
        if self.rights.on and statement.user not in self.rights.book.users:
            raise NotFound(f"there is no user {statement.user[:64]!r}", hint="SHOW USERS lists them")
        return replace(identity, user=statement.user, actor=identity.rights_of)

    def administers(self, identity: Identity) -> bool:
        """Whether somebody is an administrator."""
        return self.rights.administers(identity.rights_of)

    def administrator(self, identity: Identity, rule: str) -> None:
        """Raise PermissionDenied, with the rule, unless somebody is an administrator."""
        if not self.administers(identity):
            raise PermissionDenied(rule)

    def ends(self, running: RunningQuery, narrowed: Narrowed) -> bool:
        """Whether a running request ends with what was taken: its user is out, or may not do what it does."""
        users = narrowed.users
        own = users is None or running.user in users
        if own and (narrowed.logins == Ends.ALL or (running.tells and narrowed.logins == Ends.NONE)):
            return True
        uses = [use for use in running.uses if users is None or use[0] in users]
        lent = (use for use in running.lent if users is None or use[0] in users)
        return (
            any(not self.may_act(user, running.user) for user, _, _ in uses)
            or any(map(self._taken, (*uses, *lent)))
            or (narrowed.policies and own and self._restricted(running, narrowed))
        )

    def _taken(self, use: tuple[str, Privilege, int]) -> bool:
        """Whether a user may not do any more to a table what was noted."""
        user, privilege, table_id = use
        table = self._catalogue.by_id.get(table_id)
        return table is not None and not self.rights.may(user, privilege, table)

    def _restricted(self, running: RunningQuery, narrowed: Narrowed) -> bool:
        """Whether policies decide over what a request does, of the tables that are named or of any."""
        found = (self._catalogue.by_id.get(table_id) for _, _, table_id in running.uses | running.lent)
        return any(
            table is not None and table.row_security and (narrowed.tables is None or table.table_id in narrowed.tables)
            for table in found
        )

    def may_act(self, user: str, other: str) -> bool:
        """Whether a user may work on the rows of another, or they are the same."""
        return user == other or self.rights.administers(user)

    def may_end(self, identity: Identity, owner: str, table: Table | None = None) -> bool:
        """Whether somebody may end what a user has started, on a table where it is on one."""
        if not self.rights.on or identity.user == owner or self.administers(identity):
            return True
        return table is not None and self.owns(identity, table)


def _read_tables(part: object) -> Iterator[sql.TableRef]:
    """The tables that the queries in a statement read, wherever in it they stand."""
    if isinstance(part, sql.QueryText):
        for use in part.tables:
            yield use.ref
    elif isinstance(part, sql.Subscribe):
        yield part.ref
        yield from _read_tables(part.query)
    elif isinstance(part, sql.CreateTable | sql.CreateTemporary):
        yield from _read_tables(part.query)
    elif isinstance(part, tuple):
        for member in part:
            yield from _read_tables(member)
    elif isinstance(part, msgspec.Struct) and not isinstance(part, (sql.ExecuteAs, sql.OnAccess)):
        for name in part.__struct_fields__:
            yield from _read_tables(getattr(part, name))


def _near(name: str, names: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else None
