"""`python -m unstill` is the command line too, as `accelerate launch -m unstill ...` needs it."""

from unstill.cli import main


if __name__ == "__main__":
    main()
