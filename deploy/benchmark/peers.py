"""The programs that Podium is compared with: Transformers' generate, TRL's GRPO step, PEFT's adapters.

Run by benchmark.py in the Python that has torch, transformers, peft and trl, one process a measurement. Every command
reads the workload from a file and prints one JSON object on the last line.
"""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from weights import SPECIAL


def synchronize(workload):
    """Waits until the device is idle."""
    if workload["device"] != "cpu":
        torch.cuda.synchronize(workload["device"])


def lora(workload):
    """The adapter's configuration in PEFT."""
    return LoraConfig(r=workload["lora_rank"], lora_alpha=workload["lora_alpha"], lora_dropout=0.0,
                      target_modules="all-linear", task_type="CAUSAL_LM")


def load(workload, checkpoint, dtype=None):
    """The policy with its adapter, for sampling and scoring."""
    model = load_model(workload, checkpoint, dtype)
    return PeftModel.from_pretrained(model, checkpoint / "adapter", autocast_adapter_dtype=False).eval()


def load_model(workload, checkpoint, dtype=None):
    """The policy without an adapter."""
    dtype = getattr(torch, dtype or workload["dtype"])
    return AutoModelForCausalLM.from_pretrained(checkpoint / "model", dtype=dtype).to(workload["device"])


def rows(path):
    """The rows of a JSON Lines file."""
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def generate(workload, arguments):
    """Seconds of each measured batch of completions; the first batch warms up."""
    model = load(workload, arguments.checkpoint)
    prompts = [row["prompt_ids"] for row in rows(arguments.prompts)]
    new, seconds = workload["new_tokens"], []
    for first in range(0, len(prompts), workload["prompts"]):
        batch = torch.tensor(prompts[first:first + workload["prompts"]], device=workload["device"])
        batch = batch.repeat_interleave(workload["completions"], 0)
        synchronize(workload)
        began = time.perf_counter()
        with torch.no_grad():
            made = model.generate(input_ids=batch, attention_mask=torch.ones_like(batch), do_sample=True,
                                  temperature=workload["temperature"], top_p=workload["top_p"], top_k=0,
                                  max_new_tokens=new, pad_token_id=SPECIAL.index("<padding>"))
        synchronize(workload)
        seconds.append(time.perf_counter() - began)
        assert made.shape == (len(batch), batch.shape[1] + new), f"{tuple(made.shape)} is an unexpected shape"
    tokens = workload["prompts"] * workload["completions"] * new
    return {"seconds": seconds[1:], "completion_tokens": tokens}


def score(workload, arguments):
    """Log-probabilities of the rows' completions at the sampling temperature, as a list for each row."""
    model = load(workload, arguments.checkpoint, arguments.dtype)
    scored = []
    with torch.no_grad():
        for row in rows(arguments.rows):
            prompt, completion = row["prompt_ids"], row["completion_ids"]
            ids = torch.tensor([prompt + completion], device=workload["device"])
            logits = model(ids, logits_to_keep=len(completion) + 1).logits[0, :-1].float() / workload["temperature"]
            chosen = torch.tensor(completion, device=workload["device"])[:, None]
            scored.append(torch.log_softmax(logits, -1).gather(-1, chosen)[:, 0].tolist())
    return {"logprobs": scored}


def step(workload, arguments):
    """Seconds of each measured GRPO step, and of the sampling in it; the first step warms up."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    draw = random.Random(3)
    prompts, completions, steps = workload["prompts"], workload["completions"], workload["steps"] + 1

    def prompt():
        words = range(len(SPECIAL), workload["config"]["vocab_size"])
        return " ".join(f"w{word}" for word in draw.choices(words, k=workload["prompt_tokens"]))

    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.checkpoint / "model", eos_token=SPECIAL[1])
    dataset = [{"prompt": prompt()} for _ in range(prompts * steps)]
    read = {len(ids) for ids in tokenizer([row["prompt"] for row in dataset])["input_ids"]}
    assert read == {workload["prompt_tokens"]}, f"prompts of {sorted(read)} tokens"
    sampling = [0.0]

    class Trainer(GRPOTrainer):
        """Records the duration of sampling."""

        def _generate_single_turn(self, *rest, **named):
            began = time.perf_counter()
            made = super()._generate_single_turn(*rest, **named)
            synchronize(workload)
            sampling[0] += time.perf_counter() - began
            return made

    class Clock(TrainerCallback):
        """Records the duration of steps, from the end of one to the end of the next."""

        def __init__(self):
            self.last, self.seconds, self.sampling = None, [], []

        def on_step_end(self, args, state, control, **_):
            synchronize(workload)
            now = time.perf_counter()
            if self.last is not None:
                self.seconds.append(now - self.last)
                self.sampling.append(sampling[0])
            self.last, sampling[0] = now, 0.0

    clock, lengths = Clock(), set()

    def reward(completions, completion_ids, **_):
        lengths.update(len(ids) for ids in completion_ids)
        return [draw.random() for _ in completions]

    bfloat16 = workload["dtype"] == "bfloat16"
    with tempfile.TemporaryDirectory() as out:
        Trainer(
            model=load_model(workload, arguments.checkpoint),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(dataset),
            reward_funcs=reward,
            peft_config=lora(workload),
            callbacks=[clock],
            args=GRPOConfig(
                output_dir=out, use_cpu=workload["device"] == "cpu", bf16=bfloat16,
                per_device_train_batch_size=workload["micro_batch_prompts"] * completions,
                gradient_accumulation_steps=prompts // workload["micro_batch_prompts"],
                generation_batch_size=prompts * completions, num_generations=completions,
                max_completion_length=workload["new_tokens"],
                generation_kwargs={"min_new_tokens": workload["new_tokens"]},
                temperature=workload["temperature"], top_p=workload["top_p"], beta=workload["beta"],
                learning_rate=workload["learning_rate"], lr_scheduler_type="constant", max_steps=steps,
                gradient_checkpointing=workload["recompute"], save_strategy="no", report_to=[],
                logging_strategy="no", disable_tqdm=True),
        ).train()
    assert lengths == {workload["new_tokens"]}, f"completions of {sorted(lengths)} tokens"
    return {"seconds": clock.seconds, "sampling_seconds": clock.sampling}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = {command.__name__: command for command in (generate, score, step)}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--dtype")
    arguments = parser.parse_args()
    workload = json.loads(arguments.workload.read_text())
    torch.set_num_threads(workload["threads"])
    print(json.dumps(commands[arguments.command](workload, arguments)))


if __name__ == "__main__":
    main()
