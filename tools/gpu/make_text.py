#!/usr/bin/env python3
"""Prints a text that a network can learn from, where no corpus is at hand: the same bytes for the same seed.

    make_text.py [CHARACTERS [SEED]]

Lines of a play: speakers in capitals, words of a made-up language with Zipf's frequencies, punctuation, numbers. All
96 characters that keyboards have (95 printable ones and the line break) occur.
"""
import random
import sys

SYLLABLES = "ba be co da el fa gi ho in ka li mo na or pe qui ra sa te un ve wi xa yo ze thr str igh oun ea".split()


def make_text(characters, seed=1):
    rng = random.Random(seed)
    words = ["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4))) for _ in range(4000)]
    weights = [1 / (rank + 2) for rank in range(len(words))]
    speakers = [rng.choice(words).upper() for _ in range(30)]
    parts = ["".join(chr(code) for code in range(32, 127)), "\n"]
    size = len(parts[0]) + 1
    while size < characters:
        lines = [f"{rng.choice(speakers)}:"]
        for _ in range(rng.randint(1, 8)):
            line = " ".join(rng.choices(words, weights, k=rng.randint(4, 9)))
            if rng.random() < 0.05:
                line += f" {rng.randint(1, 1600)}"
            lines.append(line.capitalize() + rng.choice([",", ",", ".", ";", "!", "?"]))
        part = "\n".join(lines) + "\n\n"
        parts.append(part)
        size += len(part)
    return "".join(parts).encode("ascii")[:characters]


if __name__ == "__main__":
    sys.stdout.buffer.write(make_text(*[int(argument) for argument in sys.argv[1:3]] or [2_000_000]))
