# SPDX-License-Identifier: Apache-2.0
"""Notes for whoever runs carom, given once packets are answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from carom.daemon.fastpath import Attachment
from carom.daemon.options import Options
from carom.daemon.reach import tag_words
from carom.kernel.abi import REPLY_SAFE


def _forwards(interface: str, version: int) -> bool:
    file = Path(f"/proc/sys/net/ipv{version}/conf/{interface}/forwarding")
    try:
        return file.read_text().strip() == "1"
    except OSError:
        return False


def notes_on_length(attachments: Iterable[Attachment], all: Iterable[Options]) -> Iterator[str]:
    """Interfaces where longer replies are asked for, but no route tells whether it takes them."""
    if not any(options.max_reply > REPLY_SAFE for options in all):
        return
    for attachment in attachments:
        name = attachment.interface.name
        versions = {address.version for address in attachment.interface.addresses}
        plain = [f"IPv{version}" for version in sorted(versions) if not _forwards(name, version)]
        if plain:
            yield (
                f"{name} does not forward {' or '.join(plain)}, so the kernel tells no path's MTU: "
                f"replies of more than {REPLY_SAFE} bytes are left to the server "
                f"(sysctl net.ipv4.conf.{name}.forwarding, net.ipv6.conf.{name}.forwarding)"
            )


def _is_strict(interface: str) -> bool:
    """Whether the kernel drops packets whose source is not routed back by their interface."""
    values = []
    for scope in ("all", interface):
        try:
            values.append(int(Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter").read_text()))
        except (OSError, ValueError):
            return False
    return max(values) == 1


def notes_on_sources(attachments: Iterable[Attachment], all: Iterable[Options]) -> Iterator[str]:
    """Interfaces where the kernel checks the way back to sources, which hits bypass."""
    if not any(options.fast != "off" and not options.allow for options in all):
        return
    for attachment in attachments:
        name = attachment.interface.name
        if _is_strict(name) and any(
            address.version == 4 for address in attachment.interface.reachable
        ):
            yield (
                f"{name} drops IPv4 requests whose source is not routed back by it (rp_filter=1), "
                "and carom answers them: --allow PREFIX makes it look at routes, too"
            )


def notes(attachments: Iterable[Attachment]) -> Iterator[str]:
    """What the fast path does not see on these interfaces, and what it costs other traffic."""
    for attachment in attachments:
        name = attachment.interface.name
        if attachment.hook == "xdp" and (words := tag_words(attachment.interface)):
            yield words
        if attachment.mode == "native":
            yield f"native XDP slows other traffic on {name}, bulk TCP most: --hook tc does not"
        elif attachment.mode == "generic":
            yield f"generic XDP slows bulk TCP on {name}: --hook tc does not"
