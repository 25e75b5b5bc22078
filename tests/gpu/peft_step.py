# SPDX-License-Identifier: Apache-2.0
"""Training steps of PEFT and transformers on the GPU, random weights: peft_step.py PARAMS_JSON BATCH TOKENS.
Prints one JSON object. bf16 with bf16 adapters, sdpa attention, no gradient checkpointing, the largest batch that fits
of BATCH, BATCH / 2, ..., several batches a step until it has 32 documents."""

import json
import sys
import time

import peft
import torch
import transformers

DOCUMENTS = 32
ROUNDS = 3


def make_model(params):
    config = transformers.MistralConfig(
        vocab_size=params["vocab_size"], hidden_size=params["dim"], intermediate_size=params["hidden_dim"],
        num_hidden_layers=params["n_layers"], num_attention_heads=params["n_heads"], head_dim=params["head_dim"],
        num_key_value_heads=params["n_kv_heads"], rms_norm_eps=params["norm_eps"], rope_theta=params["rope_theta"],
        sliding_window=None, use_cache=False, attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.MistralForCausalLM(config)
    lora = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    model = peft.get_peft_model(model, lora, autocast_adapter_dtype=False)
    model.train()
    return model


def step(model, optimizer, ids):
    begin = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    for part in ids:
        (model(input_ids=part, labels=part).loss / len(ids)).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def main():
    params, batch, tokens = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    model = make_model(params)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.1, fused=True)
    while True:
        ids = list(torch.randint(params["vocab_size"], (DOCUMENTS, tokens), device="cuda").split(batch))
        try:
            step(model, optimizer, ids)
            break
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            torch.cuda.empty_cache()
    seconds = sorted(step(model, optimizer, ids) for _ in range(ROUNDS))[ROUNDS // 2]
    print(json.dumps({"tokens_per_second": DOCUMENTS * tokens / seconds, "length_felt": tokens,
                      "peak_bytes": torch.cuda.max_memory_allocated(),
                      "what": f"PEFT {peft.__version__}, transformers {transformers.__version__}, batch {batch}, bf16 adapters"}))


main()
