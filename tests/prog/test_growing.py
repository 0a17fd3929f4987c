# SPDX-License-Identifier: Apache-2.0
"""The program that tries how far frames can grow: each passes as it came."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from carom.kernel import libbpf
from carom.xdp import growing


@pytest.fixture
def seen() -> Iterator[int]:
    descriptor = growing.noted()
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("size", [14, 42, 60, 74, 300, 1_000, 1_514, 2_500, 3_000, 3_300])
def test_a_frame_passes_as_it_came(seen: int, size: int) -> None:
    """And by how much it could grow is one of the steps, the less the longer it is."""
    frame = os.urandom(size)
    program = growing.load(seen)
    try:
        assert growing.grown(seen) is None
        ended = libbpf.test_run(program, frame)
    finally:
        os.close(program)
    assert (ended.retval, ended.data) == (libbpf.XDP_PASS, frame)
    by = growing.grown(seen)
    assert by in (0, *growing.STEPS)
    room = 4_096 - 256 - 320 - size  # of a page: without headroom and the kernel's own
    assert by == max((step for step in growing.STEPS if step <= room), default=0)
