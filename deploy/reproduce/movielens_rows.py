#!/usr/bin/env python3
"""Chooses rows of fine-tuning from a mixed-grained file and lets a share of them reason by genres and years.

    movielens_rows.py --rows MIXED.jsonl --items u.item --count 3000 --share 0.5 --out ROWS.jsonl

The reasoning is a rule over the films of the history alone: their most frequent genres and their years. It knows neither the
target nor the candidates. Reads the rows that `podium-curator mix` writes and the file u.item of MovieLens-100K.
"""

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path

# The last columns of u.item, in their order; the first is "unknown".
GENRES = ("", "action", "adventure", "animation", "children's", "comedy", "crime", "documentary", "drama", "fantasy",
          "film noir", "horror", "musical", "mystery", "romance", "science fiction", "thriller", "war", "western")


def films(path):
    """Genres and year of each film, by item id."""
    found = {}
    for line in path.read_text("latin-1").splitlines():
        fields = line.split("|")
        genres = [name for name, flag in zip(GENRES, fields[-len(GENRES):], strict=True) if flag == "1" and name]
        year = re.search(r"\((\d{4})\)\s*$", fields[1])
        found[int(fields[0])] = genres, int(year[1]) if year else None
    return found


def reasoning(history, known):
    """Two sentences about the films of a history, oldest first."""
    genres = Counter(genre for item in history for genre in known[item][0])
    recent = Counter(genre for item in history[-3:] for genre in known[item][0])
    years = sorted(known[item][1] for item in history if known[item][1])
    names = [name for name, _ in genres.most_common(3)]
    lately = [name for name, _ in recent.most_common(2)]
    text = f"The films are mostly {listed(names)}" if names else "The films have no genre in common"
    if years:
        text += f", from {years[len(years) // 4]} to {years[3 * len(years) // 4]}"
    return text + (f". The last ones are {listed(lately)}, so another of these is likely." if lately else ".")


def listed(names):
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    known, draw = films(arguments.items), random.Random(0)
    with arguments.rows.open() as file:
        lines = file.readlines()
    chosen = draw.sample(lines, min(arguments.count, len(lines)))
    partial = arguments.out.with_suffix(".partial")
    with partial.open("w") as out:
        for line in chosen:
            row = json.loads(line)
            if draw.random() < arguments.share:
                row["kind"] = "reasoned"
                row["completion"] = f"<think>\n{reasoning(row['history'], known)}\n</think>\n\n{row['completion']}"
            out.write(json.dumps(row) + "\n")
    partial.rename(arguments.out)


if __name__ == "__main__":
    main()
