# SPDX-License-Identifier: Apache-2.0
"""`python -m carom` is `carom`."""

from carom.cli import main

main()
