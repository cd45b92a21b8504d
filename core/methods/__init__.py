"""One file a cache method. Each class has ``start(loaded, batch) -> Stream``."""
