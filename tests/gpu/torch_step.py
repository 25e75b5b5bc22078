# SPDX-License-Identifier: Apache-2.0
"""The Mistral and the LoRA of peft_step.py in PyTorch's own modules, operation by operation as transformers and PEFT
compute them, for a machine that has neither."""

import torch
from torch import nn
from torch.nn import functional

RANK, SCALING = 16, 2.0


class LoraLinear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.base = nn.Linear(inputs, outputs, bias=False)
        self.base.weight.requires_grad_(False)
        self.lora_A = nn.Linear(inputs, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, outputs, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x)) * SCALING


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim), requires_grad=False)
        self.eps = eps

    def forward(self, x):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotated(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Block(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.head_dim = p["head_dim"]
        queries, keys = p["n_heads"] * p["head_dim"], p["n_kv_heads"] * p["head_dim"]
        self.q, self.k, self.v = LoraLinear(p["dim"], queries), LoraLinear(p["dim"], keys), LoraLinear(p["dim"], keys)
        self.o = LoraLinear(queries, p["dim"])
        self.gate, self.up = LoraLinear(p["dim"], p["hidden_dim"]), LoraLinear(p["dim"], p["hidden_dim"])
        self.down = LoraLinear(p["hidden_dim"], p["dim"])
        self.attention_norm, self.mlp_norm = RmsNorm(p["dim"], p["norm_eps"]), RmsNorm(p["dim"], p["norm_eps"])

    def forward(self, x, cos, sin):
        h = self.attention_norm(x)
        q, k, v = (linear(h).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for linear in (self.q, self.k, self.v))
        attended = functional.scaled_dot_product_attention(
            rotated(q, cos, sin), rotated(k, cos, sin), v, is_causal=True, enable_gqa=True)
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        h = self.mlp_norm(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


class Mistral(nn.Module):
    """Called as transformers' model is: (input_ids, labels) -> something with a loss."""

    def __init__(self, p):
        super().__init__()
        self.params = p
        self.embeddings = nn.Embedding(p["vocab_size"], p["dim"])
        self.blocks = nn.ModuleList(Block(p) for _ in range(p["n_layers"]))
        self.norm = RmsNorm(p["dim"], p["norm_eps"])
        self.head = nn.Linear(p["dim"], p["vocab_size"], bias=False)
        for frozen in (self.embeddings, self.head):
            frozen.weight.requires_grad_(False)
        for parameter in self.parameters():  # as transformers', so that losses are finite
            if parameter.dim() == 2 and not parameter.requires_grad:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, input_ids, labels):
        x = self.embeddings(input_ids)
        half = torch.arange(0, self.params["head_dim"], 2, device=x.device, dtype=torch.float32) / self.params["head_dim"]
        angles = torch.arange(input_ids.shape[1], device=x.device, dtype=torch.float32)[:, None] * self.params["rope_theta"] ** -half
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        logits = self.head(self.norm(x)).float()
        self.loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return self
