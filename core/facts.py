"""What was found while loading: facts of the model and the text that a configuration can't know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run was really made on. ``None`` where it was not found, or not found yet.

    Attributes:
        requested_model: The model that was asked for; ``RunConfig.model`` is what really ran.
        requested_dataset: The dataset that was asked for.
        model_revision: Hub commit or package version, None for a folder or file.
        weights_sha256: Hash of the weight files.
        files_sha256: Hash of the model's other files that a run depends on: its configuration,
            tokenizer and, where it may run, code.
        parameters: Number of parameters.
        trained_length: Positions that the model was trained on.
        dataset_form: How the text was made from its source, in words.
        dataset_revision: Commit or hash of the source.
        tokens_sha256: Hash of the token ids of all documents, and of what is asked in them; equal
            hashes, equal tokens and questions.
        bos: What stands before each document: ``none``, or ``tokenizer adds <s>``.
        layers: What each kind of layer keeps and sees, in words.
        proof: What was proved of the model's layers before the run, in words.
        method_package: The package that the method comes from, as ``name==version``; None for
            streamcli's own.
    """

    requested_model: str
    requested_dataset: str
    model_revision: str | None = None
    weights_sha256: str | None = None
    files_sha256: str | None = None
    parameters: int | None = None
    trained_length: int | None = None
    dataset_form: str | None = None
    dataset_revision: str | None = None
    tokens_sha256: str | None = None
    bos: str | None = None
    layers: str | None = None
    proof: str | None = None
    method_package: str | None = None
