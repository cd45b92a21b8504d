"""What of transformers' ``generate`` a streaming cache can do, case by case.

Each is held against greedy decoding by ``cache.read``, one token at a time, of single rows; other
families than Llama against what it reads at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from core.attending import streaming_attention
from core.errors import StreamError
from tests.support import families, generating
from tests.support.generating import (
    N_SINK,
    NEW,
    WINDOW,
    Wrong,
    equal,
    follows,
    greedy,
    name_of,
    new,
    options,
)
from tests.support.samples import random_ids, thinned, tiny_llama

WORKS = "works"


@dataclass(frozen=True)
class Case:
    """One row of the page.

    Attributes:
        words: What is done, in words.
        check: Does it; raises ``StreamError`` where it is refused.
        expected: How the outcome must begin.
    """

    words: str
    check: Callable[[Any], None]
    expected: str = WORKS


def short_prompt(model: Any) -> None:
    follows(model, random_ids(1, 15), new(model), within=False)


def long_prompt(model: Any) -> None:
    follows(model, random_ids(1, 100), new(model), within=False)
    follows(model, random_ids(1, 100), new(model))


def very_long_prompt(model: Any) -> None:
    follows(model, random_ids(1, 1100), new(model))


def prefill_chunks(model: Any) -> None:
    for size in (7, 64, 1000):
        follows(model, random_ids(1, 100), new(model), prefill_chunk_size=size)
        follows(model, random_ids(1, 100), new(model), within=False, prefill_chunk_size=size)


def batch(model: Any) -> None:
    follows(model, random_ids(3, 60), new(model))


def one_token(model: Any) -> None:
    follows(model, random_ids(1, 1), new(model), within=False)


def whole_history(model: Any, within: bool = True) -> None:
    cache, text = new(model), random_ids(2, 30)
    with streaming_attention(model, cache) if within else nullcontext():
        for turn in range(3):
            made = model.generate(
                text, **{name_of(model): cache}, **options(prefill_chunk_size=None)
            )
            equal(made, torch.cat((text, greedy(model, text)), 1))
            text = torch.cat((made, (random_ids(2, 50) + turn) % 97), 1)


def whole_history_alone(model: Any) -> None:
    whole_history(model, within=False)


def whole_history_in_chunks(model: Any) -> None:
    cache, text = new(model), random_ids(1, 30)
    with streaming_attention(model, cache):
        for turn in range(3):
            made = model.generate(text, **{name_of(model): cache}, **options(prefill_chunk_size=16))
            equal(made, torch.cat((text, greedy(model, text)), 1))
            text = torch.cat((made, (random_ids(1, 50) + turn) % 97), 1)


def only_new(model: Any) -> None:
    cache, stream = new(model), random_ids(2, 30)
    turn = stream
    with streaming_attention(model, cache):
        for length in (3, 80, 30):
            made = model.generate(turn, **{name_of(model): cache}, **options())
            equal(made, torch.cat((turn, greedy(model, stream)), 1))
            said = (random_ids(2, length) + 3) % 97
            stream = torch.cat((stream, made[:, turn.shape[1] :], said), 1)
            turn = torch.cat((made[:, -1:], said), 1)  # the last token was not read yet


def read_before(model: Any) -> None:
    cache, ids = new(model), random_ids(1, 400)
    cache.read(ids[:, :350])  # the frame has moved
    follows(model, ids, cache, within=False)


def sampling(model: Any) -> None:
    ids, cache = random_ids(1, 60), new(model)
    how = options(do_sample=True, top_k=20, output_logits=True, return_dict_in_generate=True)
    torch.manual_seed(3)
    with streaming_attention(model, cache):
        made = model.generate(ids, **{name_of(model): cache}, **how)
    again = new(model)
    parts = [again.read(token) for token in made.sequences[:, :-1].split(1, 1)]
    scores = torch.cat(parts, 1)[:, 59:].log_softmax(-1)
    apart = (torch.stack(made.logits, 1).log_softmax(-1) - scores).abs().max()
    if not apart < 1e-3:
        raise Wrong(f"scores differ by {float(apart):.1g} nats")


def _beams(model: Any, make: Callable[[], Any], within: bool, prompt: Tensor) -> Tensor:
    cache = make()
    with streaming_attention(model, cache) if within else nullcontext():
        made: Tensor = model.generate(
            prompt, **{name_of(model): cache}, **options(12, num_beams=3, early_stopping=False)
        )
    return made


def beams(model: Any) -> None:
    """Against transformers' own cache while all fits, and its scores beyond that."""
    prompt = random_ids(1, 10)
    want = _beams(model, transformers.DynamicCache, False, prompt)
    equal(_beams(model, lambda: new(model), True, prompt), want)
    equal(_beams(model, lambda: new(model), False, prompt), want)
    long, cache = random_ids(2, 100), new(model)
    how = options(num_beams=3, output_scores=True, return_dict_in_generate=True)
    with streaming_attention(model, cache):
        made = model.generate(long, **{name_of(model): cache}, **how, length_penalty=0.0)
    again = new(model)
    parts = [again.read(token) for token in made.sequences[:, :-1].split(1, 1)]
    scores = torch.cat(parts, 1).log_softmax(-1)[:, 99:]
    want = scores.gather(-1, made.sequences[:, 100:, None]).sum((1, 2))
    if not (made.sequences_scores - want).abs().max() < 2e-3:
        raise Wrong("the scores of the beams are wrong")


