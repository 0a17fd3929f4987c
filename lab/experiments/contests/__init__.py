# SPDX-License-Identifier: Apache-2.0
"""Several subjects measured at the same task, in interleaved rounds."""
