# SPDX-License-Identifier: Apache-2.0
"""One file pair a protocol: what of a request is its cache key."""
