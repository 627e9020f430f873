"""What a shell carries out, one statement or meta command after another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from kalam.cli.failure import CommandFailed
from kalam.cli.http import Refusal
from kalam.cli.problem_text import problem_text
from kalam.cli.shell.screen import Screen
from kalam.cli.shell.server import Server
from kalam.cli.shell.statements import in_namespace, script, used_namespace
from kalam.credentials import Credentials

MARKS: Final = {"snapshot": " ", "insert": "+", "update": "~", "delete": "-"}


class Session:
    """A server, a screen, the namespace in use and the last statement. ``meta`` carries out meta commands."""

    def __init__(
        self,
        server: Server,
        screen: Screen,
        login: Credentials,
        meta: Callable[[Session, str], None],
        namespace: str | None = None,
    ) -> None:
        self.server, self.screen, self.login, self.namespace = server, screen, login, namespace
        self._meta = meta
        self.last: str | None = None

    def run(self, part: str) -> None:
        """Carry out a statement or a meta command; raises CommandFailed, KeyboardInterrupt and meta.Quit."""
        if part.startswith("\\"):
            try:
                self._meta(self, part)
            except Refusal as exc:
                raise CommandFailed(problem_text(exc.problem)) from exc
            return
        self.last = part
        self.execute(part)

    def run_script(self, text: str) -> None:
        """Carry out a text, and stop at its first failure."""
        for part in script(text):
            self.run(part)

    def execute(self, statement: str) -> None:
        """Run one statement and show what it answers; raises CommandFailed with the place of an error."""
        started = time.perf_counter()
        try:
            results = self.server.run(statement, self.namespace)
        except Refusal as exc:
            problem = {name: value for name, value in exc.problem.items() if name != "statement"}
            raise CommandFailed(problem_text(problem, statement)) from exc
        took_s = time.perf_counter() - started
        self.namespace = used_namespace(statement) or self.namespace
        self.screen.results(results)
        if self.screen.timing:
            self.screen.say(f"Time: {took_s * 1000:.1f} ms")

    def follow(self, text: str) -> None:
        """Print a live query's rows and changes until ^C."""
        try:
            with self.server.live(in_namespace(text, self.namespace)) as messages:
                self.screen.say("Listening; ^C ends it.")
                for message in messages:
                    self._show(message)
        except KeyboardInterrupt:
            self.screen.say("")

    def _show(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "snapshot":
                for row in message["rows"]:
                    self._change("snapshot", row, None)
            case "changes":
                for change in message["changes"]:
                    self._change(change["op"], change.get("row"), change.get("old"))
            case "resync":
                self.screen.say(f"! changes up to seq {message['seq']} were not told: this client fell behind")
            case "closed":
                self.screen.say(f"closed: {message['reason']}")

    def _change(self, op: str, row: Any, old: Any) -> None:
        if op == "reset":
            self.screen.say("! the changes in between are not kept any more; the rows as they are now:")
            return
        former = f"  was {json.dumps(old, ensure_ascii=False)}" if old else ""
        self.screen.text(f"{MARKS[op]} {json.dumps(row, ensure_ascii=False)}{former}\n")

    def http_url(self) -> str:
        """Where the server answers HTTP; raises CommandFailed where only NATS reaches it."""
        return self.server.http_url()
