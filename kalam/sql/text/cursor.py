"""A place in a statement that moves forward token by token, and the errors that are told from there.

The grammar's functions take a cursor, consume what they understand and leave it behind that. ``take`` consumes if it
can and says whether it did, ``expect`` consumes or raises; keywords are given in capitals.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from kalam.errors import InvalidName, KalamError, RequestError, SyntaxFault, Unsupported
from kalam.names import RESERVED_NAMESPACES, check_name
from kalam.sql.text.lexer import Kind, StatementText, Token, read_token
from kalam.sql.text.statements import TableRef

Fault = TypeVar("Fault", bound=RequestError)

_SHOWN_MAX = 40
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


class Cursor:
    """The next token of a statement, ``token``, and what can be done from there."""

    __slots__ = ("previous", "statement", "token")

    def __init__(self, statement: StatementText) -> None:
        self.statement = statement
        self.previous = Token(Kind.END, "", 0, 0)
        self.token = read_token(statement, 0)

    def advance(self) -> Token:
        """Consume the next token, and return it."""
        self.previous = self.token
        self.token = read_token(self.statement, self.token.end)
        return self.previous

    def seek(self, position: int) -> None:
        """Go on at that character of the statement."""
        self.token = read_token(self.statement, position)

    def at(self, *words: str) -> bool:
        """Whether these keywords (a symbol counts as one) are next."""
        token = self.token
        for place, word in enumerate(words):
            if place:
                token = read_token(self.statement, token.end)
            if token.word != word and not (token.kind is Kind.SYMBOL and token.text == word):
                return False
        return True

    def take(self, *words: str) -> bool:
        """Consume these keywords if all of them are next."""
        if not self.at(*words):
            return False
        for _ in words:
            self.advance()
        return True

    def take_one(self, words: Iterable[str]) -> str | None:
        """Consume the next token if it is one of these keywords, and return which."""
        word = self.token.word
        if not word or word not in words:
            return None
        self.advance()
        return word

    def expect(self, *words: str) -> None:
        """Consume these keywords, or raise SyntaxFault."""
        for word in words:
            if not self.take(word):
                raise self.unexpected(word, choices=[word])

    def at_symbol(self, symbol: str) -> bool:
        """Whether this one-character symbol is next."""
        return self.token.kind is Kind.SYMBOL and self.token.text == symbol

    def take_symbol(self, symbol: str) -> bool:
        """Consume this symbol if it is next."""
        if not self.at_symbol(symbol):
            return False
        self.advance()
        return True

    def expect_symbol(self, symbol: str) -> None:
        """Consume this symbol, or raise SyntaxFault."""
        if not self.take_symbol(symbol):
            raise self.unexpected(f"'{symbol}'")

    def at_end(self) -> bool:
        """Whether the statement is used up."""
        return self.token.kind is Kind.END

    def expect_end(self) -> None:
        """Raise SyntaxFault unless the statement is used up."""
        if not self.at_end():
            raise self.unexpected("the end of the statement")

    def name(self, what: str) -> str:
        """Consume the name of a ``what``; unquoted, it is folded to lower case."""
        token = self.token
        match token.kind:
            case Kind.WORD | Kind.QUOTED:
                self.advance()
                return token.name
            case Kind.STRING:
                files = "; files cannot be read or written here" if what == "table" else ""
                raise self.refusal(
                    f"a {what} is a name and not a string{files}",
                    hint=f'write {what}s without quotes, or in double quotes: "name"',
                )
            case _:
                raise self.unexpected(f"the name of a {what}")

    def new_name(self, what: str) -> str:
        """Consume the name of a ``what`` that is to be created; InvalidName where it may not be called so."""
        token = self.token
        return self.check_new(self.name(what), what, token)

    def check_new(self, name: str, what: str, at: Token) -> str:
        """Return ``name`` if a ``what`` may be called so; InvalidName at that token otherwise."""
        with self.located(at):
            if what == "column" and name.startswith("_"):
                raise InvalidName(f"column name {name[:80]!r} is reserved: names that begin with '_' are Kalam's own")
            return check_name(name, what)

    def table(self) -> TableRef:
        """Consume ``table`` or ``namespace.table``."""
        name = self.name("table")
        if not self.take_symbol("."):
            return TableRef(None, name)
        table = TableRef(name, self.name("table"))
        if self.at_symbol("."):
            raise self.fault("a table is named 'table' or 'namespace.table'")
        return table

    def new_table(self) -> TableRef:
        """Consume the name of a table that is to be created."""
        first = self.token
        ref = self.table()
        last = self.previous
        if ref.namespace is not None:
            if ref.namespace in RESERVED_NAMESPACES:
                raise self.error(InvalidName, f"nothing can be created in the namespace {ref.namespace!r}", at=first)
            self.check_new(ref.namespace, "namespace", first)
        self.check_new(ref.table, "table", last)
        return ref

    def string(self, what: str) -> str:
        """Consume a string in single quotes."""
        if self.token.kind is not Kind.STRING:
            raise self.unexpected(f"{what} as a text in single quotes")
        return self.advance().text[1:-1].replace("''", "'")

    def names(self, what: str, read: Callable[[], str] | None = None) -> tuple[str, ...]:
        """Consume ``(name, name, …)``."""
        self.expect_symbol("(")
        names = [read() if read else self.name(what)]
        while self.take_symbol(","):
            names.append(read() if read else self.name(what))
        self.expect_symbol(")")
        return tuple(names)

    def skip(self, stop: Callable[[Cursor], bool]) -> tuple[int, int]:
        """Pass over tokens until ``stop`` says so outside all brackets, or a bracket or the statement closes.

        Returns the first and the last character passed (start, end), comments behind them not counted.
        """
        start = end = self.token.start
        depth = 0
        while not self.at_end():
            text = self.token.text if self.token.kind is Kind.SYMBOL else ""
            if depth == 0 and (text in _CLOSING or stop(self)):
                break
            depth += (text in _OPENING) - (text in _CLOSING)
            end = self.advance().end
        return start, end

    def fault(self, message: str, *, at: Token | None = None, hint: str | None = None) -> SyntaxFault:
        """The syntax error at the next token, or at another."""
        return self.error(SyntaxFault, message, at=at, hint=hint)

    def refusal(self, message: str, *, at: Token | None = None, hint: str | None = None) -> Unsupported:
        """The refusal of something that is understood."""
        return self.error(Unsupported, message, at=at, hint=hint)

    def error(self, kind: type[Fault], message: str, *, at: Token | None = None, hint: str | None = None) -> Fault:
        """An error of that class with line and column."""
        line, column = self.statement.place((at or self.token).start)
        return kind(message, line=line, column=column, hint=hint)

    def unexpected(self, expected: str, *, choices: Iterable[str] = ()) -> SyntaxFault:
        """The syntax error that something else was expected; ``choices`` are keywords it may have meant."""
        return self.fault(f"expected {expected}, found {self.found()}", hint=did_you_mean(self.token.word, choices))

    def found(self) -> str:
        """The next token, as messages show it."""
        text = self.token.text
        if self.at_end():
            return "the end of the statement"
        return repr(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…")

    @contextmanager
    def located(self, token: Token) -> Iterator[None]:
        """Give errors that are raised inside, and do not know where they are, the place of ``token``."""
        try:
            yield
        except KalamError as exc:
            line, column = self.statement.place(token.start)
            exc.fields.setdefault("line", line)
            exc.fields.setdefault("column", column)
            raise


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """The hint that names the choice most like ``word``, or None."""
    close = difflib.get_close_matches(word, list(choices), n=1) if word else []
    return f"did you mean {close[0]}?" if close and close[0] != word else None
