"""The one exception that means "the caller asked for something that cannot be"."""


class UnstillError(ValueError):
    """Wrong input or an impossible combination. The command line prints the text and exits with 2."""