def several(model: Any) -> None:
    ids, cache = random_ids(1, 60), new(model)
    with streaming_attention(model, cache):
        made = model.generate(
            ids,
            **{name_of(model): cache},
            **options(do_sample=True, num_return_sequences=3, top_k=1),
        )
    equal(made, torch.cat((ids, greedy(model, ids)), 1).expand(3, -1))


def pipeline(model: Any) -> None:
    from core.packaged import bundled

    folder = bundled("model")
    auto: Any = transformers
    tokenizer = auto.AutoTokenizer.from_pretrained(folder)
    own = auto.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pipe = transformers.pipeline("text-generation", model=own, tokenizer=tokenizer)
    text = "The lighthouse stands at the end of the bay. " * 5
    ids = tokenizer(text, return_tensors="pt").input_ids
    cache = new(own)
    how = {"max_new_tokens": NEW, "do_sample": False, "return_tensors": True}
    want = greedy(own, ids)[0].tolist()
    with streaming_attention(own, cache):
        made = pipe(text, **how)
    if made[0]["generated_token_ids"][-NEW:] != want or cache.seen != ids.shape[1] + NEW - 1:
        raise Wrong("the text is another")
    made = pipe(text, **how, **{name_of(own): new(own)})
    if made[0]["generated_token_ids"][-NEW:] != want:
        raise Wrong("the text is another")


class _Put(BaseStreamer):
    def __init__(self) -> None:
        self.got: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        self.got.append(value.flatten())

    def end(self) -> None:
        self.got.append(torch.zeros(0, dtype=torch.int64))


def streamer(model: Any) -> None:
    ids, put = random_ids(1, 60), _Put()
    made = follows(model, ids, new(model), streamer=put)
    equal(torch.cat(put.got)[None], made)


def eager_attention(model: Any) -> None:
    other = generating.model("eager")
    follows(other, random_ids(2, 15), new(other), within=False)
    follows(other, random_ids(2, 60), new(other))


def compiled(compile_it: Callable[[Any], object]) -> None:
    other, ids = thinned(generating.model()), random_ids(1, 60)
    want = greedy(other, ids, 6)
    torch._dynamo.reset()
    compile_it(other)
    for within in (True, False):
        cache = new(other)
        with streaming_attention(other, cache) if within else nullcontext():
            made = other.generate(ids, **{name_of(other): cache}, **options(6))
        equal(made[:, 60:], want)


def compiled_forward(model: Any) -> None:
    compiled(lambda other: setattr(other, "forward", torch.compile(other.forward, backend="eager")))


def compiled_module(model: Any) -> None:
    compiled(lambda other: other.compile(backend="eager"))


def attentions(model: Any) -> None:
    other = generating.model("eager")
    how = options(output_attentions=True, return_dict_in_generate=True)
    with streaming_attention(other, cache := new(other)):
        other.generate(random_ids(1, 60), **{name_of(other): cache}, **how)


