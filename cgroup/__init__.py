# SPDX-License-Identifier: Apache-2.0
"""The socket's edge: programs that see what a fronted server is asked to write and answers."""
