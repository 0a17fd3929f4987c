# SPDX-License-Identifier: Apache-2.0
"""Filters in the kernel, compared with filters in userspace."""
