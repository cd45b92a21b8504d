"""One file a mode: how tokens are fed and timed. Each has ``evaluate(task) -> RunResult``."""
