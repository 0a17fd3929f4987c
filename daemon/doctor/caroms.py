# SPDX-License-Identifier: Apache-2.0
"""Checks of a running carom: what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from carom.daemon.doctor.check import Found, NotKnown, check
from carom.daemon.doctor.look import Look, Running


def _status(running: Running) -> Mapping[str, Any]:
    if running.status is None:
        raise NotKnown("see silent-daemon")
    return running.status


@check(
    "silent-daemon",
    "carom",
    "useless",
    means="the daemon does not answer: while it is stopped, or gets no CPU, its lease runs out, "
    "and the server answers alone",
    remedy="`kill -CONT PID`, more CPU for it, or start it anew",
)
def silent_daemon(_: Look, running: Running) -> Iterator[Found]:
    """Does the daemon answer?"""
    if running.status is None:
        yield Found(running.why, f"kill -CONT {running.pid}; or start it anew")


@check(
    "unanswered",
    "carom",
    "useless",
    means="a service is not answered on an interface",
    remedy="as it says; `reach` in `carom status --json`",
)
def unanswered(_: Look, running: Running) -> Iterator[Found]:
    """Is each service answered on each interface?"""
    for service in _status(running)["services"]:
        for link in service["reach"]:
            if not link["answered"]:
                yield Found(
                    f"port {service['port']} is not answered on {link['interface']}, for "
                    f"{link['why']}",
                    "see carom status",
                )


@check(
    "partly",
    "carom",
    "note",
    means="a service is answered on an interface, but not at all of its addresses",
    remedy="as it says",
)
def partly(_: Look, running: Running) -> Iterator[Found]:
    """And at all of its addresses?"""
    for service in _status(running)["services"]:
        for link in service["reach"]:
            if link["but"]:
                yield Found(
                    f"port {service['port']} is answered on {link['interface']}, but {link['but']}",
                    "see carom status",
                )


@check(
    "no-hits",
    "carom",
    "useless",
    means="a service gets requests, and the kernel answers none: by the counters, that is why",
    remedy="as it says ([no hits](#looking)); `carom why` explains one request",
)
def no_hits(_: Look, running: Running) -> Iterator[Found]:
    """Has each service that gets requests hits?"""
    for service in _status(running)["services"]:
        if silence := service["silence"]:
            yield Found(
                f"port {service['port']} has no hits among {silence['requests']} requests in "
                f"{silence['seconds']:.0f} s, most of them {silence['what'].replace('_', ' ')}: "
                f"{silence['why']}",
                "carom why REQUEST explains one",
            )


@check(
    "not-followed",
    "carom",
    "slow",
    means="carom fails to look at a part of the host, whose changes it does not see",
    remedy="what hinders it is in the message",
)
def not_followed(_: Look, running: Running) -> Iterator[Found]:
    """Does it follow the host?"""
    for subject, reason in _status(running)["not_followed"].items():
        yield Found(f"carom does not follow {subject}, and tries again: {reason}")
