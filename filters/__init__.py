# SPDX-License-Identifier: Apache-2.0
"""Filters in front of a key-value server, at its socket, at TC or at XDP, and what they capture."""
