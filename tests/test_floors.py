"""What a step must move and compute, by hand."""

from __future__ import annotations

import torch

from core import floors, shapes
from core.floors import Machine, Work


def test_a_decode_step_reads_weights_once_and_every_key_and_value_once() -> None:
    model = shapes.build("tiny", dtype="float32", device="cpu").model
    layers, hidden, heads, vocabulary = 2, 64, 4, 512
    layer = 4 * hidden * hidden + 4 * hidden + 8 * hidden * hidden + 5 * hidden + 4 * hidden
    weights = layers * layer + 2 * hidden + vocabulary * hidden
    got = floors.decode_work(model, keys=100, batch=3)
    assert got.read_bytes == 4 * (weights + 3 * 2 * layers * hidden * 100)
    assert got.flops == 3 * (2 * weights + 4 * layers * heads * (hidden // heads) * 100)


def test_a_tied_head_is_read_and_grouped_keys_are_fewer() -> None:
    model = shapes.build("smollm2-135m", dtype="bfloat16", device="cpu").model
    assert round(floors.decode_work(model, keys=0).read_bytes / 2e6) == 135
    one = (
        floors.decode_work(model, keys=1).read_bytes - floors.decode_work(model, keys=0).read_bytes
    )
    assert one == 2 * 2 * 30 * 3 * 64


def test_the_floor_is_the_slower_of_reading_and_computing() -> None:
    machine = Machine("cpu", torch.float32, bytes_per_s=1e9, flops_per_s=1e10)
    assert machine.floor_ms(Work(read_bytes=1e6, flops=1e6)) == 1.0
    assert machine.floor_ms(Work(read_bytes=1e6, flops=1e8)) == 10.0


def test_rates_are_measured_and_never_get_worse() -> None:
    machine = Machine("cpu", torch.float32)
    machine.measure(1)
    first = machine.bytes_per_s, machine.flops_per_s
    machine.measure(1)
    assert min(first) > 1e8
    assert machine.bytes_per_s >= first[0] and machine.flops_per_s >= first[1]
