# SPDX-License-Identifier: Apache-2.0
"""Whom BIND answers: the statements in effect in each view, and their defaults."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from carom.protocols.dns.configuration import DEEPEST, Finding, Tree, Unreadable

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|/\*.*?(?:\*/|\Z)|(?:#|//)[^\n]*|[{};]'
    r'|(?:[^\s{};"/]|/(?![/*]))+',
    re.DOTALL,
)
_WHOLE = {"0.0.0.0/0": 4, "0/0": 4, "::/0": 6, "::0/0": 6}
_EVERY = frozenset({4, 6})
_NO = {"no", "false", "0"}
_UNSERVED = {"hint", "forward", "delegation-only"}
_BY_CLIENT = ("match-clients", "match-destinations")
_RECURSION = ("recursion", "recursion-on", "query-cache", "query-cache-on")
_DIFFER = ("response-policy", "sortlist", "filter-aaaa", "filter-aaaa-on-v4", "filter-aaaa-on-v6")


class Statement(NamedTuple):
    """A statement, with what is in its braces; `block` is None without braces."""

    file: str
    words: tuple[str, ...]
    block: tuple[Statement, ...] | None

    def __str__(self) -> str:
        inner = "" if self.block is None else f" {{ {''.join(f'{part}; ' for part in self.block)}}}"
        return " ".join(self.words) + inner


class _Lists(NamedTuple):
    """How to judge lists of addresses: the named lists, and the IP versions that are served."""

    named: Mapping[str, Sequence[Statement]]
    families: frozenset[int] = _EVERY

    def alike(self, statement: Statement | None) -> bool:
        """Whether a list, if there is one, matches everybody or nobody."""
        return statement is None or self.whom(statement.block or ()) is not None

    def whom(self, elements: Iterable[Statement], depth: int = 0) -> bool | None:
        """Whom a list lets in: True: everybody; False: nobody; None: some. First match decides."""
        lets_in, but = False, False
        whole: set[int] = set()
        for element in elements:
            everybody, negated = self._element(element, depth)
            if everybody is False:
                continue
            family = _WHOLE.get(element.words[-1].lstrip("!")) if element.words else None
            if family and not negated and not but:
                whole.add(family)
                everybody = True if whole >= self.families else None
            if everybody:
                return None if (lets_in if negated else but) else not negated
            lets_in, but = lets_in or not negated, but or negated
        return None if lets_in else False

    def _element(self, element: Statement, depth: int) -> tuple[bool | None, bool]:
        """Whether an element matches everybody, nobody (False) or some (None); if it is negated."""
        text = "".join(element.words)
        negated, name = text.startswith("!"), text.lstrip("!")
        if element.block is not None or name in self.named:
            inner = element.block if element.block is not None else self.named[name]
            return (self.whom(inner, depth + 1) if depth < DEEPEST else None), negated
        if name == "none":
            return True, not negated
        return (True if name == "any" else None), negated


class _View(NamedTuple):
    """A view, or the whole configuration if it has none; `options` hold where it says nothing."""

    name: str
    own: Sequence[Statement]
    options: Sequence[Statement]
    file: str

    def of(self, *names: str) -> Statement | None:
        """The statement in effect: that of the first of these names that has one."""
        for name in names:
            statement = _last(self.own, name) or _last(self.options, name)
            if statement:
                return statement
        return None

    @property
    def recursive(self) -> bool:
        return not _says_no(self.of("recursion"))

    def in_effect(self) -> Iterator[Statement | None]:
        """The lists of addresses in effect, without those that matter only for recursion."""
        yield from (_last(self.own, name) for name in _BY_CLIENT)
        if self.recursive:  # otherwise nobody is answered from its cache
            yield from (self.of(f"allow-{name}") for name in _RECURSION)
        for name in ("allow-query", "allow-query-on"):
            if self._inherited(name):
                yield self.of(name)
            yield from (_last(zone.block or (), name) for zone in self._zones())
        for statement in self._all("dns64"):
            yield _last(statement.block or (), "clients")

    def differing(self) -> Iterator[Statement]:
        """Statements that may give different clients different answers."""
        statements = (self.of(name) for name in _DIFFER)
        yield from (statement for statement in statements if statement and _acts(statement))
        yield from (plugin for plugin in self._all("plugin") if "filter-a" in "".join(plugin.words))

    def by_default(self) -> Iterator[Finding]:
        """What holds because the configuration says nothing else."""
        if self.recursive and not self.of("allow-recursion", "allow-query-cache", "allow-query"):
            where = f" of view {self.name}" if self.name else ""
            yield Finding(
                f"without allow-recursion, allow-query-cache and allow-query, the recursion{where} "
                "is for localnets and localhost alone",
                self.file,
            )

    def _all(self, name: str) -> list[Statement]:
        return [
            statement for statement in (*self.own, *self.options) if statement.words[:1] == (name,)
        ]

    def _zones(self) -> list[Statement]:
        zones = [zone for zone in self.own if zone.words[:1] == ("zone",)]
        return [zone for zone in zones if _kind(zone) not in _UNSERVED]

    def _inherited(self, name: str) -> bool:
        """Whether some zone has no such statement of its own, as zones that BIND makes itself."""
        return (
            self.recursive
            or bool(self.of("catalog-zones") or self.of("allow-new-zones"))
            or any(not _last(zone.block or (), name) for zone in self._zones())
        )


def read(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """The statements by which BIND refuses clients or answers them differently; None: no file.

    Raises Unreadable.
    """
    texts = list(tree.texts())
    if not texts:
        return None
    # The first of the default places that exists is the configuration.
    top = list(_statements(tree, *texts[0]))
    options = [statement for block in _blocks(top, "options") for statement in block.block or ()]
    lists = _Lists({acl.words[1]: acl.block or () for acl in _blocks(top, "acl")})
    silent = _last(options, "listen-on-v6")
    if "-4" in arguments or (silent and lists.whom(silent.block or ()) is False):
        lists = lists._replace(families=frozenset({4}))
    blackhole = _last(options, "blackhole")
    findings = [] if lists.alike(blackhole) else [_finding(blackhole)]
    for view in _views(top, options, texts[0][0]):
        findings += view.by_default()
        findings += [
            _finding(statement) for statement in view.in_effect() if not lists.alike(statement)
        ]
        findings += [_finding(statement) for statement in view.differing()]
    return findings


def _views(top: list[Statement], options: list[Statement], file: str) -> list[_View]:
    views = [view for view in _blocks(top, "view") if view.words[2:] in ((), ("IN",), ("in",))]
    if not views:
        return [_View("", top, options, file)]
    return [_View(view.words[1], view.block or (), options, view.file) for view in views]


def _finding(statement: Statement | None) -> Finding:
    return Finding(str(statement), statement.file if statement else "")


def _blocks(statements: Iterable[Statement], name: str) -> list[Statement]:
    least = 1 if name == "options" else 2
    return [
        statement
        for statement in statements
        if statement.words[:1] == (name,)
        and statement.block is not None
        and len(statement.words) >= least
    ]


def _last(statements: Sequence[Statement], name: str) -> Statement | None:
    return next(
        (statement for statement in reversed(statements) if statement.words[:1] == (name,)), None
    )


def _kind(zone: Statement) -> str:
    kind = _last(zone.block or (), "type")
    return kind.words[-1] if kind else ""


def _says_no(statement: Statement | None) -> bool:
    return statement is not None and statement.words[-1].lower() in _NO


def _acts(statement: Statement) -> bool:
    return not _says_no(statement) and statement.block != ()


def _statements(tree: Tree, file: str, text: str, depth: int = 0) -> Iterator[Statement]:
    tokens = (
        token for token in _TOKEN.findall(text) if token[0] != "#" and token[:2] not in ("//", "/*")
    )
    return _block(tree, file, itertools.chain(tokens, [""]), depth, "")


def _block(
    tree: Tree, file: str, tokens: Iterator[str], depth: int, end: str
) -> Iterator[Statement]:
    """The statements up to `end`: a closing brace, or "" for the end of the file.

    Raises Unreadable at the other of the two.
    """
    words: list[str] = []
    block: tuple[Statement, ...] | None = None
    for token in tokens:
        if token in ("}", ""):
            if token != end:
                raise Unreadable(f"{file}: its braces do not match")
            break
        if token == "{":
            block = tuple(_block(tree, file, tokens, depth, "}"))
        elif token != ";":
            words.append(token.strip('"'))
        elif words[:1] == ["include"] and len(words) > 1:
            for name, text in tree.included(file, words[1:], depth):
                yield from _statements(tree, name, text, depth + 1)
            words = []
        elif words or block is not None:
            yield Statement(file, tuple(words), block)
            words, block = [], None
