"""Writes the stored checkpoints, adapters and reference numbers that common/model/tests/fixtures.rs compares with.

    python make_fixtures.py --oracle DIR --out DIR

--oracle is the folder of make_checkpoint.py and score.py. OUT/<family>/ gets a checkpoint, an adapter for it in
adapter/, and expected.json: rows of prompt_ids, completion_ids and, under "base" and "adapted", what Transformers and
PEFT say of them in float32: logprobs at temperature 1, cool_logprobs at 0.7, and the 32 greedy tokens after the prompt.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

from safetensors.torch import load_file, save_file

from reference import run

VOCAB = 64
GREEDY_TOKENS = 32
FLAGS = {
    "qwen3": ["--layers", 2, "--heads", 4, "--kv-heads", 2, "--head-dim", 6],
    "qwen2": ["--layers", 2, "--heads", 3, "--kv-heads", 3, "--head-dim", 8, "--untied"],
    # From 20 adapted layers on PEFT writes target_modules as suffixes, below that as full paths.
    "llama": ["--layers", 3, "--heads", 4, "--kv-heads", 1, "--head-dim", 10, "--dtype", "bfloat16"],
}
# Rotary scaling that affects short sequences.
LLAMA_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def amplify(path):
    """Multiplies the weights by four, so that the layers of such a narrow model outweigh its embedding."""
    grown = {name: tensor * (1 if "norm" in name or "bias" in name else 4) for name, tensor in load_file(path).items()}
    save_file(grown, path, metadata={"format": "pt"})


def sequences():
    """Prompts of 1 to 30 tokens, two of them with two completions each."""
    prompts = [
        [token * 7 % VOCAB for token in range(start, start + length)] for start, length in [(3, 1), (5, 9), (2, 30)]
    ]
    lengths = [(0, 4), (1, 1), (1, 12), (2, 5), (2, 20)]
    return [
        {"prompt_ids": prompts[prompt], "completion_ids": [(token * token + length) % VOCAB for token in range(length)]}
        for prompt, length in lengths
    ]


def scored(oracle, model, adapter, scratch):
    """The reference's results for the sequences, one object each."""
    source, target = scratch / "sequences.jsonl", scratch / "scored.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in sequences()))
    arguments = ["--model", model, "--input", source, "--output", target]
    arguments += ["--adapter", adapter] if adapter else []

    def rows(*more):
        run(oracle / "score.py", *arguments, *more)
        return [json.loads(line) for line in target.read_text().splitlines()]

    cool = rows("--temperature", 0.7)
    return [
        {"logprobs": row["logprobs"], "cool_logprobs": cooler["logprobs"], "greedy": row["greedy"]}
        for row, cooler in zip(rows("--greedy", GREEDY_TOKENS), cool)
    ]


def write(oracle, family, seed, out, scratch):
    shutil.rmtree(out, ignore_errors=True)
    adapter = out / "adapter"
    size = ["--vocab", VOCAB, "--hidden", 16, "--ffn", 24, "--rank", 2]
    run(
        oracle / "make_checkpoint.py",
        "--family",
        family,
        "--seed",
        seed,
        "--out",
        out,
        "--adapter",
        adapter,
        *size,
        *FLAGS[family]
    )
    amplify(out / "model.safetensors")
    # No end token: the reference would never choose it within the requested greedy tokens.
    rope = {"rope_parameters": LLAMA_ROPE} if family == "llama" else {}
    edit(out / "config.json", lambda config: config.update(eos_token_id=None, **rope))
    # PEFT writes a set, in varying order.
    edit(adapter / "adapter_config.json", lambda config: config["target_modules"].sort())
    for unused in ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "adapter/README.md"]:
        (out / unused).unlink()
    base, adapted = scored(oracle, out, None, scratch), scored(oracle, out, adapter, scratch)
    rows = [row | {"base": of_base, "adapted": of_both} for row, of_base, of_both in zip(sequences(), base, adapted)]
    (out / "expected.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    for file in out.rglob("*.*"):
        file.chmod(0o644)


p = argparse.ArgumentParser()
p.add_argument("--oracle", type=pathlib.Path, required=True)
p.add_argument("--out", type=pathlib.Path, required=True)
a = p.parse_args()
with tempfile.TemporaryDirectory() as folder:
    for number, name in enumerate(FLAGS):
        write(a.oracle, name, 11 + number, a.out / name, pathlib.Path(folder))
