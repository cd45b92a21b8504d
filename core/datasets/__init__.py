"""One file a source of text. Each has ``read(spec, source) -> Corpus``."""
