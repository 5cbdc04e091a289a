"""Recomputes an evaluation from its recorded lists, and trained baselines from their scores, with numpy alone.

    python metrics.py --results DIR --baselines DIR --data DIR --name NAME --out FILE

--results is the folder with lists.jsonl and evaluation.json, --baselines the folder of trained baselines, --data and
--name the data set. Writes JSON with the number of compared values and the largest differences; the caller decides
about tolerances. Nothing of Podium's code is used.
"""

import argparse
import csv
import json
import pathlib
import re
from collections import defaultdict

import numpy as np


def metric_value(name, k, rank):
    """The value of HR, NDCG or MRR for one list; rank is None if the target is not ranked."""
    if rank is None or (k is not None and rank > k):
        return 0.0
    return {"HR": 1.0, "NDCG": 1.0 / np.log2(rank + 1.0), "MRR": 1.0 / rank}[name]


def in_slice(line, name):
    """Whether a list belongs to a slice: "all", or the name of a field and its range."""
    if name == "all":
        return True
    field, ends = name.rsplit(" ", 1)
    least, most = ends.split("-")
    return int(least) <= line[field] <= int(most)


def user_means(lines, policy, ranking, name, k):
    """The mean over the candidate samples for each user."""
    values = defaultdict(list)
    for line in lines:
        for ranker in line["rankers"]:
            if (ranker["policy"], ranker["ranking"]) == (policy, ranking):
                values[line["user"]].append(metric_value(name, k, ranker["rank"]))
    return {user: np.mean(np.array(found, dtype=np.float64)) for user, found in values.items()}


def compare_metrics(metrics, lines):
    """Compares HR, NDCG and MRR, and their paired differences, with their recomputation."""
    count, differences, largest, worst = 0, 0, 0.0, None
    straight = defaultdict(list)
    for line in lines:
        if not line["reversed"]:
            straight[line["negatives"]].append(line)
    for row in metrics:
        if row["metric"] not in ("HR", "NDCG", "MRR") or row["policy"] == "best possible":
            continue
        own = [line for line in straight[row["negatives"]] if in_slice(line, row["slice"])]
        means = user_means(own, row["policy"], row["ranking"], row["metric"], row["k"])
        values = np.array(list(means.values()))
        if row["against"] is not None:
            rankings = {ranker["ranking"] for line in own[:1] for ranker in line["rankers"] if ranker["policy"] == row["against"]}
            ranking = row["ranking"] if row["ranking"] in rankings else "baseline"
            others = user_means(own, row["against"], ranking, row["metric"], row["k"])
            values = np.array([means[user] - others[user] for user in means])
            differences += 1
        difference = abs(values.mean() - row["estimate"])
        count += 1
        if difference > largest or len(values) != row["n"]:
            largest, worst = max(largest, difference), row
            if len(values) != row["n"]:
                raise SystemExit(f"{len(values)} users, expected {row['n']}: {row}")
    return {"metrics": count, "differences": differences, "largest": largest, "worst": worst}


def item_sets(items, train, captions):
    """The sets of the distance of items: words of captions if every item has one, else training users."""
    if all(str(item) in captions for item in items):
        word = re.compile(r"[^\W_]+")
        return {item: set(word.findall(captions[str(item)].lower())) for item in items}
    sets = {item: set() for item in items}
    for number, (_, history) in enumerate(train):
        for item in history:
            sets[item].add(number)
    return sets


def mean_distance(top, sets):
    """The mean of 1 minus the cosine of the sets of all pairs."""
    distances = []
    for index, one in enumerate(top):
        for other in top[:index]:
            size = np.sqrt(len(sets[one]) * len(sets[other]))
            distances.append(1.0 - len(sets[one] & sets[other]) / size if size else 1.0)
    return np.mean(distances) if distances else None


def list_value(metric, k, tops, items, interactions, sets):
    """A metric of the first k items of all lists, which are grouped by user."""
    tops = {user: [top[:k] for top in found if top] for user, found in tops.items()}
    tops = {user: found for user, found in tops.items() if found}
    shown = np.array([item for found in tops.values() for top in found for item in top])
    counts = np.array([np.count_nonzero(shown == item) for item in items], dtype=np.float64)
    if metric == "coverage":
        return np.mean(counts > 0)
    if metric == "gini":
        # The mean absolute difference of all pairs, relative to the largest possible one.
        total = np.abs(counts[:, None] - counts[None, :]).sum()
        return total / (2.0 * (len(items) - 1) * counts.sum())
    everything = sum(interactions.values()) + len(items)
    measures = {
        "novelty": lambda top: np.mean([-np.log2((interactions[item] + 1) / everything) for item in top]),
        "diversity": lambda top: mean_distance(top, sets),
        "cold": lambda top: np.mean([interactions[item] == 0 for item in top]),
    }
    return np.mean([np.mean([measures[metric](top) for top in found]) for found in tops.values()])


