"""Checkpoints, and the versions of packages; requires PyTorch alone.

Run by benchmark.py in its Python. Each command reads the workload from a file and prints one JSON object on the last line.
"""

import argparse
import ctypes
import json
import struct
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

# The tokens before the words. The second ends a text for TRL, which requires such a token and is configured not to
# sample it.
SPECIAL = ("<unknown>", "<end>", "<padding>")
LINEAR = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
DEVIATION = 0.02


def about(workload, _):
    """Versions of the installed packages, and the device if it is a GPU."""
    versions = {}
    for name in ("torch", "transformers", "peft", "trl"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device = workload["device"]
    if device == "cpu":
        return {"versions": versions}
    if not torch.cuda.is_available():
        raise SystemExit(f"device {device} does not exist: PyTorch finds no usable GPU")
    gpu = torch.cuda.get_device_properties(device)
    return {"versions": versions | {"cuda": torch.version.cuda},
            "gpu": {"name": gpu.name, "memory_bytes": gpu.total_memory}}


def checkpoint(workload, arguments):
    """Writes model/ (random weights or those of the given policy, one word per token, an end token without a logit) and
    adapter/ (nowhere zero)."""
    torch.manual_seed(0)
    model, adapter = arguments.out / "model", arguments.out / "adapter"
    model.mkdir(parents=True)
    adapter.mkdir()
    config = workload["config"]
    own = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": SPECIAL.index("<padding>")}
    if workload["model"]:
        write_json(model / "config.json", config | own)
        parameters = link_weights(Path(workload["model"]), model)
    else:
        write_json(model / "config.json", {
            **config, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
            "attention_bias": False, "attention_dropout": 0.0, "max_position_embeddings": 40960, "rope_theta": 1e6,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "torch_dtype": workload["dtype"], "use_cache": True, **own})
        write_tensors(model / "model.safetensors", model_shapes(config), workload)
        parameters = sum(torch.Size(shape).numel() for shape in model_shapes(config).values())
    # Podium requires an end token. This one is never sampled: all completions have their full length.
    write_json(model / "generation_config.json", {"eos_token_id": config["vocab_size"]})
    write_tokenizer(config["vocab_size"], model)
    targets = sorted(name for names in LINEAR.values() for name in names)
    write_json(adapter / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": workload["lora_rank"], "lora_alpha": workload["lora_alpha"],
        "lora_dropout": 0.0, "bias": "none", "target_modules": targets, "base_model_name_or_path": None,
        "inference_mode": True})
    write_tensors(adapter / "adapter_model.safetensors", adapter_shapes(model_shapes(config), workload["lora_rank"]), workload)
    return {"parameters": parameters}


def link_weights(source, folder):
    """Links the safetensors files of a policy into `folder`, and returns the number of their parameters."""
    parameters = 0
    for path in source.glob("*.safetensors*"):
        (folder / path.name).symlink_to(path.resolve())
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            shapes = (tensor["shape"] for name, tensor in header.items() if name != "__metadata__")
            parameters += sum(torch.Size(shape).numel() for shape in shapes)
    if not parameters:
        raise SystemExit(f"{source} has no *.safetensors")
    return parameters


def model_shapes(config):
    """Shapes of the tensors of a Qwen3 model with tied embeddings, by name."""
    hidden = config["hidden_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    inner = config["intermediate_size"]
    sizes = {"q_proj": (queries, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden), "o_proj": (hidden, queries),
             "gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for block, names in LINEAR.items():
            shapes |= {f"{prefix}.{block}.{name}.weight": sizes[name] for name in names}
        for norm, size in (("self_attn.q_norm", head), ("self_attn.k_norm", head), ("input_layernorm", hidden),
                           ("post_attention_layernorm", hidden)):
            shapes[f"{prefix}.{norm}.weight"] = (size,)
    return shapes


def adapter_shapes(shapes, rank):
    """Shapes of the tensors of an adapter for all linear layers, by PEFT's names."""
    found = {}
    for name, shape in shapes.items():
        if name.endswith("_proj.weight"):
            prefix = "base_model.model." + name.removesuffix(".weight")
            found[f"{prefix}.lora_A.weight"] = (rank, shape[1])
            found[f"{prefix}.lora_B.weight"] = (shape[0], rank)
    return found


def write_tensors(path, shapes, workload):
    """Writes random tensors as safetensors, one at a time; vectors are norms and are 1."""
    dtype = getattr(torch, workload["dtype"])
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": TYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            if len(shape) == 1:
                tensor = torch.ones(shape, dtype=dtype)
            else:
                tensor = torch.empty(shape, dtype=dtype, device=workload["device"]).normal_(std=DEVIATION).cpu()
            size = tensor.numel() * dtype.itemsize
            file.write((ctypes.c_char * size).from_address(tensor.data_ptr()))


def write_tokenizer(words, folder):
    """Writes a tokenizer with one token per word, and a chat template that joins the messages."""
    tokens = [*SPECIAL, *(f"w{word}" for word in range(len(SPECIAL), words))]
    added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for number, token in enumerate(SPECIAL) if token != "<end>"]
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {token: number for number, token in enumerate(tokens)},
                  "unk_token": SPECIAL[0]}})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": SPECIAL[0], "pad_token": SPECIAL[2],
        "padding_side": "left"})
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def write_json(path, value):
    path.write_text(json.dumps(value))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = {command.__name__: command for command in (about, checkpoint)}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    workload = json.loads(arguments.workload.read_text())
    torch.set_num_threads(workload["threads"])
    print(json.dumps(commands[arguments.command](workload, arguments)))


if __name__ == "__main__":
    main()
