"""`python -m unstill`: the command line, for `accelerate launch -m unstill ...` and machines without the script on the path."""

from unstill.cli import main


if __name__ == "__main__":
    main()
