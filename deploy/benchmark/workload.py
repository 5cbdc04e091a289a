"""The workload: shapes of policies, sizes of a step, and the input files of all programs.

Prompts are random words, one token each, so that every prompt has exactly `prompt_tokens` tokens for Podium and its peers
alike. Needs nothing but Python's standard library.
"""

import dataclasses
import json
import random
from pathlib import Path

CANDIDATES = 10
# Three special tokens precede the words: see weights.py.
FIRST_WORD = 3
# Of Podium's run: the first step includes start-up, the second runs beside the evaluation of the start, the last one
# ends the run.
UNCOUNTED_STEPS = 3

# Qwen3's dense shapes; all tie their embeddings. `30M` and `tiny` are for machines without a GPU.
SHAPES = {
    "tiny": dict(vocab_size=1024, hidden_size=64, intermediate_size=160, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=32),
    "30M": dict(vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
                num_attention_heads=8, num_key_value_heads=4, head_dim=64),
    "0.6B": dict(vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
                 num_attention_heads=16, num_key_value_heads=8, head_dim=128),
    "1.7B": dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28,
                 num_attention_heads=16, num_key_value_heads=8, head_dim=128),
    "4B": dict(vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
               num_attention_heads=32, num_key_value_heads=8, head_dim=128),
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One shape's measurement."""

    shape: str
    # A folder with a policy of that shape, as Hugging Face stores it; None for random weights.
    model: str | None
    device: str
    dtype: str
    threads: int
    prompts: int
    prompt_tokens: int
    completions: int
    new_tokens: int
    micro_batch_prompts: int
    recompute: bool
    batches: int
    steps: int
    temperature: float = 0.9
    top_p: float = 0.9
    beta: float = 0.1
    lora_rank: int = 16
    lora_alpha: int = 32
    learning_rate: float = 1e-5

    @property
    def config(self):
        """The shape, by the names of Hugging Face's config.json."""
        if self.model is None:
            return SHAPES[self.shape]
        return json.loads((Path(self.model) / "config.json").read_text())

    @property
    def words(self):
        """Number of words, including those that are never sampled."""
        return self.config["vocab_size"]

    @property
    def rows(self):
        """Completions of a step."""
        return self.prompts * self.completions

    def problem(self):
        """The reason why this workload is invalid, or None."""
        least = CANDIDATES + 1
        most = self.words - FIRST_WORD - CANDIDATES
        if not least <= self.prompt_tokens <= most:
            return f"--prompt-tokens is {self.prompt_tokens}: expected {least} to {most} for the shape {self.shape}"
        if self.prompts % self.micro_batch_prompts:
            return f"--micro-batch-prompts is {self.micro_batch_prompts}: expected a divisor of --prompts, which is {self.prompts}"
        return None

    def write(self, path):
        """Writes the workload for the peers, with the shape's configuration."""
        path.write_text(json.dumps(dataclasses.asdict(self) | {"config": self.config}))


def write_prompts(workload, path):
    """Writes prompts of one warm-up batch and `batches` measured ones, as rows with `prompt_ids`."""
    draw = random.Random(1)
    with path.open("w") as file:
        for _ in range(workload.prompts * (1 + workload.batches)):
            ids = [draw.randrange(FIRST_WORD, workload.words) for _ in range(workload.prompt_tokens)]
            file.write(json.dumps({"prompt_ids": ids}) + "\n")


def write_run(workload, folder, model):
    """Writes a data set with prompts of random words, and the run file of Podium's steps. Returns the run file."""
    data = folder / "data"
    data.mkdir(parents=True)
    draw = random.Random(2)
    items = range(FIRST_WORD, workload.words)
    titles = "".join(f"{item},w{item}\n" for item in items)
    (data / "benchmark_titles.csv").write_text("item,title\n" + titles)
    history = workload.prompt_tokens - CANDIDATES
    steps = workload.steps + UNCOUNTED_STEPS

    def user(number):
        return f"{number}\t{' '.join(map(str, draw.sample(items, history + 1)))}\n"

    users = workload.prompts * steps
    (data / "train.tsv").write_text("".join(user(number) for number in range(users)))
    (data / "test.tsv").write_text(user(users))
    (folder / "prompt.jinja").write_text("{% for item in history + candidates %}{{ item.title }} {% endfor %}")
    run_file = folder / "run.toml"
    run_file.write_text(f"""\
[run]
name = "benchmark"
steps = {steps}

[data]
dir = {json.dumps(str(data))}
name = "benchmark"
min_interactions = {history + 1}

[prompt]
template = "prompt.jinja"

[candidates]
count = {CANDIDATES}

[model]
path = {json.dumps(str(model))}
dtype = "{workload.dtype}"

[lora]
rank = {workload.lora_rank}
alpha = {workload.lora_alpha}

[rollout]
group_size = {workload.completions}
prompts_per_step = {workload.prompts}
prompts_per_lease = {workload.prompts}
temperature = {workload.temperature}
top_p = {workload.top_p}
max_new_tokens = {workload.new_tokens}
threads = {workload.threads}

[grpo]
beta = {workload.beta}

[learner]
learning_rate = {workload.learning_rate}
groups_per_micro_batch = {workload.micro_batch_prompts}
recompute_layers = {json.dumps(workload.recompute)}
checkpoint_every_steps = {steps}
threads = {workload.threads}

[evaluation]
every_steps = 0
users = 1

[network]
lease_deadline_ms = 600000

[launch]
workers = 1
learner_ranks = 1
rollout_device = "{workload.device}"
learner_device = "{workload.device}"
colocate = "share"
""")
    return run_file
