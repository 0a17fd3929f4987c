# SPDX-License-Identifier: Apache-2.0
"""Programs led by an interface: their packets leave by it, or not at all (docs/routes.md).

A route is a control group with programs, marks, rules and a table, all in the kernel. What a
process of ours adds is that it follows the interface.

`route` says what a route is, and `records` which there are; `programs` are at its group, `group` is
what it leads, `tables` are its packets' way; `leading` puts them together and `keeper` has them
follow the interface; `child` starts a program in it; `sockets` and `report` say what is led, and
what gets out.
"""
