# SPDX-License-Identifier: Apache-2.0
"""Filters in front of a key-value server, and what looks on: at its socket, at TC and at XDP."""
