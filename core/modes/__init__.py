"""One file a mode: how tokens are fed, and what is timed. Each has ``evaluate(task) -> RunResult``."""
