"""``python -m pgkit``."""

from pgkit.cli import main

if __name__ == "__main__":
    main()
