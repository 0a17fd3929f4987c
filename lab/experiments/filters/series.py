# SPDX-License-Identifier: Apache-2.0
"""Where invalid packets are rejected: by the server itself, or by a filter at one of the places."""

from __future__ import annotations

from carom.lab.cells import Series, SeriesOf

SERIES = SeriesOf(
    (
        Series("userspace", "userspace", "#D55E00", "o"),
        Series("socket", "socket filter", "#CC79A7", "s"),
        Series("tc", "TC", "#009E73", "^"),
        Series("xdp_generic", "XDP generic", "#56B4E9", "D"),
        Series("xdp_native", "XDP native", "#0072B2", "v"),
    )
)

BASE = "userspace"
"""The series that the others are compared with."""

KERNEL = tuple(name for name in SERIES if name != BASE)
