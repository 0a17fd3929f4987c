# SPDX-License-Identifier: Apache-2.0
"""Round trips of a bounce, and of a cache against the hit rate."""
