"""The exception that means "the caller asked for something that cannot be", and what a lack of memory looks like."""


class UnstillError(ValueError):
    """Wrong input or an impossible combination. The command line prints the text and exits with 2."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of a library means that the machine is too small; torch's allocator on a CPU has no class."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)
