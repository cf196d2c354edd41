"""Ctrl-C, or a cluster's SIGTERM, as a wish to stop well: finish the step, save, end. A second one stops at once.

Works with any trainer of transformers; it knows nothing of heads.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnInterrupt(TrainerCallback):
    """Ends training behind the step in which a signal came, with a checkpoint. All processes stop together."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the signals over, in the main thread only."""
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Save and stop, if anybody asked."""
        if self._anywhere(args):
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Give the signals back."""
        self.restore()

    def restore(self) -> None:
        """Give the signals back, if they were taken over."""
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before or signal.SIG_DFL)  # None: not set from Python

    def _ask(self, _signal: int, _frame: Any) -> None:
        if self.asked:
            self.restore()
            raise KeyboardInterrupt
        self.asked = True

    def _anywhere(self, args: Any) -> bool:
        if args.world_size == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=args.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)
