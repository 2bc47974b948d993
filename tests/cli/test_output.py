"""What all commands share: how they end after Ctrl-C and SIGTERM."""

import pytest

from unstill.cli.output import resumable
from unstill.errors import Terminated, UnstillError


COMMANDS = (("compare", "--method", "early-start:sigma=5"), ("diagnose",), ("evaluate", "videos"))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_a_stop_without_a_message_says_how_to_resume(kind):
    with pytest.raises(kind, match="^Stopped; the same command continues from here.$") as caught, resumable():
        raise kind
    assert type(caught.value) is kind


def test_other_messages_and_errors_stay():
    with pytest.raises(KeyboardInterrupt, match="^Stopped after 3 steps.$"), resumable():
        raise KeyboardInterrupt("Stopped after 3 steps.")
    with pytest.raises(UnstillError, match="^no$"), resumable():
        raise UnstillError("no")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("kind", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_stopped_commands(unstill, command, kind, code, tmp_path, monkeypatch):
    import unstill as package

    def stopped(*args, **kwargs):
        raise kind

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(package, command[0], stopped)
    result = unstill(*command)
    assert (result.exit_code, result.stderr) == (code, "Stopped; the same command continues from here.\n")
