"""``python -m streamcli``, and the command ``streamcli``."""

import signal

# Until ``main`` can tell it in words, and again when it has, Ctrl-C must show no traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from streamcli import own_core  # noqa: E402

own_core.claim()  # before anything else imports core: a core.py may lie in the working folder

from streamcli import cli  # noqa: E402
from streamcli.jobs import signals  # noqa: E402


def main() -> None:
    """Run the command line; the console script's entry."""
    signals.listen()
    try:
        cli.main()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
