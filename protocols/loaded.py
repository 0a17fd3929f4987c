# SPDX-License-Identifier: Apache-2.0
"""loaded.h, which protocols.h includes: the protocols that are loaded, from their SPECs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from carom.protocols.spec import Spec, Stream

CONTRACT = frozenset(re.findall(r"\bnone_(\w+)\(", Path(__file__).with_name("none.h").read_text()))
"""The functions of the contract: none.h has one for each."""

_STREAM = frozenset(function for function in CONTRACT if function.startswith("stream_"))
_COOKIE = frozenset(function for function in CONTRACT if "cookie" in function)
_JOINED = frozenset({"next_key"})


def _check(spec: Spec) -> None:
    """A SPEC names only functions of the contract, and of those that belong together, all."""
    functions = set(spec.functions)
    assert functions <= CONTRACT, f"{spec.name}: {functions - CONTRACT} is not in the contract"
    for has, belong in (
        (spec.stream is Stream.COMMANDS, _STREAM),
        (spec.cookies, _COOKIE),
        (spec.joined, _JOINED),
    ):
        assert functions & belong == (belong if has else set()), f"{spec.name}: {belong}"


def _numbers(spec: Spec) -> dict[str, int]:
    return {
        "REQUEST_MAX": spec.request_max,
        "SLOT_FROM": spec.slot_from,
        "ID_AT": spec.id.at,
        "ID_SIZE": spec.id.size,
        "ID_SIZE_VARIES": int(spec.id.varies),
        "REPEAT_AT": spec.repeat_at,
        "JOINED_TAIL": spec.joined.tail if spec.joined else 0,
        "JOINED_MAX": spec.joined.longest if spec.joined else 0,
    }


def _of(spec: Spec) -> Iterator[str]:
    """The lines of loaded.h with one protocol's numbers and files."""
    for name, number in _numbers(spec).items():
        yield f"#define {spec.name.upper()}_{name} {number}"
    for header in spec.headers:
        yield f'#include "{header}"'


def _list(name: str, specs: Iterable[Spec]) -> str:
    """A macro `name(CASE, ...)` that has a CASE for each of the protocols."""
    cases = (f"CASE({spec.name.upper()}, {spec.name}, __VA_ARGS__)" for spec in specs)
    return f"#define {name}(CASE, ...) {' '.join(cases)}"


def _cases(name: str, specs: Iterable[Spec]) -> str:
    return f"#define {name} {' '.join(f'case {spec.name.upper()}:' for spec in specs)}"


def _last(name: str, specs: Sequence[Spec]) -> str:
    return f"#define {name}(function) {specs[-1].name if specs else 'none'}_##function"


def loaded(specs: Iterable[Spec], whole: Sequence[Spec]) -> str:
    """The text of loaded.h for these protocols, and those whose key is the `whole` payload."""
    listed = sorted({spec for spec in specs if not spec.whole_key}, key=lambda spec: spec.number)
    for spec in listed:
        _check(spec)
    learned = [spec for spec in listed if spec.learned]
    streams = [spec for spec in listed if spec.stream is Stream.COMMANDS]
    messages = [spec for spec in listed if spec.stream is Stream.MESSAGES]
    cookies = [spec for spec in listed if spec.cookies]
    numbers = ", ".join(f"{spec.name.upper()} = {spec.number}" for spec in (*whole, *listed))
    of_last = f"{learned[-1].name.upper()}_##NUMBER" if learned else "0"
    lines = [
        f"enum {{ {numbers} }};",
        *(line for spec in listed for line in _of(spec)),
        *(
            _list(f"HAVE_{function}", [spec for spec in listed if function in spec.functions])
            for function in sorted(CONTRACT)
        ),
        *(
            _list(f"HAVE_{name}", [spec for spec in listed if _numbers(spec)[name]])
            for name in ("REQUEST_MAX", "SLOT_FROM", "JOINED_TAIL", "JOINED_MAX")
        ),
        _list("LEARNED_BUT_LAST", learned[:-1]),
        f"#define LAST_LEARNED(NUMBER) {of_last}",
        _list("STREAMS_BUT_LAST", streams[:-1]),
        _last("LAST_STREAM", streams),
        _list("COOKIES_BUT_LAST", cookies[:-1]),
        _last("LAST_COOKIE", cookies),
        _cases("WHOLE_KEYS", whole),
        _cases("GIVE_COOKIES", cookies),
        _cases("REPLIES_TELL", messages),
        _cases("WITH_STREAM", streams),
        _cases("NAMELESS", [spec for spec in learned if spec.nameless]),
        _cases("WITHOUT_STREAM", [spec for spec in learned if spec.stream is Stream.NONE]),
        f"#define ANY_COOKIES {int(bool(cookies))}",
        f"#define ANY_STREAMS {int(bool(streams))}",
        f"#define ANY_MESSAGES {int(bool(messages))}",
        f"#define ANY_NAMELESS {int(any(spec.nameless for spec in learned))}",
        f"#define ANY_SPELLED {int(any('spelled' in spec.functions for spec in listed))}",
        f"typedef {'u64' if any(spec.id.size > 2 for spec in learned) else 'u16'} id_word;",
    ]
    return "\n".join(lines) + "\n"
