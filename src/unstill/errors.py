"""The exception for errors of the caller, and helpers for messages."""

import reprlib
from typing import Any


class UnstillError(ValueError):
    """Wrong input or an impossible combination. The command line prints the message and exits with code 2."""


class Terminated(KeyboardInterrupt):
    """Stopped by SIGTERM: the same cleaning up as after Ctrl-C, but exit code 143."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of a library means that memory is exhausted; torch raises a plain RuntimeError on a CPU."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 2, 3, 3, 3, 3
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        # Python does not write numbers of thousands of digits, and writes shorter ones slowly.
        return f"a number of {x.bit_length()} bits" if x.bit_length() > 128 else repr(x)


def shown(value: Any) -> str:
    """`repr(value)` for a message, shortened: the value may be of any size."""
    return _Short().repr(value)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened, without a full stop; its class if the message is empty."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[0].rstrip(".") if len(lines[0]) <= 300 else f"{lines[0][:300]}..."
