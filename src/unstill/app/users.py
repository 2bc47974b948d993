"""User names and passwords from `--auth`."""

from pathlib import Path

from unstill.errors import UnstillError


def users_of(auth: str) -> dict[str, str]:
    """
    Passwords by user name.

    Args:
        auth: `USER:PASSWORD`, or a text file with one such line for each user.

    Raises:
        UnstillError: neither of them, or a file that cannot be read. The message does not contain a password.
    """
    form = "--auth takes USER:PASSWORD, or a file with one such line for each user."
    try:
        is_file = Path(auth).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file:
        try:
            lines = Path(auth).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UnstillError(f"The file of --auth cannot be read; {form}") from error
    else:
        lines = [auth]
    users = {}
    for line in lines:
        if not line.strip():
            continue
        name, _, password = line.partition(":")
        if not name or not password:
            raise UnstillError(form)
        users[name] = password
    if not users:
        raise UnstillError(form)
    return users
