# SPDX-License-Identifier: Apache-2.0
"""Clients that measure, and what they send."""
