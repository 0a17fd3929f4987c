# SPDX-License-Identifier: Apache-2.0
"""The server behind the fast path: it answers misses, fills the cache and keeps the lease.

From the top: `run` checks the options and waits for a signal, `assemble` makes the parts, `running`
holds them, `publisher` tells the kernel where to answer, `status` reports. In the kernel:
`fastpath` (programs and places), `store` (the entries of all services, each of which has a `cache`
in it) and `edge` (servers' sockets). A service has a receiver, which knows where its requests
arrive (`own_socket`, `fronted_server`), and a backend, which answers them (`python_backend`,
`fronted_backend`).
"""
