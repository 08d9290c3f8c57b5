"""The end of a run on request: after SIGTERM the batch is finished, what is encoded is saved, and the run ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mmeb.errors import MmebError


class StoppedError(MmebError):
    """The run ended early because it was asked to; the message says what is saved, and how to go on."""

    exit_code = 128 + signal.SIGTERM


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.made = False

    def make(self, number: int, frame: FrameType | None) -> None:
        self.made = True


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Take SIGTERM as a request, where nobody else handles it.

    Python handles signals in the main thread only: in others no request is ever made.
    """
    request = StopRequest()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield request
        return
    signal.signal(signal.SIGTERM, request.make)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
