# SPDX-License-Identifier: Apache-2.0
"""Synthetic chat data for the benchmarks: the same bytes for the same seed, on any machine.

Words are drawn from 60,000 word types by Zipf's law (exponent 1.08), made of the pieces of a SentencePiece vocabulary: the frequent
ones are a piece, the rare ones two to four. Sentences, paragraphs, lists, numbers, code and 2 % of other scripts around them;
conversations of 2 to 8 messages with log-normal lengths, about 900 tokens on average; one in three has a system prompt.
"""
import json
import random

WORD_TYPES = 60_000
SPACE = "\u2581"
OTHERS = ["naïve café", "Grüße aus Köln", "¿Qué tal, señor?", "привет, как дела", "добрый день", "你好,世界", "ありがとうございます", "مرحبا بالعالم",
          "한국어 문장", "🙂", "🚀 ✅", "→ “quoted” — dash", "α + β ≤ γ"]
CODE = ["```python\ndef {0}({1}, n=0):\n    for i in range(n):\n        {1}[i] += {0}({1}[i - 1])\n    return {1}\n```",
        "```c\nint {0}(const char *{1}) {{\n\treturn {1} != NULL && {1}[0] == '\\0';\n}}\n```",
        "{{\"{0}\": [1, 2.5, null], \"{1}\": \"https://example.org/{0}?q={1}\"}}"]


def pieces(model_path):
    """The lower-case ASCII pieces of a SentencePiece model, in its order: (beginnings of words, continuations)."""
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    all_pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    ascii_words = [p for p in all_pieces if p.lstrip(SPACE).isascii() and p.lstrip(SPACE).isalpha() and p.islower()]
    return [p[1:] for p in ascii_words if p.startswith(SPACE)], [p for p in ascii_words if not p.startswith(SPACE)]


class Text:
    def __init__(self, model_path, seed):
        self.random = random.Random(seed)
        begins, continues = pieces(model_path)
        word_random = random.Random(1)
        self.words = [w for w in begins if len(w) > 1 or w in "ai"]
        while len(self.words) < WORD_TYPES:
            self.words.append(word_random.choice(begins) + "".join(word_random.choices(continues, k=word_random.choice((1, 1, 2, 3)))))
        weights = [1 / (rank + 2.7) ** 1.08 for rank in range(WORD_TYPES)]
        self.cumulative = [0.0]
        for weight in weights[:-1]:
            self.cumulative.append(self.cumulative[-1] + weight)
        self.cumulative = self.cumulative[1:] + [self.cumulative[-1] + weights[-1]]

    def sentence(self):
        r = self.random
        words = r.choices(self.words, cum_weights=self.cumulative, k=r.randint(5, 24))
        words[0] = words[0].capitalize()
        for i in range(1, len(words)):
            kind = r.random()
            if kind < 0.08:
                words[i - 1] += ","
            elif kind < 0.10:
                words[i] = words[i].capitalize()
            elif kind < 0.115:
                words[i] = str(r.randint(0, 10 ** r.randint(1, 5)))
            elif kind < 0.125:
                words[i] = r.choice(("({})", "\"{}\"", "*{}*", "`{}`", "{}'s")).format(words[i])
            elif kind < 0.127:
                words[i] = r.choice(OTHERS)
        return " ".join(words) + r.choice("....?!:")

    def paragraph(self, sentences):
        r = self.random
        kind = r.random()
        if kind < 0.03:
            return r.choice(CODE).format(*r.choices(self.words[:5000], k=2))
        if kind < 0.12:
            return "\n".join(f"{i + 1}. {self.sentence()}" for i in range(sentences))
        return " ".join(self.sentence() for _ in range(sentences))

    def message(self, sentences):
        r = self.random
        parts = []
        while sentences > 0:
            n = min(sentences, r.randint(1, 6))
            parts.append(self.paragraph(n))
            sentences -= n
        return "\n\n".join(parts)

    def conversation(self):
        r = self.random
        sentences = max(2, int(r.lognormvariate(3.45, 0.6)))
        turns = r.randint(1, 4)
        messages = []
        if r.random() < 1 / 3:
            messages.append({"role": "system", "content": self.message(2)})
        for _ in range(turns):
            messages.append({"role": "user", "content": self.message(max(1, sentences // turns // 5))})
            messages.append({"role": "assistant", "content": self.message(max(1, sentences // turns * 4 // 5))})
        return {"messages": messages}


def write(path, model_path, megabytes, seed):
    """Writes at least that many MB of JSON Lines; returns (bytes, conversations)."""
    text = Text(model_path, seed)
    size = count = 0
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        while size < megabytes * 1_000_000:
            line = json.dumps(text.conversation(), ensure_ascii=count % 2 == 0) + "\n"
            size += len(line.encode())
            count += 1
            out.write(line)
    return size, count
