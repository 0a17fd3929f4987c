# SPDX-License-Identifier: Apache-2.0
"""Measurements without a pair: nanoseconds a packet, and what admission is worth."""
