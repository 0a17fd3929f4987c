# SPDX-License-Identifier: Apache-2.0
"""The server behind the fast path: it answers misses, fills the cache and keeps the lease."""
