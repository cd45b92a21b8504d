"""The beginning and the end of a stream's token ids, by which its history is known again.

Knows nothing of keys or of models.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_PARTS = 64  # of what was heard, before they are gathered


class Heard:
    """The ids of a stream's first S tokens and of the last W, by which its history is known."""

    def __init__(self, n_sink: int, window: int) -> None:
        self.n_sink, self.window = n_sink, window
        self.count = 0  # tokens of the stream that were heard
        self.head: list[Tensor] = []
        self.tail: list[Tensor] = []
        self.held = 0  # tokens in the tail, two windows at most

    def hear(self, ids: Tensor | None, seen: int, c: int) -> None:
        """Note the next ids (B, C) of a stream of ``seen`` tokens, if they are known."""
        if ids is None or self.count != seen or (self.tail and len(self.tail[0]) != len(ids)):
            self.forget(0)
            return
        if self.count < self.n_sink:
            self.head.append(ids[:, : self.n_sink - self.count].clone())
        self.tail.append(ids[:, -self.window :].clone())
        self.count += c
        self.held += self.tail[-1].shape[1]
        if len(self.tail) > MOST_PARTS or self.held > 2 * self.window:
            self._gather()

    def _gather(self) -> None:
        self.tail = [torch.cat(self.tail, 1)[:, -self.window :]] if self.tail else []
        self.held = self.tail[0].shape[1] if self.tail else 0

    def knows(self, seen: int) -> bool:
        """Whether all of the stream was heard."""
        return 0 < self.count == seen

    def agrees(self, ids: Tensor, seen: int) -> tuple[bool, bool]:
        """Whether ids (B, C) have the first and the last tokens of the stream in their places."""
        self._gather()
        tail, head = self.tail[0], torch.cat(self.head, 1) if self.head else None
        rows = len(tail) // max(1, len(ids))  # of beams, and of several sequences for a prompt
        if rows * len(ids) != len(tail):
            return False, False
        ids = ids.repeat_interleave(rows, 0).to(tail.device)
        begins = head is None or torch.equal(ids[:, : head.shape[1]], head)
        return begins, torch.equal(ids[:, seen - tail.shape[1] : seen], tail)

    def forget(self, keep: int) -> None:
        """Forget the tokens from number ``keep`` on."""
        back = self.count - keep
        self._gather()
        if keep <= 0 or not self.tail or back >= self.tail[0].shape[1]:
            self.count, self.head, self.tail = 0, [], []
            return
        self.tail = [self.tail[0][:, : self.tail[0].shape[1] - back]]
        head = torch.cat(self.head, 1)[:, :keep] if self.head else None
        self.count, self.head = keep, [] if head is None else [head]

    def reorder(self, rows: Tensor) -> None:
        """Rearrange the rows of the batch."""
        self.head = [each[rows.to(each.device)] for each in self.head]
        self.tail = [each[rows.to(each.device)] for each in self.tail]
