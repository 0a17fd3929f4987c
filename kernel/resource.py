# SPDX-License-Identifier: Apache-2.0
"""What every kernel resource of ours is: a context manager that takes away what it installed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Resource(ABC):
    """Closed when its context is left."""

    @abstractmethod
    def close(self) -> None:
        """Take away what was installed, and nothing else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
