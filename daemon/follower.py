# SPDX-License-Identifier: Apache-2.0
"""Follows changes of this host, and looks again at what has changed, in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from carom import log
from carom.errors import CaromError
from carom.kernel import capabilities, netlink
from carom.kernel.resource import Resource

GATHER = 0.02
"""Seconds during which events are gathered for one look."""

RETRY_SOON, RETRY_LATE = 0.5, 30.0
"""Seconds until a look that failed is tried again: at first, and at most."""

REST_MAX = 10.0
"""Seconds between two looks, at most, while changes go on."""

LOOK_SHARE = 20
"""The least time until a look without an event, as a multiple of the last look's time."""


class Look(NamedTuple):
    """One thing to look at when this host changes: what it is, and how."""

    what: str
    step: Callable[[], None]


class Follower:
    """Looks again, in a thread of its own, when a link or an address changes, or it is poked.

    All events during a look lead to one more look, after a pause as long as the look. A step that
    fails stops no other. It is tried again, later each time, until it succeeds; `failing` has the
    steps that fail, and why.
    """

    def __init__(
        self,
        looks: Sequence[Look],
        changes: netlink.Changes,
        *,
        name: str = "follower",
        rest: float = 1.0,
        anyway: float | None = None,
    ):
        """Follow the events of `changes`, from before this on; closing this closes it.

        After `anyway` seconds it looks without an event, later where a look takes long. The pause
        after a look is `rest` times as long as the look, and REST_MAX at most.
        """
        self._looks = looks
        self._share = rest
        self._changes = changes
        self._anyway = anyway
        self._stopping = False
        self._pause = RETRY_SOON
        self.failing: dict[str, str] = {}
        changes.poke()  # for what changed before this
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Look again soon, for any reason. Any thread may call this."""
        self._changes.poke()

    def _run(self) -> None:
        capabilities.shed()
        took = 0.0
        next_look = self._next_look(took)
        while not self._stopping:
            left = next_look - time.monotonic()
            waited = max(0.0, min(left, self._pause if self.failing else left))
            changed = self._changes.wait(None if waited == math.inf else waited)
            if self._stopping:
                return
            if changed:
                time.sleep(GATHER)
                self._changes.forget()  # what came meanwhile is seen by the look that follows
            start = time.monotonic()
            all_of_them = changed or start >= next_look
            self._look(all_of_them=all_of_them)
            took = time.monotonic() - start
            if all_of_them:
                next_look = self._next_look(took)
            self._pause = RETRY_SOON if changed else min(2 * self._pause, RETRY_LATE)
            self._rest(min(REST_MAX, self._share * took))

    def _next_look(self, took: float) -> float:
        """When to look at everything without an event; failed steps are tried sooner."""
        if self._anyway is None:
            return math.inf
        return time.monotonic() + max(self._anyway, LOOK_SHARE * took)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(min(GATHER, seconds))

    def _look(self, *, all_of_them: bool) -> None:
        for subject, step in self._looks:
            if self._stopping:
                return
            if not all_of_them and subject not in self.failing:
                continue
            try:
                step()
            except Exception as error:
                self._failed(subject, error)
            else:
                if self.failing.pop(subject, None):
                    log.info("a change of this host is followed now", what=subject)

    def _failed(self, subject: str, error: Exception) -> None:
        known = isinstance(error, CaromError | OSError)
        hint = getattr(error, "hint", None)
        text = f"{error or type(error).__name__}{f': {hint}' if hint else ''}"
        if self.failing.get(subject) != text:  # the same is not said again
            log.warning(
                "a change of this host could not be followed; it is tried again",
                what=subject,
                error=text,
                failure=None if known else error,
            )
        self.failing[subject] = text

    def close(self) -> None:
        """Stop, and wait for the step under way."""
        self._stopping = True
        self._changes.poke()
        self._thread.join()
        self._changes.close()


class Followers(Resource):
    """Followers by name. Any may be poked, even before it is added and after it is closed."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}

    def add(self, name: str, follower: Follower) -> None:
        """Add a follower: it is poked by this name, and closed with the others."""
        self._followers[name] = follower

    def poke(self, name: str) -> None:
        """Have a follower look again soon, if there is one. Any thread may call this."""
        follower = self._followers.get(name)
        if follower:
            follower.poke()

    def failing(self) -> dict[str, str]:
        """What could not be followed, and why."""
        return {
            subject: why
            for follower in list(self._followers.values())
            for subject, why in dict(follower.failing).items()
        }

    def close(self) -> None:
        """Close them, the last added first; none is poked from now on."""
        closing, self._followers = self._followers, {}
        for follower in reversed(closing.values()):
            follower.close()
