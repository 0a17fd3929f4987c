# SPDX-License-Identifier: Apache-2.0
"""What somebody who runs carom should know, said once packets are answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from carom.daemon.fastpath import Attachment
from carom.daemon.firewall import rules_on

_NAMED = 3  # rules of a port that are named; the others are counted


def notes(attachments: Iterable[Attachment], ports: Iterable[int]) -> Iterator[str]:
    """What it costs others on these interfaces, and whose rules no longer hold for these ports."""
    for attachment in attachments:
        name = attachment.interface.name
        if attachment.mode == "native":
            yield f"native XDP slows other traffic on {name}, bulk TCP most: --hook tc does not"
        elif attachment.mode == "generic":
            yield f"generic XDP slows bulk TCP on {name}: --hook tc does not"
    for port in ports:
        rules = rules_on(port)
        if rules:
            more = f"; and {len(rules) - _NAMED} more" if len(rules) > _NAMED else ""
            yield (
                f"the firewall does not see what is answered on port {port}, and has rules on it: "
                + "; ".join(rules[:_NAMED])
                + more
            )
