"""The science: streaming key/value caches, exact evaluators and fair measurement.

Knows nothing of command lines, databases or tables, and never imports ``streamcli``.

Shape letters used everywhere: B batch, H query heads, K key/value heads, D head dim,
R rotary dims, S ``n_sink``, W ``window``, T stream length, C chunk, L attended keys, V vocabulary.
"""
