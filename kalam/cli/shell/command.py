"""``kalam shell``: the flags, the prompt at a terminal, and what is piped in."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Final

import typer

from kalam.cli.address import Context, DataDir, PasswordFile, Url, User, find_server
from kalam.cli.failure import CommandFailed
from kalam.errors import KalamError

CATALOGUE_S: Final = 2.0
"""How long names that completion offers are believed."""
NOTHING: Final[dict[str, Any]] = {"namespaces": [], "functions": [], "keywords": []}


def shell(
    url: Url = None,
    context: Context = None,
    data_dir: DataDir = None,
    user: User = None,
    password_file: PasswordFile = None,
    namespace: Annotated[str | None, typer.Option(help="Where tables without a namespace are looked up.")] = None,
    subject_prefix: Annotated[
        str, typer.Option(envvar="KALAM_SUBJECT_PREFIX", help="First token of the server's subjects.")
    ] = "kalam",
) -> None:
    r"""SQL at a prompt: completion, history, and psql's backslash commands (\? lists them).

    Statements end with a semicolon. What is piped in is run to its first error.
    """
    from kalam.cli.shell import meta
    from kalam.cli.shell.screen import Screen
    from kalam.cli.shell.server import HttpServer, NatsServer, Server
    from kalam.cli.shell.session import Session

    where = find_server(url, context, data_dir, user=user, password_file=password_file)
    server: Server
    server = NatsServer(where, subject_prefix) if where.http is None else HttpServer(where.http, where.login)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    session = Session(server, Screen(interactive), where.login, meta.run, namespace)
    if interactive:
        _converse(session, str(data_dir.resolve()) if data_dir else server.name)
    else:
        _run_piped(session)


def _run_piped(session: Any) -> None:
    from kalam.cli.shell.meta import Quit

    try:
        session.run_script(sys.stdin.read())
    except Quit:
        return
    except KeyboardInterrupt:
        raise CommandFailed("cancelled", status=130) from None
    finally:
        session.screen.open_file(None)


def _converse(session: Any, history_name: str) -> None:
    from kalam import __version__
    from kalam.cli.shell.meta import Quit
    from kalam.cli.shell.prompt import make_prompt
    from kalam.cli.shell.statements import script

    session.server.run("SELECT 1", None)  # a server that is not there is told before the first statement
    prompt = make_prompt(history_name, RecentCatalogue(session.server).newest)
    session.screen.say(f"kalam {__version__} at {session.server.name}. \\? for help, \\q to leave.")
    while True:
        try:
            text = prompt.prompt(f"{session.namespace or 'kalam'}=> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            break
        try:
            for part in script(text):
                session.run(part)
        except Quit:
            break
        except KeyboardInterrupt:
            typer.echo("\ncancelled", err=True)
        except CommandFailed as exc:
            typer.echo(exc.text, err=True)
    session.screen.open_file(None)


class RecentCatalogue:
    """The catalogue for completion: asked for anew when it is a while old, and the last one while nobody answers."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._known: dict[str, Any] = NOTHING
        self._asked = float("-inf")

    def newest(self) -> dict[str, Any]:
        """The names as they are now, or were just now."""
        from kalam.cli.http import Refusal

        if time.monotonic() - self._asked > CATALOGUE_S:
            self._asked = time.monotonic()
            try:
                self._known = self._server.catalogue()
            except (CommandFailed, Refusal, KalamError):
                return self._known
        return self._known
