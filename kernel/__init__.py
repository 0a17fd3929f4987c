# SPDX-License-Identifier: Apache-2.0
"""The contract's structs, and the modules that alone talk to the kernel: one each for BCC,
libbpf, netlink, and signals."""
