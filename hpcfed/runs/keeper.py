"""What only row 0 has: the run folder, the journal, and the user's attention."""

from __future__ import annotations

from dataclasses import dataclass

from ..orbit import Journal
from .folder import RunFolder
from .progress import Progress, TensorBoardLog


@dataclass(eq=False)
class Keeper:
    """What only row 0 has: the run folder, the journal (of methods with an orbit), and the user's attention."""

    folder: RunFolder
    quiet: bool = False
    journal: Journal | None = None
    progress: Progress | None = None
    board: TensorBoardLog | None = None

    def show(self, total: int, start: int) -> Progress:
        """The progress of rounds `start` to `total`; enter it as a context."""
        self.progress = Progress(total, start, self.quiet)
        return self.progress
