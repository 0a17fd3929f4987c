# SPDX-License-Identifier: Apache-2.0
"""The ways of answering that the sweeps compare."""

from __future__ import annotations

from typing import Literal, get_args

from carom.lab.cells import Series, SeriesOf

Name = Literal["userspace", "tc", "xdp_generic", "xdp_native"]
NAMES: tuple[Name, ...] = get_args(Name)

SERIES = SeriesOf(
    (
        Series("userspace", "userspace", "#D55E00", "o"),
        Series("tc", "TC", "#CC79A7", "D"),
        Series("xdp_generic", "XDP generic", "#009E73", "^"),
        Series("xdp_native", "XDP native", "#0072B2", "s"),
    )
)

BASE = "userspace"
"""The series that the others are compared with."""

NATIVE = "xdp_native"
"""The series that a driver may refuse."""
