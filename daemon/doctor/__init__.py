# SPDX-License-Identifier: Apache-2.0
"""What makes a fast path useless or slow and does not say so: a small check for each such trap."""
