# SPDX-License-Identifier: Apache-2.0
"""Sweeps: userspace and every hook are compared while one thing is varied."""
