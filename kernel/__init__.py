# SPDX-License-Identifier: Apache-2.0
"""The structs that kernel and userspace share, and all modules that talk to the kernel.

There is one module each for BCC, clang, libbpf, netlink and signals.
"""
