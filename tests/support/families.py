"""One table of tiny random language models, a row a family, and what builds one.

A row names what a family's configuration is given over COMMON (None takes from COMMON): small
widths, and enough layers for every kind of layer the family has. What a long stream would show
shows within 200 tokens: windows of 24, chunks of 32, scales that grow every 16, caps that
attention's logits reach.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

VOCABULARY = 97
SLIDING, FULL, CHUNKED = "sliding_attention", "full_attention", "chunked_attention"

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDES: dict[str, Any] = {"sliding_window": 24, "layer_types": [SLIDING, FULL]}
SLIDES_THRICE: dict[str, Any] = {
    "sliding_window": 24,
    "num_hidden_layers": 4,
    "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
LOCAL_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED_EXPERTS: dict[str, Any] = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
LATENT: dict[str, Any] = {
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "head_dim": None,
}
INDEXED: dict[str, Any] = {"index_topk": 24, "index_head_dim": 16, "index_n_heads": 4}
MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
}
DELTA: dict[str, Any] = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
LINEAR_THEN_FULL = ["linear_attention", FULL]
LLAMA3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}


def rope(fraction: float = 1.0, theta: float = 10000.0) -> dict[str, Any]:
    """Rotate this fraction of a head's dimensions."""
    return {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": fraction}


DENSE: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama_llama3": {"model_type": "llama", "rope_parameters": LLAMA3_ROPE},
    "llama_yarn": {"model_type": "llama", "rope_parameters": YARN},
    "apertus": {"rope_parameters": LLAMA3_ROPE},
    "arcee": {},
    "bitnet": {},
    "cohere": {"use_qk_norm": True, "logit_scale": 1.0},
    "cohere2": SLIDES_THRICE | {"logit_scale": 1.0},
    "cwm": SLIDES_THRICE | {"rope_parameters": LLAMA3_ROPE},
    "diffllama": {},
    "doge": {},
    "ernie4_5": {},
    "exaone4": SLIDES_THRICE,
    "gemma": {},
    "gemma2": SLIDES
    | {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
    "gemma3_text": SLIDES | {"query_pre_attn_scalar": 16},
    "gemma3n_text": SLIDES_THRICE
    | {
        "layer_types": [SLIDING, FULL, SLIDING, FULL],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 16,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "final_logit_softcapping": 5.0,
    },
    "glm": {"rope_parameters": rope(0.5)},
    "glm4": {"rope_parameters": rope(0.5)},
    "granite": {"attention_multiplier": 0.25, "logits_scaling": 0.5},
    "helium": {},
    "hunyuan_v1_dense": {},
    "jais2": {},
    "ministral": SLIDES,
    "ministral3": {
        "rope_parameters": YARN
        | {
            "original_max_position_embeddings": 16,
            "factor": 16.0,
            "llama_4_scaling_beta": 0.1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        }
    },
    "mistral": {"sliding_window": 24},
    "nanochat": {"final_logit_softcapping": 5.0},
    "nemotron": {"rope_parameters": rope(0.5)},
    "olmo": {"clip_qkv": 2.0},
    "olmo2": {},
    "olmo3": SLIDES_THRICE,
    "persimmon": {"rope_parameters": rope(0.5)},
    "phi": {"rope_parameters": rope(0.5), "qk_layernorm": True},
    "phi3": {"sliding_window": 24, "rope_parameters": rope(0.5)},
    "phi3_longrope": {
        "model_type": "phi3",
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 64,
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
        },
    },
    "qwen2": SLIDES | {"use_sliding_window": True},
    "qwen3": SLIDES | {"use_sliding_window": True},
    "seed_oss": {"residual_dropout": 0.0},
    "smollm3": SLIDES_THRICE | {"use_sliding_window": True, "no_rope_layers": [1, 0, 1, 0]},
    "stablelm": {"rope_parameters": rope(0.25), "qk_layernorm": True, "use_qkv_bias": True},
    "starcoder2": {"sliding_window": 24},
    "vaultgemma": SLIDES
    | {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
    "youtu": LATENT,
}

OLDER: dict[str, dict[str, Any]] = {
    "biogpt": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "bloom": {},
    "codegen": {"rotary_dim": 8},
    "cpmant": {
        "dim_head": 16,
        "dim_ff": 96,
        "position_bias_num_buckets": 32,
        "position_bias_max_distance": 64,
        "prompt_length": 4,
    },
    "ctrl": {"dff": 96, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "falcon": {
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "bias": True,
        "head_dim": None,
    },
    "falcon_multi_query": {"model_type": "falcon", "head_dim": None},
    "falcon_alibi": {
        "model_type": "falcon",
        "alibi": True,
        "multi_query": False,
        "head_dim": None,
    },
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_bigcode": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neo": {
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 24,
    },
    "gpt_neox": {"rotary_pct": 0.5},
    "gpt_neox_japanese": {},
    "gptj": {"rotary_dim": 8},
    "modernbert-decoder": {
        "layer_types": [SLIDING, FULL],
        "local_attention": 48,
        "cls_token_id": 3,
        "sep_token_id": 4,
    },
    "mpt": {"attn_config": {"clip_qkv": 2.0}},
    "openai-gpt": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "opt": {"ffn_dim": 96, "dropout": 0.0},
    "xglm": {"ffn_dim": 96, "dropout": 0.0},
}

MIXTURES: dict[str, dict[str, Any]] = {
    "afmoe": SLIDES_THRICE
    | EXPERTS
    | {"num_dense_layers": 1, "num_shared_experts": 1, "mup_enabled": True},
    "aria_text": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
    "dbrx": {
        "d_model": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {
            "hidden_size": 64,
            "ffn_hidden_size": 64,
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "ffn_act_fn": {"name": "silu"},
        },
    },
    "deepseek_v2": LATENT | ROUTED_EXPERTS,
    "deepseek_v3": LATENT
    | ROUTED_EXPERTS
    | {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    "dots1": SLIDES | ROUTED_EXPERTS | {"max_window_layers": 1},
    "ernie4_5_moe": {
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_intermediate_size": 32,
        "moe_num_shared_experts": 1,
    },
    "exaone_moe": SLIDES_THRICE
    | EXPERTS
    | {"num_shared_experts": 1, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "flex_olmo": EXPERTS,
    "glm4_moe": ROUTED_EXPERTS | {"use_qk_norm": True, "rope_parameters": rope(0.5)},
    "glm4_moe_lite": LATENT | ROUTED_EXPERTS | {"mlp_layer_types": ["dense", "sparse"]},
    "glm_moe_dsa": LATENT | ROUTED_EXPERTS | INDEXED | {"mlp_layer_types": ["dense", "sparse"]},
    "gpt_oss": SLIDES | LOCAL_EXPERTS | {"rope_parameters": YARN | {"truncate": False}},
    "granitemoe": LOCAL_EXPERTS | {"attention_multiplier": 0.25},
    "granitemoeshared": LOCAL_EXPERTS
    | {"attention_multiplier": 0.25, "shared_intermediate_size": 32},
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": 2},
    "jetmoe": LOCAL_EXPERTS | {"kv_channels": 16},
    "llama4_text": {
        "num_hidden_layers": 4,
        "layer_types": [CHUNKED, CHUNKED, CHUNKED, FULL],
        "no_rope_layers": [1, 1, 1, 0],
        "moe_layers": [1, 3],
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 96,
        "attention_chunk_size": 32,
        "floor_scale": 16,
        "attn_scale": 0.5,
    },
    "longcat_flash": LATENT
    | {
        "num_layers": 2,
        "num_hidden_layers": 4,
        "ffn_hidden_size": 96,
        "expert_ffn_hidden_size": 32,
        "moe_topk": 2,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
        "head_dim": 8,
    },
    "minimax_m2": LOCAL_EXPERTS | {"rope_parameters": rope(0.5)},
    "mixtral": LOCAL_EXPERTS | {"sliding_window": 24},
    "olmoe": EXPERTS | {"clip_qkv": 2.0},
    "phimoe": LOCAL_EXPERTS
    | {"router_jitter_noise": 0.0, "sliding_window": 24, "attention_bias": True},
    "qwen2_moe": SLIDES
    | EXPERTS
    | {
        "use_sliding_window": True,
        "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [0],
    },
    "qwen3_moe": EXPERTS
    | {"use_sliding_window": True, "sliding_window": 24, "mlp_only_layers": [0]},
    "solar_open": ROUTED_EXPERTS,
}

RECURRENT: dict[str, dict[str, Any]] = {
    "bamba": MAMBA2 | {"attn_layer_indices": [1], "rope_parameters": rope(0.5)},
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 128},
    "falcon_mamba": {"state_size": 8},
    "granitemoehybrid": MAMBA2
    | LOCAL_EXPERTS
    | {
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 32,
        "position_embedding_type": "rope",
        "attention_multiplier": 0.25,
    },
    "granitemoehybrid_nope": MAMBA2
    | LOCAL_EXPERTS
    | {
        "model_type": "granitemoehybrid",
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 32,
        "attention_multiplier": 0.25,
    },
    "jamba": {
        "num_experts": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
    },
    "lfm2": {"layer_types": ["conv", FULL]},
    "lfm2_moe": EXPERTS
    | {
        "num_hidden_layers": 4,
        "layer_types": ["conv", FULL, "conv", FULL],
        "num_dense_layers": 1,
    },
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 4, "head_dim": 32, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    "minimax": LOCAL_EXPERTS
    | {
        "layer_types": LINEAR_THEN_FULL,
        "block_size": 16,
        "rope_parameters": rope(0.5),
    },
    "qwen3_next": DELTA
    | EXPERTS
    | {
        "layer_types": LINEAR_THEN_FULL,
        "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [0],
        "rope_parameters": rope(0.5),
    },
    "qwen3_5_text": DELTA | {"layer_types": LINEAR_THEN_FULL},
    "qwen3_5_moe_text": DELTA
    | EXPERTS
    | {"layer_types": LINEAR_THEN_FULL, "shared_expert_intermediate_size": 32},
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "block_types": ["recurrent", "recurrent", "attention"],
        "lru_width": 64,
        "attention_window_size": 24,
        "logits_soft_cap": 5.0,
        "rope_parameters": rope(0.5),
    },
    "rwkv": {"context_length": 256, "attention_hidden_size": 64},
    "xlstm": {"num_heads": 4, "num_blocks": 2, "chunk_size": 16, "qk_dim_factor": 1.0},
    "zamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 0,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "num_key_value_heads": 4,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 4,
        "mamba_d_state": 16,
        "chunk_size": 16,
        "num_key_value_heads": 4,
        "use_mem_rope": True,
        "adapter_rank": 8,
    },
}

NEWER: dict[str, dict[str, Any]] = {
    "apertus1p5_text": {"rope_parameters": LLAMA3_ROPE},
    "axk1": LATENT | ROUTED_EXPERTS | {"mlp_layer_types": ["dense", "sparse"]},
    "axk2": LATENT | ROUTED_EXPERTS | INDEXED | {"mlp_layer_types": ["dense", "sparse"]},
    "bailing_hybrid": LATENT
    | ROUTED_EXPERTS
    | {
        "layer_types": LINEAR_THEN_FULL,
        "mlp_layer_types": ["dense", "sparse"],
        "num_local_experts": 4,
        "num_mtp_layers": 0,
    },
    "beam": SLIDES
    | EXPERTS
    | {
        "n_group": 1,
        "topk_group": 1,
        "mlp_layer_types": ["dense", "sparse"],
        "final_logit_softcapping": 5.0,
    },
    "cohere2_moe": SLIDES_THRICE
    | EXPERTS
    | {
        "logit_scale": 1.0,
        "num_shared_experts": 1,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "cohere_compass_text": SLIDES_THRICE
    | {
        "logit_scale": 1.0,
        "rope_parameters": {SLIDING: rope() | {"mrope_section": [4, 2, 2]}, FULL: None},
    },
    "deepseek_v32": LATENT | ROUTED_EXPERTS | INDEXED | {"mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v4": ROUTED_EXPERTS
    | {
        "num_hidden_layers": 3,
        "layer_types": [
            SLIDING,
            "compressed_sparse_attention",
            "heavily_compressed_attention",
        ],
        "sliding_window": 24,
        "q_lora_rank": 32,
        "o_lora_rank": 32,
        "o_groups": 2,
        "index_n_heads": 4,
        "index_head_dim": 16,
        "index_topk": 8,
        "hc_mult": 2,
        "num_nextn_predict_layers": 0,
        "num_key_value_heads": 1,
    },
    "dory": SLIDES_THRICE | {"n_input_layers": 1, "n_output_layers": 1, "initializer_range": 0.3},
    "dots3_note_text": LATENT
    | ROUTED_EXPERTS
    | INDEXED
    | {"mlp_layer_types": ["dense", "sparse"], "shared_experts_intermediate_size": 32},
    "exaone": {},
    "flint": SLIDES | EXPERTS | {"shared_expert_intermediate_size": 32, "mlp_only_layers": [0]},
    "gemma4_text": SLIDES
    | {
        "num_hidden_layers": 4,
        "layer_types": [SLIDING, FULL, SLIDING, FULL],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "global_head_dim": 32,
        "final_logit_softcapping": 5.0,
    },
    "granite_swa": SLIDES | {"attention_multiplier": 0.25},
    "granitemoe_swa": SLIDES | LOCAL_EXPERTS | {"attention_multiplier": 0.25},
    "hrm_text": {
        "num_hidden_layers": 1,
        "H_cycles": 1,
        "L_cycles": 2,
        "prefix_lm": False,
        "embedding_scale": 1.0,
    },
    "hy_v3": EXPERTS | {"num_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"]},
    "hy_v4": LATENT | ROUTED_EXPERTS | INDEXED | {"mlp_layer_types": ["dense", "sparse"]},
    "hyperclovax": {"attention_multiplier": 0.25},
    "inkling_text": ROUTED_EXPERTS
    | {
        "layer_types": ["hybrid_sliding", "hybrid"],
        "sliding_window_size": 24,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 16,
        "rel_extent": 64,
        "mlp_layer_types": ["dense", "sparse"],
        "logits_mup_width_multiplier": 1.0,
    },
    "internlm3": {},
    "iquestcoder": {},
    "kimi_linear": LATENT
    | ROUTED_EXPERTS
    | {
        "layer_types": LINEAR_THEN_FULL,
        "mlp_layer_types": ["dense", "sparse"],
        "num_local_experts": 4,
        "linear_head_dim": 16,
        "linear_num_heads": 4,
    },
    "kolibri1": SLIDES | EXPERTS | {"shared_expert_intermediate_size": 32},
    "laguna": SLIDES
    | EXPERTS
    | {"shared_expert_intermediate_size": 32, "mlp_layer_types": ["dense", "sparse"]},
    "lara_mini": DELTA
    | EXPERTS
    | {
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", SLIDING, FULL],
        "sliding_window": 24,
        "shared_expert_intermediate_size": 32,
    },
    "lfm3": {
        "num_hidden_layers": 3,
        "layer_types": ["conv", SLIDING, FULL],
        "sliding_window": 24,
    },
    "mellum": SLIDES | EXPERTS | {"mlp_layer_types": ["dense", "sparse"]},
    "mimo_v2_flash": SLIDES
    | ROUTED_EXPERTS
    | {"v_head_dim": 8, "mlp_layer_types": ["dense", "sparse"]},
    "minicpm3": LATENT | {"dim_model_base": 64, "scale_emb": 1},
    "minimax_m3_vl_text": LOCAL_EXPERTS
    | {
        "rotary_dim": 8,
        "dense_intermediate_size": 96,
        "shared_intermediate_size": 32,
        "mlp_layer_types": ["dense", "sparse"],
        "index_n_heads": 2,
        "index_head_dim": 16,
        "index_block_size": 8,
        "index_topk_blocks": 2,
    },
    "nemotron_h": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "attention", "moe", "mlp"],
        "use_mamba_kernels": False,
        "ssm_state_size": 16,
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "n_groups": 2,
        "chunk_size": 16,
        "n_routed_experts": 4,
        "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 32,
    },
    "olmo_hybrid": DELTA | {"layer_types": LINEAR_THEN_FULL},
    "qwen4_exp_text": DELTA
    | EXPERTS
    | {
        "layer_types": LINEAR_THEN_FULL,
        "shared_expert_intermediate_size": 32,
        "hc_count": 2,
        "hc_lowrank": 16,
        "ngram_vocab_size_base": 97,
        "heads_per_ngram": 2,
        "split_ngram_parts": 1,
        "ple_layer_ids": [1],
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 24,
        "indexer_compress_ratio": 4,
        "rope_parameters": rope(0.5),
    },
    "sarvam_mla": LATENT | ROUTED_EXPERTS | {"q_lora_rank": None},
    "sarvam_moe": ROUTED_EXPERTS,
    "zaya": EXPERTS | {"num_experts_per_tok": 1, "router_hidden_size": 32},
}

