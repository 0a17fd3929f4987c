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


def _bits(name: str, specs: Iterable[Spec]) -> str:
    """A number that has a bit for the number of each of the protocols."""
    return f"#define {name} {sum(1 << spec.number for spec in specs):#x}ull"


def bits(specs: Iterable[Spec]) -> int:
    """The parameter `languages` (parameter.h): which protocols programs are to know."""
    return sum({1 << spec.number for spec in specs})


def loaded(specs: Iterable[Spec], whole: Sequence[Spec]) -> str:
    """The text of loaded.h for these protocols, and those whose key is the `whole` payload."""
    listed = sorted({spec for spec in specs if not spec.whole_key}, key=lambda spec: spec.number)
    for spec in listed:
        _check(spec)
    learned = [spec for spec in listed if spec.learned]
    numbers = ", ".join(f"{spec.name.upper()} = {spec.number}" for spec in (*whole, *listed))
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
        _list("EACH_LEARNED", learned),
        _bits("WHOLE_KEYS", whole),
        _bits("EVERY_LEARNED", learned),
        _bits("NAMELESS", [spec for spec in learned if spec.nameless]),
        _bits("SPELLED", [spec for spec in listed if "spelled" in spec.functions]),
        _bits("WITH_COOKIES", [spec for spec in listed if spec.cookies]),
        _bits("WITH_STREAM", [spec for spec in listed if spec.stream is Stream.COMMANDS]),
        _bits("WITH_MESSAGES", [spec for spec in listed if spec.stream is Stream.MESSAGES]),
        _bits("WITHOUT_STREAM", [spec for spec in learned if spec.stream is Stream.NONE]),
        f"typedef {'u64' if any(spec.id.size > 2 for spec in learned) else 'u16'} id_word;",
    ]
    return "\n".join(lines) + "\n"
