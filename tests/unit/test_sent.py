# SPDX-License-Identifier: Apache-2.0
"""Drivers' counters, by the names that they have."""

from __future__ import annotations

from carom.daemon.sent import Counts, counts


def test_veth() -> None:
    """What is redirected to it is no reply."""
    counters = {"peer_ifindex": 3, "tx_queue_0_xdp_xmit": 7, "tx_queue_0_xdp_xmit_errors": 9}
    for queue, factor in (0, 1), (11, 100):
        counters |= {
            f"rx_queue_{queue}_xdp_packets": 50 * factor,
            f"rx_queue_{queue}_xdp_bytes": 999,
            f"rx_queue_{queue}_xdp_tx": 20 * factor,
            f"rx_queue_{queue}_xdp_tx_errors": 3 * factor,
            f"rx_queue_{queue}_xdp_drops": 5,
        }
    assert counts("veth", counters) == Counts(5050, 2020, 303)


def test_virtio() -> None:
    """The same in both spellings; the newer one has sums beside."""
    own = {"xdp_packets": 50, "xdp_tx": 20, "xdp_redirects": 1, "xdp_drops": 2}
    sends = {"xdp_tx": 20, "xdp_tx_drops": 3}
    old = {f"rx_queue_1_{name}": n for name, n in own.items()}
    old |= {f"tx_queue_0_{name}": n for name, n in sends.items()}
    new = {f"{rx}_{name}": n for rx in ("rx", "rx0") for name, n in own.items()}
    new |= {f"{tx}_{name}": n for tx in ("tx", "tx0") for name, n in sends.items()}
    assert counts("virtio_net", old) == counts("virtio_net", new) == Counts(50, 17, 3)


def test_others() -> None:
    assert counts("e1000", {"rx_queue_0_xdp_tx": 5}) is None