def compare_lists(metrics, lines, items, train, captions):
    """Compares the metrics beyond accuracy and of valid answers with their recomputation."""
    interactions = {item: 0 for item in items}
    for _, history in train:
        for item in history:
            interactions[item] += 1
    sets = item_sets(items, train, captions)
    count, largest, worst = 0, 0.0, None
    for row in metrics:
        if row["metric"] not in ("coverage", "gini", "novelty", "diversity", "cold", "valid", "valid_HR"):
            continue
        tops, named = defaultdict(list), defaultdict(list)
        for line in lines:
            if line["reversed"] or line["negatives"] != row["negatives"]:
                continue
            for ranker in line["rankers"]:
                if (ranker["policy"], ranker["ranking"]) == (row["policy"], row["ranking"]):
                    tops[line["user"]].append(ranker["top"])
                    named[line["user"]].append((ranker.get("named"), line["target"]))
        if row["metric"] == "valid":
            value = np.mean([np.mean([name is not None for name, _ in found]) for found in named.values()])
        elif row["metric"] == "valid_HR":
            hits = [[name == target for name, target in found if name is not None] for found in named.values()]
            value = np.mean([np.mean(found) for found in hits if found])
        else:
            value = list_value(row["metric"], row["k"], tops, items, interactions, sets)
        difference = abs(value - row["estimate"])
        count += 1
        if difference > largest:
            largest, worst = difference, row
    return {"lists": count, "lists_largest": largest, "lists_worst": worst}


def read_safetensors(path):
    """The float32 tensors of a file by name."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "F32", entry
        data = np.frombuffer(raw[8 + length + begin : 8 + length + end], dtype="<f4")
        tensors[name] = data.reshape(entry["shape"])
    return tensors


def read_users(path):
    """Users and items of train.tsv or test.tsv."""
    rows = [line.rstrip("\r\n").split("\t") for line in path.read_text().splitlines() if line.strip()]
    return [(int(user), [int(item) for item in items.split()]) for user, items in rows if user != "user_id"]


def read_items(path):
    """The ids of all items, ascending."""
    with path.open(newline="") as file:
        return sorted(int(row[0]) for row in list(csv.reader(file))[1:])


def compare_ranks(folder, models, lines, users, items):
    """Recomputes the rank and the first item of every list from the scores of each model."""
    column = {item: position for position, item in enumerate(items)}
    row_of = {user: position for position, (user, _) in enumerate(users)}
    compared, wrong, all_scores = 0, 0, {}
    for model in models:
        tensors = read_safetensors(folder / model["scores"])
        scores = np.concatenate([tensors[name] for name in sorted(tensors)])
        assert scores.shape == (len(users), len(items)), scores.shape
        all_scores[model["name"]] = scores
        for line in lines:
            if line["reversed"]:
                continue
            row = row_of[line["user"]]
            ranker = next(ranker for ranker in line["rankers"] if ranker["policy"] == model["name"])
            compared += 1
            if line["negatives"] == "catalogue":
                # The order of ties is random: the rank lies between those of the first and the last of them.
                known = set(users[row][1]) - {line["target"]}
                own = scores[row, [column[item] for item in items if item not in known]]
                target = scores[row, column[line["target"]]]
                above, level = np.count_nonzero(own > target), np.count_nonzero(own == target)
                wrong += not above < ranker["rank"] <= above + level
                wrong += scores[row, column[ranker["first"]]] != own.max()
                continue
            own = scores[row, [column[item] for item in line["candidates"]]]
            order = np.argsort(-own, kind="stable")
            ranking = [line["candidates"][position] for position in order]
            wrong += ranker["rank"] != ranking.index(line["target"]) + 1 or ranker["first"] != ranking[0]
    return {"ranks": compared, "wrong": int(wrong)}, all_scores


def ease_difference(scores, regularization, train, test, items):
    """The largest difference of scores from a computation of EASE in float64."""
    column = {item: position for position, item in enumerate(items)}

    def matrix(rows):
        dense = np.zeros((len(rows), len(items)))
        for row, history in enumerate(rows):
            dense[row, [column[item] for item in history]] = 1.0
        return dense

    fitted = matrix([history for _, history in train])
    inverse = np.linalg.inv(fitted.T @ fitted + regularization * np.eye(len(items)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return float(np.abs(matrix([history[:-1] for _, history in test]) @ weights - scores).max())


def main():
    parser = argparse.ArgumentParser()
    for name in ("results", "baselines", "data"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in (arguments.results / "lists.jsonl").read_text().splitlines()]
    evaluation = json.loads((arguments.results / "evaluation.json").read_text())
    models = json.loads((arguments.baselines / "baselines.json").read_text())["models"]
    train, test = (read_users(arguments.data / name) for name in ("train.tsv", "test.tsv"))
    if not (arguments.data / "validation.tsv").exists():
        raise SystemExit("the data set has no validation.tsv: expected one, since models are fitted to whole rows of train.tsv")
    items = read_items(arguments.data / f"{arguments.name}_titles.csv")
    report = compare_metrics(evaluation["metrics"], lines)
    captions = arguments.data / f"{arguments.name}_captions.json"
    captions = json.loads(captions.read_text()) if captions.exists() else {}
    captions = {item: entry["caption"] for item, entry in captions.items() if entry.get("caption")}
    report.update(compare_lists(evaluation["metrics"], lines, items, train, captions))
    ranks, scores = compare_ranks(arguments.baselines, models, lines, test, items)
    report.update(ranks)
    for model in models:
        if model["name"] == "EASE":
            regularization = model["settings"]["regularization"]
            report["ease"] = ease_difference(scores["EASE"], regularization, train, test, items)
    arguments.out.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
