# SPDX-License-Identifier: Apache-2.0
"""Files of cookie secrets, and what a name server's replies tell of its cookies."""

from __future__ import annotations

import struct
from pathlib import Path

import dns.edns
import dns.message
import dns.rcode
import pytest

from carom.errors import UsageError
from carom.protocols.dns import message as messages
from carom.protocols.dns.cookie import siphash24
from carom.protocols.dns.cookies import read_secrets

HEX = "e5e973e5a6b2a43f48e7dc849e37bfcf"
SECRET = bytes.fromhex(HEX)
OTHER = "00112233445566778899aabbccddeeff"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "secrets"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    "line",
    [
        HEX,
        HEX.upper(),
        f"  {HEX}\t",
        f"0x{HEX}",
        f'"{HEX}"',
        f'cookie-secret "{HEX}";',
        f'\tcookie-secret "{HEX}" ;  # the first',
        f'cookie-secret: "{HEX}"',
        f"cookie-secret: {HEX}",
        f"secret: 0x{HEX}",
        f"{HEX} # as of May",
        f"{HEX}; // as of May",
    ],
)
def test_as_servers_write_it(tmp_path: Path, line: str) -> None:
    assert read_secrets(written(tmp_path, f"# none of ours\n\n{line}\n")) == (SECRET,)


def test_in_their_order_and_once(tmp_path: Path) -> None:
    found = read_secrets(written(tmp_path, f"{OTHER}\r\n{HEX}\r\n0x{OTHER}"))
    assert found == (bytes.fromhex(OTHER), SECRET)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no cookie secrets"),
        ("# nothing\n", "no cookie secrets"),
        (HEX[:-1], "line 1"),
        (HEX + "0", "line 1"),
        (f"{HEX}\n{HEX} {OTHER}\n", "line 2"),
        (f"{HEX}\nkey {OTHER}\n", "line 2"),
        ("".join(f"{n:032x}\n" for n in range(5)), "5 cookie secrets"),
        ("\xff\0" * 100, "line 1"),
    ],
)
def test_what_is_no_secret_is_not_repeated(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_secrets(written(tmp_path, text))
    assert HEX[:8] not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_file_that_others_may_use(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match=f"{mode:04o}"):
        read_secrets(written(tmp_path, HEX, mode))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_secrets(tmp_path / "absent")
    with pytest.raises(UsageError, match="cannot read"):
        read_secrets(tmp_path)


QUERY = messages.cookie_query(7, b"8 bytes.")
WHOLE = b"8 bytes.and 16 of servers"[:24]


def answered(*options: tuple[int, bytes], edns: bool = True, rcode: int = 0, id: int = 7) -> bytes:
    """A server's reply to QUERY."""
    response = dns.message.make_response(dns.message.from_wire(QUERY))
    response.id = id
    response.use_edns(0 if edns else -1, options=[dns.edns.GenericOption(*one) for one in options])
    response.set_rcode(dns.rcode.Rcode(rcode))
    return response.to_wire()


COOKIE, EDE, NSID = 10, 15, 3
TOLD = {
    "a cookie": (answered((COOKIE, WHOLE)), True),
    "refused with a cookie and why": (answered((COOKIE, WHOLE), (EDE, b"\0\x14"), rcode=5), True),
    "behind another": (answered((NSID, b"x"), (COOKIE, WHOLE)), True),
    "BADCOOKIE": (answered((COOKIE, WHOLE), rcode=23), True),
    "none": (answered(), False),
    "none, and why": (answered((EDE, b"\0\x14"), rcode=5), False),
    "none, no such name": (answered(rcode=3), False),
    "failed": (answered(rcode=2), None),
    "malformed, it says": (answered(rcode=1), None),
    "no EDNS": (answered(edns=False), None),
    "another id": (answered(id=8), None),
    "the query": (QUERY, None),
    "cut": (answered()[:20], None),
    "empty": (b"", None),
}


@pytest.mark.parametrize(("reply", "told"), TOLD.values(), ids=TOLD)
def test_what_a_reply_tells(reply: bytes, told: bool | None) -> None:
    assert messages.answers_cookie(reply, QUERY) is told


def test_the_query_is_a_query() -> None:
    parsed = dns.message.from_wire(QUERY)
    (found,) = parsed.options
    assert found.to_wire() == b"8 bytes."
    assert parsed.question[0].to_text() == ". IN NS"
    assert messages.cookie_of(QUERY) == b"8 bytes."


def test_siphash() -> None:
    """The vector of its paper, appendix A, and one of its reference implementation."""
    assert siphash24(bytes(range(16)), bytes(range(15))) == struct.pack("<Q", 0xA129CA6149BE45E5)
    assert siphash24(bytes(range(16)), b"") == bytes.fromhex("310e0edd47db6f72")
