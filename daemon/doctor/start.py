# SPDX-License-Identifier: Apache-2.0
"""What a service says at its start of traps: the cheap checks, of what it is on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from carom.daemon.doctor import interfaces, kernel
from carom.daemon.doctor.check import CHECKS, looked
from carom.daemon.doctor.look import Look
from carom.daemon.fastpath import Attachment

AT_START = (interfaces, kernel)
"""The files whose checks may be made at the start: no other is imported for it."""


def said_at_start(attachments: Iterable[Attachment]) -> Iterator[str]:
    """What is found on interfaces that a service is on, and on their host."""
    attachments = list(attachments)
    links = [attachment.interface for attachment in attachments]
    modes = {attachment.interface.name: attachment.mode for attachment in attachments}
    look = Look(links, modes=modes)
    for check in CHECKS.values():
        if check.at_start:
            for subject in [(link,) for link in links] if check.group == "interface" else [()]:
                for found in looked(check, look, subject)[0]:
                    yield f"{found.what}: {found.remedy}"
