# SPDX-License-Identifier: Apache-2.0
"""Training steps with PEFT and transformers in a process of their own: prints one JSON object."""

import argparse
import json
import time

import torch
import transformers
import peft

VOCABULARY = 32000


def status_bytes(field):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))


def load(args):
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, torch_dtype=dtype, attn_implementation=args.attention, low_cpu_mem_usage=True)
    model.config.use_cache = False
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    # bf16 adapters are the faster setting: with fp32 ones every input is converted.
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=args.adapters == "fp32")
    model.train()
    return model


def batches(lengths, size):
    """Sorted by length, so that a batch has little padding; padded on the right, without loss there."""
    lengths = sorted(lengths)
    out = []
    for begin in range(0, len(lengths), size):
        part = lengths[begin:begin + size]
        tokens = torch.randint(VOCABULARY, (len(part), max(part)))
        mask = torch.arange(max(part))[None, :] < torch.tensor(part)[:, None]
        # Without padding no mask is given: attention then takes its causal path.
        out.append((tokens, None if mask.all() else mask.long(), torch.where(mask, tokens, -100), sum(part)))
    return out


def step(model, optimizer, data, tokens):
    begin = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    for ids, mask, labels, count in data:
        (model(input_ids=ids, attention_mask=mask, labels=labels).loss * (count / tokens)).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--adapters", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa", help="eager with a torch before 2.1")
    parser.add_argument("--lengths", required=True, help="file: the tokens of each document of a step")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    with open(args.lengths, encoding="ascii") as file:
        lengths = [int(word) for word in file.read().split()]
    model = load(args)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.1)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
        clear.write("5")  # the peak of training, not of loading
    data = batches(lengths, args.batch)
    tokens = sum(lengths)
    step(model, optimizer, data, tokens)
    peak = status_bytes("VmHWM")
    seconds = sorted(step(model, optimizer, data, tokens) for _ in range(args.rounds))
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    a, b = torch.rand(2048, 2048).to(dtype), torch.rand(2048, 2048).to(dtype)
    best = 0.0
    for _ in range(4):
        begin = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin))
    median = seconds[len(seconds) // 2]
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
                      "seconds": median, "tokens_per_second": tokens / median, "peak_bytes": peak, "matmul_gflops": best / 1e9}))


if __name__ == "__main__":
    main()
