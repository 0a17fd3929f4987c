# SPDX-License-Identifier: Apache-2.0
"""Four ports at once: concurrency and demux."""