FAMILIES: dict[str, dict[str, Any]] = DENSE | OLDER | MIXTURES | RECURRENT | NEWER


def model_type(name: str) -> str:
    """A row's name is its model type, unless the row names another."""
    kind: str = FAMILIES[name].get("model_type", name)
    return kind


def known() -> list[str]:
    """Families that the installed transformers has."""
    return [name for name in FAMILIES if model_type(name) in CONFIG_MAPPING]


# What a recurrence starts from is a matter of stability, not of size.
RECURRENCES = ("A_log", "D", "dt_bias", "dt_proj", "conv1d", "rg_lru", "time_decay", "time_first")
GAIN = 1.4  # attention's logits come out with a standard deviation of 1 to 3
GAINS = {"nemotron": 0.7}  # its norms double


def refill(model: nn.Module, gain: float) -> None:
    """Fill every parameter anew but norms, scales and recurrences, so none is zero or unset."""
    generator = torch.Generator().manual_seed(0)
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        is_norm = "norm" in type(owners[owner]).__name__.lower() and leaf == "weight"
        is_scale = parameter.dim() == 1 and bool((parameter == 1).all())
        is_recurrence = any(part in RECURRENCES for part in name.split(".")) and bool(
            parameter.any()
        )
        if is_norm or is_scale or is_recurrence:
            continue
        fan_in = parameter.shape[0 if type(owners[owner]).__name__ == "Conv1D" else -1]
        std = gain / fan_in**0.5 if parameter.dim() > 1 else 0.3
        parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def config(name: str) -> Any:
    """Return the family's configuration."""
    given = COMMON | FAMILIES[name] | {"model_type": None}
    options = {key: value for key, value in given.items() if value is not None}
    return AutoConfig.for_model(model_type(name), **options)


@torch.no_grad()
def build(name: str) -> Any:
    """Return the family's model in float32, for inference only; the same each time."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(name), dtype=torch.float32).eval()
    model.requires_grad_(False)
    refill(model, GAINS.get(name, GAIN))
    return model


def tokens(n: int, seed: int = 0) -> Tensor:
    """Return n random tokens of the vocabulary, none of them special, as (1, n)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, VOCABULARY, (1, n), generator=generator)
