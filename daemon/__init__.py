# SPDX-License-Identifier: Apache-2.0
"""The server behind the fast path: it answers misses, fills the cache and keeps the lease.

From the top: `run` checks what is asked for and waits for a signal, `assemble` puts the parts
together, `running` has them, `publisher` says where the kernel answers, `status` what has happened.
In the kernel: `fastpath` (programs and places), `store` (entries of all services) with a `cache` of
it for each, `edge` (servers' sockets). A service has a receiver, which knows where its requests get
to (`own_socket`, `fronted_server`), and a backend, which answers them (`python_backend`,
`fronted_backend`).
"""
