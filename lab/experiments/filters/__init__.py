# SPDX-License-Identifier: Apache-2.0
"""Filters in the kernel against filters in userspace."""
