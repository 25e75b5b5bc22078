#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random conversations and strings through mft-data and through Mistral's own library: prints the number of differences, exits 1 on any.

    PYTHONPATH=.deps/python /usr/bin/python3 tests/oracle/random_tokens.py --bin build/release/bin [--count 10000] [--seed N] [--tokenizer spm-v3 ...]

Conversations are encoded message by message with the encoder of the tokenizer's version, and masked, as tests/fixtures/data was
(deploy/setup --tests brings the library)."""
import argparse
import json
import pathlib
import random
import shutil
import string
import subprocess
import sys
import tempfile

import mistral_common
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ModelSettings
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool, ToolCall
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

DATA = pathlib.Path(mistral_common.__file__).parent / "data"
SHIPPED = {
    "spm-v1": "tokenizer.model.v1",
    "spm-v2": "mistral_instruct_tokenizer_240216.model.v2",
    "spm-v3": "mistral_instruct_tokenizer_240323.model.v3",
    "spm-v7": "mistral_instruct_tokenizer_241114.model.v7",
    "tekken-v3": "tekken_240718.json",
}
DERIVED = ["tekken-v7", "tekken-v11", "tekken-v13", "tekken-v15"]
SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]",
           "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
LATER_SPECIAL = {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]", 36: "[MODEL_SETTINGS]", 37: "[/MODEL_SETTINGS]"}


def tokenizer_file(name, folder):
    """The file of a tokenizer; Tekken files later than v3 are in no package and are derived from it."""
    if name in SHIPPED:
        target = folder / ("tekken.json" if name.startswith("tekken") else f"tokenizer.model.{name[4:]}")
        shutil.copyfile(DATA / SHIPPED[name], target)
        return target
    version = name.split("-")[1]
    document = json.loads((DATA / SHIPPED["tekken-v3"]).read_text())
    document["config"]["version"] = version
    if version != "v7":
        names = [SPECIAL[i] if i < len(SPECIAL) else LATER_SPECIAL.get(i, f"<SPECIAL_{i}>") for i in range(40)]
        document["special_tokens"] = [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(names)]
    if version == "v15":
        document["model_settings_builder"] = {"reasoning_effort": {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}}
    target = folder / "tekken.json"
    target.write_text(json.dumps(document))
    return target


class Randomness:
    """Texts and conversations that mistral-finetune accepts."""

    WORDS = ("the of and to in model adapter Paris naïve über façade 東京 こんにちは привет مرحبا שלום ไทย हिन्दी 한국어 ﬁne ½ Ⅷ ǅungla ʰat e\u0301 a\u0308\u0323 🙂 👩‍👩‍👧 🇫🇷 "
             "[INST] [/INST] </s> <s> [TOOL_CALLS] [REF] [REFERENCE_DOC_3] <0x0A> ▁ ▁▁x http://a.b/c?d=1&e=2 {\"a\":1} it's don't I'LL x² 3.14 0x1F 1,000").split(" ")
    SPACES = [" ", " ", " ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "", "\u200b", "\ufeff"]
    RANGES = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x206F), (0x20A0, 0x2BFF),
              (0x2E80, 0xA48F), (0xA490, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x1FFFF), (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0x100000, 0x10FFFF), (0x00, 0x1F)]

    def __init__(self, seed):
        self.r = random.Random(seed)

    def text(self, words=12):
        r, parts = self.r, []
        for _ in range(r.randrange(words + 1)):
            kind = r.random()
            if kind < 0.55:
                parts.append(r.choice(self.WORDS))
            elif kind < 0.7:
                parts.append("".join(r.choice(string.ascii_letters + "'-/.") for _ in range(r.randrange(1, 14))))
            elif kind < 0.8:
                parts.append(str(r.randrange(10 ** r.randrange(1, 12))))
            elif kind < 0.85:
                parts.append(r.choice("abAB=-#é中 .\n") * r.randrange(1, 200))
            else:
                low, high = r.choice(self.RANGES)
                parts.append("".join(chr(r.randint(low, high)) for _ in range(r.randrange(1, 8))))
            parts.append(r.choice(self.SPACES))
        return "".join(parts)

    def value(self, depth=0):
        r = self.r
        kind = r.randrange(9 if depth < 3 else 7)
        if kind == 0:
            return r.choice([None, True, False])
        if kind == 1:
            return r.choice([0, -1, r.randrange(10 ** 20), -r.randrange(1000)])
        if kind == 2:
            return r.choice([0.1, 1.0, 1e5, 1e16, 1e-5, 123456789.125, -2.5e-7, r.random(), r.uniform(-1e9, 1e9)])
        if kind < 7:
            return self.text(4)
        if kind == 7:
            return [self.value(depth + 1) for _ in range(r.randrange(4))]
        return {self.name(): self.value(depth + 1) for _ in range(r.randrange(4))}

    def json_text(self):
        """JSON as people write it, or no JSON at all."""
        r = self.r
        kind = r.random()
        if kind < 0.1:
            return self.text(6)
        separators = r.choice([(",", ":"), (", ", ": "), (" , ", " : "), (",\n  ", ": ")])
        text = json.dumps({self.name(): self.value() for _ in range(r.randrange(4))} if kind < 0.8 else self.value(),
                          ensure_ascii=r.random() < 0.5, separators=separators)
        return r.choice(["", " ", "\n"]) + text + r.choice(["", " ", "\n\t"])

    def name(self):
        return "".join(self.r.choice(string.ascii_letters + string.digits + "_-") for _ in range(self.r.randrange(1, 16)))

    def id(self):
        return "".join(self.r.choice(string.ascii_letters + string.digits) for _ in range(9))

    def some_text(self):
        return self.text() or "x"

    def sample(self):
        """One line of a chat file."""
        r = self.r
        sample, messages = {}, []
        if r.random() < 0.4:
            if r.random() < 0.5:
                sample["system_prompt"] = self.text()
            else:
                messages.append({"role": "system", "content": self.text()})
        tools = r.random() < 0.4
        if tools and r.random() < 0.8:
            key = r.choice(["tools", "available_tools"])
            sample[key] = [{"type": "function", "function": {"name": self.name(), "description": self.text(5), "parameters": {"type": "object", "properties": {self.name(): {"type": "string", "description": self.text(3)}}}}}
                           for _ in range(r.randrange(0 if key == "tools" else 1, 3))]
        if r.random() < 0.3:
            sample["only_last"] = r.random() < 0.5
        for turn in range(turns := r.randrange(1, 4)):
            messages.append({"role": "user", "content": self.text()})
            if tools and r.random() < 0.6:
                calls = [{"id": self.id(), "type": "function", "function": {"name": self.name(), "arguments": self.json_text()}} for _ in range(r.randrange(1, 4))]
                messages.append({"role": "assistant", "tool_calls": calls})
                if turn + 1 == turns and r.random() < 0.3:
                    break
                for call in calls:
                    messages.append({"role": "tool", "content": self.json_text() if r.random() < 0.7 else self.some_text(), "tool_call_id": call["id"],
                                     **({"name": call["function"]["name"]} if r.random() < 0.5 else {})})
            answer = {"role": "assistant", "content": self.some_text() + r.choice(["", " ", "   ", "\n", " \n"])}
            if r.random() < 0.2:
                answer["weight"] = r.choice([0, 1])
            messages.append(answer)
        sample[r.choice(["messages", "messages", "interactions"])] = messages
        return sample


def oracle_tokens(tokenizer, version, sample):
    """Tokens and mask, or the class of the library's error."""
    encoder = tokenizer.instruct_tokenizer
    messages = sample.get("messages") or sample.get("interactions")
    system = sample.get("system_prompt")
    for message in messages:
        if message["role"] == "system":
            system = message["content"]
    messages = [m for m in messages if m["role"] != "system"]
    raw_tools = sample.get("tools", sample.get("available_tools"))
    tools = [Tool(function=Function(**t["function"])) for t in raw_tools] if raw_tools else None
    only_last = sample.get("only_last", False) or "available_tools" in sample or bool(raw_tools)
    users = [i for i, m in enumerate(messages) if m["role"] == "user"]
    tokens = encoder.start()
    if system is not None and version >= 7:
        tokens = tokens + encoder.encode_system_message(SystemMessage(content=system))[0]
    mask = [0] * len(tokens)
    for i, message in enumerate(messages):
        last = i + 1 == len(messages)
        before_last_user = bool(users) and i < users[-1]
        trains = False
        if message["role"] == "user":
            settings = {"settings": ModelSettings(reasoning_effort="none")} if version >= 15 else {}
            new, _, _ = encoder.encode_user_message(UserMessage(content=message["content"]), tools, i == users[-1], i == users[0], system if version < 7 else None, **settings)
        elif message["role"] == "tool":
            new = encoder.encode_tool_message(ToolMessage(content=message["content"], tool_call_id=message["tool_call_id"], name=message.get("name")), before_last_user)
            new = new[0] if isinstance(new, tuple) else new
        else:
            keep_id = not last or version >= 13  # v13 never writes it and insists on it
            calls = [ToolCall(id=c["id"] if keep_id else "null", function=FunctionCall(**c["function"])) for c in message.get("tool_calls", [])]
            new = encoder.encode_assistant_message(AssistantMessage(content=message.get("content"), tool_calls=calls or None), before_last_user)
            trains = message.get("weight", 1) != 0 and (last or not only_last)
        tokens = tokens + new
        mask += [int(trains)] * len(new)
    return {"tokens": tokens, "mask": mask}


