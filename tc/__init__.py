# SPDX-License-Identifier: Apache-2.0
"""The TC hook: the program at ingress, and its attaching."""
