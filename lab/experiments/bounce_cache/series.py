# SPDX-License-Identifier: Apache-2.0
"""The series of bounce and cache: servers in userspace, XDP, and the cost of a miss."""

from __future__ import annotations

from carom.lab.cells import Series, SeriesOf

_USERSPACE, _XDP = "#D55E00", "#0072B2"

SERIES = SeriesOf(
    (
        Series("userspace", "userspace", _USERSPACE),
        Series("xdp", "XDP", _XDP),
        Series("userspace_cache", "userspace cache", _USERSPACE, "o"),
        Series("xdp_cache", "XDP cache", _XDP, "s"),
        Series("xdp_over_userspace_cache", "XDP+userspace", "#009E73", "^"),
        Series("no_hook", "no hook", _USERSPACE),
        Series("never_hits", "never hits", "#CC79A7"),
        Series("miss_and_fill", "miss and fill", "#009E73"),
        Series("xdp_hit", "hit", _XDP),
    )
)

BASES = {
    "xdp": "userspace",
    "xdp_cache": "userspace_cache",
    "xdp_over_userspace_cache": "userspace_cache",
}
"""Each XDP series, and the userspace series that it is compared with."""

MISS_COST = ("no_hook", "never_hits", "miss_and_fill", "xdp_hit")
"""The series that measure the cost of a miss."""
