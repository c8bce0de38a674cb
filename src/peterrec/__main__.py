"""`python -m peterrec`."""

from peterrec.cli.main import run

if __name__ == "__main__":
    run()
