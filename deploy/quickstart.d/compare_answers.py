# SPDX-License-Identifier: Apache-2.0
"""Asks base and tuned model the same questions and prints their answers side by side.

    compare_answers.py JOB QUESTIONS DATA MIN_TUNED -- MFTCTL...

QUESTIONS has one question a line; DATA has the conversations with their answers. Exit 1 if the tuned model gives fewer
than MIN_TUNED answers word for word, or the base model gives any.
"""

import json
import subprocess
import sys
import textwrap

COLUMN = 46
ANSWER_TIMEOUT_S = 60


def expected_answers(path):
    """Question -> answer, of the conversations with one turn and nothing else."""
    answers = {}
    with open(path, encoding="utf-8") as file:
        for sample in map(json.loads, file):
            messages = sample["messages"]
            if [message["role"] for message in messages] == ["user", "assistant"]:
                answers[messages[0]["content"]] = messages[1]["content"]
    return answers


def ask(mftctl, job, question, base):
    command = [*mftctl, "chat", job, "--max-tokens", "64", *(["--base"] if base else []), question]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace").strip()


def printable(text, limit):
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return text if len(text) <= limit else text[:limit - 3] + "..."


def show(question, base, tuned, right):
    print(f"\n  {question}")
    left = textwrap.wrap(printable(base, 2 * COLUMN), COLUMN) or [""]
    other = textwrap.wrap(printable(tuned, 4 * COLUMN), COLUMN) or [""]
    for i in range(max(len(left), len(other))):
        a, b = (lines[i] if i < len(lines) else "" for lines in (left, other))
        print(f"    {a:<{COLUMN}} | {b}" + (f"  [{'right' if right else 'wrong'}]" if i == len(other) - 1 else ""))


def main():
    split = sys.argv.index("--")
    job, questions_path, data_path, min_tuned = sys.argv[1:split]
    mftctl = sys.argv[split + 1:]
    answers = expected_answers(data_path)
    with open(questions_path, encoding="utf-8") as file:
        questions = file.read().splitlines()
    print(f"    {'base model':<{COLUMN}} | tuned model")
    base_right = tuned_right = 0
    for question in questions:
        base, tuned = (ask(mftctl, job, question, base) for base in (True, False))
        base_right += base == answers[question]
        tuned_right += tuned == answers[question]
        show(question, base, tuned, tuned == answers[question])
        sys.stdout.flush()
    print(f"\nword for word: base {base_right} of {len(questions)}, tuned {tuned_right} of {len(questions)}")
    if tuned_right < int(min_tuned) or base_right > 0:
        sys.exit(f"expected at least {min_tuned} right answers of the tuned model and none of the base")


if __name__ == "__main__":
    main()
