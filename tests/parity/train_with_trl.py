"""Runs TRL's GRPOTrainer on recorded groups, one configuration after another, so that TRL is imported once.

    python train_with_trl.py --jobs jobs.json

jobs.json is a list of {"model": DIR, "adapter": DIR or null, "groups": FILE, "groups_per_step": N, "out": DIR,
"settings": {GRPOConfig fields}, "weigh_behaviour": whether to correct for the recorded log-probabilities}. A row of the
groups has "prompt_ids" and "completions" with "ids", "reward" and optionally "terms" and "logprobs", and "reward_weights"
for the terms. Every job writes OUT/metrics.jsonl, one row an optimizer step under TRL's names, and OUT/adapter or
OUT/model.
"""

import argparse
import contextlib
import copy
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Rows(TrainerCallback):
    """Writes TRL's log of every optimizer step."""

    def __init__(self, file):
        self.file = file

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            numbers = {name: value for name, value in logs.items() if isinstance(value, (int, float))}
            print(json.dumps({"step": state.global_step, **numbers}), file=self.file, flush=True)


class NoVllm:
    """Replaces TRL's vLLM client, which corrections require: completions are recorded."""

    def sync_weights(self):
        pass


class Replayed:
    """Passes recorded completions and their rewards to a trainer."""

    def __init__(self, groups):
        self.groups = groups

    def completions(self, prompts):
        """The completion of each prompt; a prompt is a group's index, repeated for each of its completions."""
        turns = {}
        for prompt in prompts:
            group = self.groups[int(prompt)]
            turn = turns[prompt] = turns.get(prompt, -1) + 1
            yield group, group["completions"][turn]

    def rollout(self, prompts, trainer):
        pairs = list(self.completions(prompts))
        zeros = [[0.0] * len(one["ids"]) for _, one in pairs]
        return {
            "prompt_ids": [group["prompt_ids"] for group, _ in pairs],
            "completion_ids": [one["ids"] for _, one in pairs],
            "logprobs": [one.get("logprobs", zero) for (_, one), zero in zip(pairs, zeros)],
        }

    def rewards(self):
        """One function for each reward term, or one for the whole reward."""
        weights = self.groups[0].get("reward_weights")

        def total(prompts, **_):
            return [one["reward"] for _, one in self.completions(prompts)]

        def term(index):
            def value(prompts, **_):
                return [one["terms"][index] for _, one in self.completions(prompts)]

            value.__name__ = f"term_{index}"
            return value

        return (total, None) if weights is None else ([term(index) for index in range(len(weights))], weights)


def load(job, bases):
    if job["model"] not in bases:
        bases[job["model"]] = (
            AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
            AutoTokenizer.from_pretrained(job["model"]),
        )
    base, tokenizer = bases[job["model"]]
    base = copy.deepcopy(base)
    if job["adapter"] is None:
        return base, tokenizer
    return PeftModel.from_pretrained(base, job["adapter"], is_trainable=True), tokenizer


def train(job, bases):
    groups = [json.loads(line) for line in open(job["groups"])]
    size, out = len(groups[0]["completions"]), pathlib.Path(job["out"])
    steps = len(groups) // job["groups_per_step"]
    replayed = Replayed(groups)
    functions, weights = replayed.rewards()
    settings = {
        "per_device_train_batch_size": job["groups_per_step"] * size,
        "gradient_accumulation_steps": 1,
        "num_generations": size,
        "max_completion_length": max(len(one["ids"]) for group in groups for one in group["completions"]),
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "temperature": 1.0,
        "disable_dropout": True,
        "reward_weights": weights,
        **job["settings"],
    }
    config = GRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        max_steps=steps * settings.get("num_iterations", 1),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        **settings,
    )
    model, tokenizer = load(job, bases)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "metrics.jsonl", "w") as file:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=functions,
            args=config,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": str(index)} for index in range(len(groups))]),
            rollout_func=replayed.rollout,
            callbacks=[Rows(file)],
        )
        if job["weigh_behaviour"]:
            trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, NoVllm(), -1
        trainer.train()
    if job["adapter"] is None:
        trainer.model.save_pretrained(out / "model")
    else:
        trainer.model.save_pretrained(out / "adapter", selected_adapters=["default"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", required=True)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    bases = {}
    for job in json.load(open(arguments.jobs)):
        with contextlib.redirect_stdout(None):
            train(job, bases)


if __name__ == "__main__":
    main()
