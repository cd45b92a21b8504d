"""``python -m streamcli``, and the command ``streamcli``."""

from streamcli import own_core

own_core.claim()  # before anything else imports core: a core.py may lie in the working folder

from streamcli.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
