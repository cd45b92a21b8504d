"""Streaming caches that are wrong in the ways that published ones have been wrong."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from core.attention import ChunkView
from core.cache import StreamingKVCache
from core.kinds import Kind
from core.methods.base import CacheStream, Stream
from core.methods.knorm import KNorm
from core.methods.scored import ScoredLayer
from core.methods.streaming import CachedStream, Streaming
from core.models.loading import Loaded
from core.rope import Turn


class _Trap(Streaming):
    cache: type[StreamingKVCache] = StreamingKVCache

    def start(self, loaded: Loaded, batch: int) -> Stream:
        cache = self.cache(self.config.n_sink, self.config.window_size, loaded.model)
        return CachedStream(loaded, cache)


class _Evicting(StreamingKVCache):
    def _look(self, kind: Kind, t: int, c: int) -> ChunkView:
        view = super()._look(kind, t, c)
        return replace(view, band=view.band & view.band[-1])  # what is left for the last query


class EvictsInsideAChunk(_Trap):
    """Keys go while the queries that still see them are in flight."""

    cache = _Evicting


class _Still(StreamingKVCache):
    def sink_turn(self, kind: Kind, t: int) -> Turn:
        assert kind.rotation is not None
        return kind.rotation.turn(torch.zeros(1))


class NoRotation(_Trap):
    """Sinks stay where they were first seen, ever further from the query."""

    cache = _Still


class SinksLost(_Trap):
    """The first tokens are evicted like any other."""

    def start(self, loaded: Loaded, batch: int) -> Stream:
        return CachedStream(loaded, StreamingKVCache(0, self.config.window_size, loaded.model))


class _Twice(CachedStream):
    fed = 0

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        self.fed += ids.shape[1]
        if self.fed == 20:
            super().feed(ids)
        return super().feed(ids, keep)


class LastPrefillTokenTwice(_Trap):
    """The loop begins with the token that the prefill ended with."""

    def start(self, loaded: Loaded, batch: int) -> Stream:
        cache = StreamingKVCache(self.config.n_sink, self.config.window_size, loaded.model)
        return _Twice(loaded, cache)


class _Stepwise(StreamingKVCache):
    def make_room(self, tokens: int) -> None:
        super().make_room(tokens)
        for by in (1,) * 20 + (-20,):  # a window of 20 drifts as one of 400 by one turn a step
            for layer in self.layers:
                layer.move(by)


class TurnsStepByStep(_Trap):
    """The window is rotated again at every step, and rounded each time."""

    cache = _Stepwise


class NeverEvicts(_Trap):
    """A compression that was applied once, or not at all."""

    def start(self, loaded: Loaded, batch: int) -> Stream:
        return CachedStream(loaded, StreamingKVCache(self.config.n_sink, 10**4, loaded.model))


class DropsTheShortest(KNorm):
    """A score of the wrong sign."""

    def score(self, layer: ScoredLayer) -> Tensor:
        return -super().score(layer)


class KeysStayWhereTheyCame(KNorm):
    """Queries stand by their place in the cache, and keys as they first stood."""

    def start(self, loaded: Loaded, batch: int) -> Stream:
        stream = super().start(loaded, batch)
        assert isinstance(stream, CacheStream)
        for layer in stream.cache.layers:
            layer.rotation = None
        return stream