def mft_lines(program, arguments, lines):
    run = subprocess.run([program, *arguments], input="".join(line + "\n" for line in lines), capture_output=True, text=True)
    out = [json.loads(line) for line in run.stdout.split("\n") if line]
    if len(out) != len(lines):
        sys.exit(f"{program} {' '.join(arguments)} answered {len(out)} of {len(lines)} lines and exited with {run.returncode}: {run.stderr[-2000:]}")
    return out


def check(name, arguments, folder):
    path = tokenizer_file(name, folder)
    version = int(name.split("-v")[1])
    library = MistralTokenizer.from_file(str(path))
    raw = library.instruct_tokenizer.tokenizer
    randomness = Randomness(f"{arguments.seed} {name}")
    texts = [randomness.text(30) for _ in range(arguments.count)]
    samples = [randomness.sample() for _ in range(arguments.count)]
    program = str(arguments.bin / "mft-data")
    differences, refused = [], 0
    ours = mft_lines(program, ["encode", "--raw", "--tokenizer", str(path)], [json.dumps(t) for t in texts])
    for text, got in zip(texts, ours):
        wanted = raw.encode(text, bos=False, eos=False)
        if got.get("tokens") != wanted:
            differences.append(("text", text, wanted, got))
    decoded = mft_lines(program, ["decode", "--tokenizer", str(path)], [json.dumps({"tokens": line.get("tokens", [])}) for line in ours])
    for line, got in zip(ours, decoded):
        wanted = raw.decode(line.get("tokens", []))
        if got != wanted:
            differences.append(("decode", line, wanted, got))
    ours = mft_lines(program, ["encode", "--tokenizer", str(path)], [json.dumps(s) for s in samples])
    for sample, got in zip(samples, ours):
        try:
            wanted = oracle_tokens(library, version, sample)
        except Exception as error:  # the library's classes have no common base
            refused += 1
            if "error" not in got:
                differences.append(("chat", sample, repr(error), got))
            continue
        if {"tokens": got.get("tokens"), "mask": got.get("mask")} != wanted:
            differences.append(("chat", sample, wanted, got))
    for kind, given, wanted, got in differences[:arguments.show]:
        print(f"{name}: {kind}\n  given  {given!r}\n  wanted {wanted!r}\n  got    {got!r}")
    print(f"{name}: {len(texts)} strings, {len(samples)} conversations ({refused} refused by both), seed {arguments.seed}: {len(differences)} differences", flush=True)
    return len(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder of mft-data")
    parser.add_argument("--count", type=int, default=10_000, help="strings, and conversations, per tokenizer")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2 ** 32))
    parser.add_argument("--tokenizer", nargs="*", choices=[*SHIPPED, *DERIVED], default=[*SHIPPED, *DERIVED])
    parser.add_argument("--show", type=int, default=3, help="differences shown per tokenizer")
    arguments = parser.parse_args()
    total = 0
    for name in arguments.tokenizer:
        with tempfile.TemporaryDirectory() as folder:
            total += check(name, arguments, pathlib.Path(folder))
    print(f"{total} differences")
    return 1 if total else 0


sys.exit(main())
