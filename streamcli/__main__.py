"""``python -m streamcli``."""

from streamcli.cli import main

main()
