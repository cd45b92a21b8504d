"""A process that imports this has torch and the bundled model already; see ``children``."""

from tests.support import children, forked

forked.warm()
__all__ = ("children",)
