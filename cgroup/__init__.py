# SPDX-License-Identifier: Apache-2.0
"""The socket's edge: programs that see a fronted server's requests and replies at its sockets."""
