# SPDX-License-Identifier: Apache-2.0
"""The contract between kernel and userspace; one module each for BCC, libbpf and netlink."""
