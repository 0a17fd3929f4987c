# SPDX-License-Identifier: Apache-2.0
"""Whom Knot, Knot Resolver, the PowerDNS recursor and dnsmasq answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from carom.protocols.dns.configuration import Finding, Tree

_KNOT = r"^[ \t]*mod-(?:queryacl|geoip):"
_KRESD = r"\bview:(?:addr|tsig)\s*\([^\n]*|\bkr_view_insert_action\s*\([^\n]*|^[ \t]*views:"
_FROM = re.compile(
    r"^[ \t]*(?:--)?(allow[-_]from(?:[-_]file)?)[ \t]*(?:\+?=[ \t]*([^\n]*)"
    r"|:[ \t]*(\s*\[[^\]]*(?:\]|\Z)|[^\s\[][^\n]*|(?:\s*\n[ \t]*-[^\n]*)*))",
    re.MULTILINE,
)
_SUBNETS = r"^[ \t]*(?:use[-_]incoming[-_]edns[-_]subnet|edns[-_]subnet[-_]allow[-_]list)\b[^\n]*"
_WHOLE = {"0.0.0.0/0", "::/0"}
_DNSMASQ = re.compile(r"(local-service|interface|except-interface|localise-queries)(?:=.*)?$")


def read_knot(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """Modules that tell clients apart; without them Knot answers everybody. None: no file."""
    del arguments
    return _found(tree, r'^[ \t]*include:[ \t]*"?([^"\s]+)"?', "#", _KNOT)


def read_kresd(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """Views; without them Knot Resolver answers everybody. None: no file."""
    del arguments
    return _found(tree, r"""\bdofile\s*\(\s*['"]([^'"]+)""", "#|--", _KRESD)


def read_recursor(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """The last allow-from, or its default, and the use of client subnets. None: no file."""
    texts = list(_texts(tree, r"^[ \t]*include[-_]dir[ \t]*[=:][ \t]*(\S+)", "#", suffix="/*"))
    if not texts:
        return None
    lists = {}
    for file, text in [*texts, ("its arguments", "\n".join(arguments))]:
        for match in _FROM.finditer(text):
            values = (match[2] if match[2] is not None else match[3] or "").strip()
            lists[match[1].replace("_", "-")] = (values, file)
    if not lists:
        findings = [Finding("without allow-from, clients of private networks alone", texts[0][0])]
    else:
        findings = [
            Finding(f"{name}: {values}", file)
            for name, (values, file) in lists.items()
            if values and not set(re.split(r"[\s,'\"\[\]]+", values)) >= _WHOLE
        ]
    return findings + list(_matches(texts, _SUBNETS))


def read_dnsmasq(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """Statements in files and arguments; without them dnsmasq answers everybody. None: no file."""
    given = [argument.removeprefix("--") for argument in arguments if argument.startswith("--")]
    texts = list(_texts(tree, r"^[ \t]*conf-file[ \t]*=[ \t]*(\S+)", "#"))
    folders = r"^[ \t]*conf-dir[ \t]*=[ \t]*([^\s,]+)"
    places = [*texts, ("its arguments", "\n".join(given))]
    for _, text in tuple(places):
        names = [f"{folder}/*" for folder in re.findall(folders, text, re.MULTILINE)]
        texts += [(file, _without(text, "#")) for file, text in tree.texts_of(names)]
    if not texts and not given:
        return None
    lines = [
        (file, "".join(line.split()))
        for file, text in [*texts, ("its arguments", "\n".join(given))]
        for line in text.splitlines()
    ]
    return list(_of_dnsmasq(lines))


def _of_dnsmasq(lines: list[tuple[str, str]]) -> Iterator[Finding]:
    keys = {line.partition("=")[0] for _, line in lines}
    bound = bool(keys & {"bind-interfaces", "bind-dynamic"})
    chosen = bool(keys & {"interface", "except-interface", "listen-address", "auth-server"})
    for file, line in lines:
        match = _DNSMASQ.match(line)
        if not match or (match[1] == "local-service" and chosen):
            continue
        if match[1].endswith("interface") and bound:  # its sockets get nothing else
            continue
        yield Finding(line, file)


def _found(tree: Tree, include: str, comment: str, lists: str) -> list[Finding] | None:
    texts = list(_texts(tree, include, comment))
    return list(_matches(texts, lists)) if texts else None


def _matches(texts: list[tuple[str, str]], lists: str) -> Iterator[Finding]:
    for file, text in texts:
        for match in re.finditer(lists, text, re.MULTILINE):
            yield Finding(match[0].strip(), file)


def _texts(
    tree: Tree, include: str, comment: str, *, suffix: str = ""
) -> Iterator[tuple[str, str]]:
    """Name and text, without comments, of all files; each comes before those that it includes."""
    waiting = [(file, text, 0) for file, text in tree.texts()]
    while waiting:
        file, text, depth = waiting.pop(0)
        text = _without(text, comment)
        yield file, text
        names = [name + suffix for name in re.findall(include, text, re.MULTILINE)]
        waiting += [
            (*file_and_text, depth + 1) for file_and_text in tree.included(file, names, depth)
        ]


def _without(text: str, comment: str) -> str:
    return re.sub(rf"(?:^|(?<=\s))(?:{comment})[^\n]*", "", text, flags=re.MULTILINE)
