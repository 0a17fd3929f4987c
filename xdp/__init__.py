# SPDX-License-Identifier: Apache-2.0
"""The fast path at XDP: its programs, their loading and their attaching."""