def attentions_alone(model: Any) -> None:
    other = generating.model("eager")
    ids, cache = random_ids(1, 5), new(other)
    how = options(output_attentions=True, return_dict_in_generate=True)
    made = other.generate(ids, **{name_of(other): cache}, **how)
    equal(made.sequences[:, 5:], greedy(other, ids))
    last = made.attentions[-1][0]  # (B, H, 1, S + W + 1)
    if last.shape[-1] != N_SINK + WINDOW + 1 or not torch.allclose(last.sum(-1), torch.ones(1)):
        raise Wrong("the weights are not those of the keys that are held")


def deep_copy(model: Any) -> None:
    ids = random_ids(1, 60)
    cache = new(model)
    cache.read(ids[:, :50])
    for _ in range(2):
        follows(model, ids, copy.deepcopy(cache), within=False)
        follows(model, ids, copy.deepcopy(cache))


def half(dtype: torch.dtype, model: Any) -> None:
    other = generating.model(dtype=dtype)
    cache, ids = new(other), random_ids(1, 60)
    how = options(output_logits=True, return_dict_in_generate=True)
    with streaming_attention(other, cache):
        made = other.generate(ids, **{name_of(other): cache}, **how)
    again = new(model)
    parts = [again.read(token) for token in made.sequences[:, :-1].split(1, 1)]
    scores = torch.cat(parts, 1)[:, 59:].log_softmax(-1)
    apart = (torch.stack(made.logits, 1).float().log_softmax(-1) - scores).abs().mean()
    if not apart < (0.5 if dtype == torch.bfloat16 else 0.08):
        raise Wrong(f"scores differ by {float(apart):.1g} nats on average")


def bfloat16(model: Any) -> None:
    half(torch.bfloat16, model)


def float16(model: Any) -> None:
    half(torch.float16, model)


def left_padding(model: Any) -> None:
    ids, mask = random_ids(2, 60), torch.ones(2, 60, dtype=torch.int64)
    mask[0, :7] = 0
    cache = new(model)
    model.generate(ids, attention_mask=mask, **{name_of(model): cache}, **options())


def mask_of_ones(model: Any) -> None:
    ids = random_ids(2, 60)
    follows(model, ids, new(model), attention_mask=torch.ones_like(ids))


def embeddings(model: Any) -> None:
    ids, cache = random_ids(1, 60), new(model)
    embedded = model.get_input_embeddings()(ids)
    with streaming_attention(model, cache):
        made = model.generate(inputs_embeds=embedded, **{name_of(model): cache}, **options())
    equal(made, greedy(model, ids))


def every_k(model: Any) -> None:
    ids = random_ids(1, 60)
    cache = new(model, evict_every=6)
    made = model.generate(ids, **{name_of(model): cache}, **options())
    again = new(model, evict_every=6)
    logits = torch.cat([again.read(token) for token in made.split(1, 1)], 1)
    equal(made[:, 60:], logits[:, 59:-1].argmax(-1))


def cropped(model: Any) -> None:
    ids, cache = random_ids(1, 20), new(model)
    cache.read(ids)
    cache.crop(-8)
    follows(model, ids, cache, within=False)


def cropped_late(model: Any) -> None:
    cache = new(model)
    cache.read(random_ids(1, 60))
    cache.crop(-8)


