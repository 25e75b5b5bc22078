#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast conversations become tokens, against mistral-common in Python, on the same file in the same run.

  PYTHONPATH=.deps/python /usr/bin/python3 tests/bench/data_encode_bench.py [--megabytes 64] [--tokenizer FILE]...

Both sides read a JSON Lines file, parse and validate every conversation, and make its tokens and loss mask; the Python side as
mistral-finetune does it (json, one pydantic object a message, the version's request validator in finetuning mode, one call of the
instruct tokenizer a message). Best of three runs each; every token and mask is compared.
"""
import argparse
import array
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import chat_data

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / ".deps/mistral_common/data"
SPM_V3 = DATA / "mistral_instruct_tokenizer_240323.model.v3"


class Reference:
    """mistral-finetune's way from a line to tokens and mask, for chats of text."""

    def __init__(self, path):
        from mistral_common.protocol.instruct import messages
        from mistral_common.protocol.instruct.validator import MistralRequestValidatorV3, ValidationMode
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
        self.user, self.assistant = messages.UserMessage, messages.FinetuningAssistantMessage
        self.validator = MistralRequestValidatorV3(ValidationMode.finetuning)
        self.instruct = MistralTokenizer.from_file(str(path)).instruct_tokenizer

    def encode(self, line):
        data = json.loads(line)
        system, messages = None, []
        for message in data["messages"]:
            if message["role"] == "system":
                system = message["content"]
            elif message["role"] == "user":
                messages.append(self.user(content=message["content"]))
            else:
                messages.append(self.assistant(content=message["content"], weight=message.get("weight")))
        self.validator.validate_messages(messages)
        last_user = max(i for i, m in enumerate(messages) if m.role == "user")
        tokens = [self.instruct.BOS]
        mask = [False]
        for i, message in enumerate(messages):
            if message.role == "user":
                added = self.instruct.encode_user_message(message, available_tools=None, is_last=i == last_user, is_first=i == 0,
                                                          system_prompt=system)[0]
            else:
                added = self.instruct.encode_assistant_message(message, is_before_last_user_message=False)
            tokens.extend(added)
            mask.extend([message.role == "assistant" and message.weight != 0] * len(added))
        return tokens, mask


def run_reference(reference, path):
    begin, cpu_begin = time.perf_counter(), time.process_time()
    tokens, mask = array.array("i"), bytearray()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            sample_tokens, sample_mask = reference.encode(line)
            tokens.extend(sample_tokens)
            mask.extend(sample_mask)
    return time.perf_counter() - begin, time.process_time() - cpu_begin, tokens.tobytes() + bytes(mask)


def run_ours(program, path, tokenizer, dump):
    out = subprocess.run([str(program), str(path), str(tokenizer), "3", str(dump), "1", "2"], check=True, capture_output=True, text=True)
    return {run["threads"]: run for run in map(json.loads, out.stdout.splitlines())}


def compare(arguments, tokenizer, path, size, folder):
    ours = run_ours(arguments.build / "tests/data_encode_bench", path, tokenizer, folder / "dump")
    reference = Reference(tokenizer)
    runs = [run_reference(reference, path) for _ in range(3)]
    seconds, cpu = (min(run[i] for run in runs) for i in range(2))
    same = runs[0][2] == (folder / "dump").read_bytes()
    one, two = ours[1]["seconds"], ours[2]["seconds"]
    tokens = ours[1]["tokens"]
    print(f"{tokenizer.name}: {tokens} tokens, {'all identical' if same else 'NOT IDENTICAL'}")
    print(f"  mistral-common in Python   {seconds:8.3f} s  {size / seconds / 1e6:7.2f} MB/s  {tokens / seconds / 1e6:6.2f} Mtokens/s")
    print(f"  mft-data, 1 thread         {one:8.3f} s  {size / one / 1e6:7.2f} MB/s  {tokens / one / 1e6:6.2f} Mtokens/s"
          f"  {seconds / one:6.1f} x Python ({cpu / ours[1]['cpu_seconds']:.1f} x by CPU time)")
    print(f"  mft-data, 2 threads        {two:8.3f} s  {size / two / 1e6:7.2f} MB/s  {tokens / two / 1e6:6.2f} Mtokens/s"
          f"  {one / two:6.2f} x 1 thread")
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokenizer", type=pathlib.Path, action="append")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "chats.jsonl"
        size, count = chat_data.write(path, SPM_V3, arguments.megabytes, arguments.seed)
        print(f"{count} synthetic conversations (seed {arguments.seed}), {size / 1e6:.1f} MB JSON Lines; read, parsed, validated and encoded,"
              " best of 3")
        same = [compare(arguments, tokenizer, path, size, pathlib.Path(folder))
                for tokenizer in arguments.tokenizer or [SPM_V3, DATA / "tekken_240718.json"]]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
