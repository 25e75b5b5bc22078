# SPDX-License-Identifier: Apache-2.0
"""Training steps of PEFT and transformers, random weights: peft_step.py cuda|cpu PARAMS_JSON BATCH TOKENS. Where they are
not installed, of the same model in plain PyTorch (torch_step.py), and says so.
Prints one JSON object. bf16 with bf16 adapters of rank 16 on all seven projections, sdpa attention, no gradient
checkpointing, the largest batch that fits of BATCH, BATCH / 2, ..., several batches a step until it has 32 documents,
every token with loss: what `mft-worker bench --documents 32 --document-tokens TOKENS --recompute nothing` does."""

import json
import sys
import time

import torch

try:
    import peft
    import transformers
except ImportError as error:
    peft, missing = None, str(error)

DOCUMENTS = 32
ROUNDS = 3


def make_model(params, device):
    torch.set_default_dtype(torch.bfloat16)
    if peft is None:
        import torch_step
        with torch.device(device):
            model = torch_step.Mistral(params)
    else:
        model = make_peft_model(params, device)
        base = model.get_base_model()
        assert not any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
        assert base.config._attn_implementation == "sdpa", base.config._attn_implementation
        assert base.config.sliding_window is None and base.config.head_dim == params["head_dim"]
    model.train()
    check(model, params)
    return model


def make_peft_model(params, device):
    config = transformers.MistralConfig(
        vocab_size=params["vocab_size"], hidden_size=params["dim"], intermediate_size=params["hidden_dim"],
        num_hidden_layers=params["n_layers"], num_attention_heads=params["n_heads"], head_dim=params["head_dim"],
        num_key_value_heads=params["n_kv_heads"], rms_norm_eps=params["norm_eps"],
        max_position_embeddings=32768, sliding_window=None, use_cache=False, attn_implementation="sdpa")
    with torch.device(device):
        model = transformers.MistralForCausalLM(config)
    lora = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    return peft.get_peft_model(model, lora, autocast_adapter_dtype=False)


def check(model, params):
    """That it is the step it says it is."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * params["n_layers"] and all("lora_" in name for name in trained), sorted(trained)[:9]
    kinds = {(p.dtype, p.device.type) for p in model.parameters()}
    assert len(kinds) == 1 and next(iter(kinds))[0] is torch.bfloat16, kinds


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def step(model, optimizer, ids, device):
    """Seconds, and the mean loss."""
    wait(device)
    begin = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for part in ids:
        loss = model(input_ids=part, labels=part).loss / len(ids)
        loss.backward()
        losses.append(loss.detach())
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    wait(device)
    return time.perf_counter() - begin, float(sum(losses))


def largest_batch(model, optimizer, vocabulary, tokens, batch, device):
    """The documents in batches that fit, after one step of them."""
    while True:
        ids = list(torch.randint(vocabulary, (DOCUMENTS, tokens), device=device).split(batch))
        try:
            step(model, optimizer, ids, device)
            return batch, ids
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                raise
        # Not within `except`, whose traceback holds what the step had.
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        batch //= 2


def main():
    device, params, batch, tokens = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    model = make_model(params, device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.1,
                                  fused=device == "cuda")
    batch, ids = largest_batch(model, optimizer, params["vocab_size"], tokens, batch, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rounds = [step(model, optimizer, ids, device) for _ in range(ROUNDS)]
    seconds = sorted(round[0] for round in rounds)[ROUNDS // 2]
    what = (f"plain PyTorch, since {missing}" if peft is None else
            f"PEFT {peft.__version__}, transformers {transformers.__version__}")
    print(json.dumps({"tokens_per_second": DOCUMENTS * tokens / seconds, "length_felt": tokens,
                      "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
                      "loss": rounds[-1][1], "batch": batch,
                      "what": f"{what}, torch {torch.__version__}, batch {batch}, sdpa, bf16 adapters, nothing recomputed"}))


main()
