# SPDX-License-Identifier: Apache-2.0
"""Ways of answering compared at every hook, while one thing is varied."""