def lookup(model: Any) -> None:
    for length in (15, 60):
        ids = random_ids(1, 6).repeat(1, length // 6 + 1)[:, :length]
        follows(model, ids, new(model), prompt_lookup_num_tokens=5, eos_token_id=98)


def lookup_alone(model: Any) -> None:
    ids = random_ids(1, 6).repeat(1, 10)
    how = {"prompt_lookup_num_tokens": 5, "eos_token_id": 98}
    follows(model, ids, new(model), within=False, **how)


def assistant(model: Any) -> None:
    draft = tiny_llama()
    draft.generation_config.eos_token_id = None
    for length in (15, 60):
        follows(model, random_ids(1, length), new(model), assistant_model=draft)


def flash(model: Any) -> None:
    _attention_of("flash_attention_2")


def flex(model: Any) -> None:
    _attention_of("flex_attention")


def _attention_of(name: str) -> None:
    other = generating.model()
    ids = random_ids(2, 60)
    cache, want = new(other), greedy(other, ids)
    other.config._attn_implementation = name  # as where its kernels are installed
    made = other.generate(ids, **{name_of(other): cache}, **options())
    equal(made[:, 60:], want)


def family(model: Any) -> None:
    """A family's tiny model, whatever its layers are: each token is the likeliest as read."""
    model.generation_config.eos_token_id = None
    for length, count in ((22, 12), (56, 10)):  # past the longest block and the trained length
        how = {name_of(model): new(model), **options(count)}
        made = model.generate(families.tokens(length), **how)
        again = new(model)
        read = torch.cat([again.read(part) for part in made[:, :-1].split(16, 1)], 1)
        equal(made[:, length:], read[:, length - 1 :].argmax(-1))


def hybrid(model: Any) -> None:
    family(families.build("gemma3_text"))


def latent(model: Any) -> None:
    family(families.build("deepseek_v3"))


def first_length(model: Any) -> None:
    family(families.build("phi3_longrope"))


CASES = {
    "one token": Case("a prompt of one token, no context", one_token),
    "short": Case("a prompt that fits, no context", short_prompt),
    "long": Case("a prompt longer than the cache, with and without the context", long_prompt),
    "very long": Case("a prompt of 1,100 tokens (read in chunks of 1,024)", very_long_prompt),
    "prefill": Case("`prefill_chunk_size` of 7, 64 and 1,000, with and without", prefill_chunks),
    "batch": Case("three rows of one length", batch),
    "mask": Case("an attention mask of ones", mask_of_ones),
    "padding": Case("left-padded rows", left_padding, "refused: the attention mask hides tokens"),
    "turns": Case("three turns, the whole history passed again", whole_history),
    "turns alone": Case("the same without the context", whole_history_alone),
    "turns prefill": Case("the same with `prefill_chunk_size`", whole_history_in_chunks),
    "new": Case("four turns, only what is new passed", only_new),
    "read": Case("a stream that `read` began, and whose frame has moved", read_before),
    "sampling": Case("sampling: scores as `read`'s", sampling),
    "beams": Case("beam search: as with transformers' cache while all fits; scores", beams),
    "several": Case("`num_return_sequences`", several),
    "pipeline": Case('`pipeline("text-generation")`, the cache given or not', pipeline),
    "streamer": Case("a streamer", streamer),
    "eager": Case("eager attention", eager_attention),
    "compiled": Case("`model.forward = torch.compile(model.forward)`", compiled_forward),
    "compiled module": Case("`model.compile()`", compiled_module),
    "weights": Case(
        "`output_attentions` within the context", attentions, "refused: the streaming attention has"
    ),
    "weights alone": Case("`output_attentions`, eager, a prompt that fits", attentions_alone),
    "deepcopy": Case("`copy.deepcopy` of a cache", deep_copy),
    "bfloat16": Case("bfloat16: scores near float32's", bfloat16),
    "float16": Case("float16: scores near float32's", float16),
    "embeddings": Case("`inputs_embeds`", embeddings),
    "every": Case("`evict_every` of 6, no context", every_k),
    "crop": Case("`crop` of a stream that fits", cropped),
    "crop late": Case("`crop` of tokens that evicted others", cropped_late, "refused: 8 of 60"),
    "lookup": Case("`prompt_lookup_num_tokens`", lookup),
    "lookup alone": Case("the same, long, without the context", lookup_alone, "refused: "),
    "assistant": Case("`assistant_model`", assistant),
    "hybrid": Case("layers with windows of their own (Gemma 3)", hybrid),
    "latent": Case("latent attention (DeepSeek-V3)", latent),
    "first length": Case(
        "a text that passes the length that a Phi-3 was first trained on", first_length
    ),
    "flash": Case(
        "`flash_attention_2` set on a loaded model (its kernel not run): ours takes its place",
        flash,
    ),
    "flex": Case(
        "`flex_attention` set on a loaded model (its kernel not run): ours takes its place", flex
    ),
}


def outcome(name: str, made: Any) -> str:
    """``works``, or ``refused: ...``.

    Raises:
        Wrong: The tokens are wrong.
    """
    try:
        with torch.no_grad():
            CASES[name].check(made)
    except StreamError as error:
        assert "\n" not in str(error)
        return f"refused: {error}"
    return WORKS
