# SPDX-License-Identifier: Apache-2.0
"""The experiments with four ports at once: concurrency and demux."""
