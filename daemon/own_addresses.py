# SPDX-License-Identifier: Apache-2.0
"""This host's own addresses, whose requests are never answered: include/own.h is the other side."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from carom.daemon.mirror import Mirror
from carom.kernel.abi import OWN_BITS, OWN_FACTORS, packed_address
from carom.kernel.bpf import Module
from carom.kernel.netlink import Address
from carom.kernel.resource import Resource

_WORDS = struct.Struct("=4I")
_CELL_BITS = 64


class OwnAddresses(Resource):
    """The addresses in the kernel: a hash map, and a filter of bits in front of it.

    A source whose bit is not set is not among them, which is quicker to see.
    """

    def __init__(self, module: Module, room: int):
        self._map = Mirror(module.map("own_addresses"), "own addresses", room)
        self._filter = module.cells("own_filter", OWN_BITS // _CELL_BITS)

    def refuse(self, addresses: Iterable[Address]) -> None:
        """Never answer requests from these addresses, and from no others any more.

        Raises BPFError when there is no room for all.
        """
        wanted = dict.fromkeys(map(packed_address, addresses), b"\1")
        if wanted == self._map.now:
            return
        for cell, bits in enumerate(_filter(wanted)):
            if bits & ~self._filter[cell]:
                self._filter[cell] |= bits
        try:
            self._map.hold(wanted)
        finally:
            for cell, bits in enumerate(_filter(self._map.now)):
                if self._filter[cell] != bits:
                    self._filter[cell] = bits

    def close(self) -> None:
        """Release its cells; the map is the module's."""
        self._filter.release()


def _filter(addresses: Iterable[bytes]) -> list[int]:
    """The cells of the filter with the bits of these addresses, packed, and no others."""
    cells = [0] * (OWN_BITS // _CELL_BITS)
    first, second, third, fourth = OWN_FACTORS
    for address in addresses:
        a, b, c, d = _WORDS.unpack(address)
        bit = (a * first + b * second + c * third + d * fourth & 0xFFFFFFFF) >> 16
        cells[bit // _CELL_BITS] |= 1 << bit % _CELL_BITS
    return cells
