"""The checkpoint of the small language model: `course pretrain tinygpt_austen`.

Like the image checkpoints (`course_admin.pretrain`), with a recipe written down in full, resumable, and a record beside
the weights. The weights are stored in half precision, and the record's figures are those of the stored weights.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from course_admin.provenance import provenance
from course_utils import checkpoints, runtime, text
from course_utils.step_training import StepHistory
from course_utils.transformer.language import fit_language_model, generate, nats_per_character
from course_utils.transformer.ngrams import NgramModel
from course_utils.transformer.pretrained import SHAPES, new_tiny_gpt

LANGUAGE_RECIPES: dict[str, dict] = {
    "tinygpt_austen": {
        "steps": 2400,
        "batch_size": 16,
        "context": 128,
        "lr": 3e-3,
        "weight_decay": 0.1,
        "betas": (0.9, 0.98),
        "schedule": "warmup_cosine",
        "clip": 1.0,
        "row_steps": 50,
        "seed": 0,
    },
}


def pretrain_language(
    name: str, out_folder: Path, state_folder: Path, precision: str = "auto", progress: bool = True
) -> Path:
    """Train a language model's checkpoint, resuming where an earlier run stopped, and write it with its record.

    Args:
        name: A key of `LANGUAGE_RECIPES`, `"tinygpt_"` and a text's name.
        out_folder: Where the two files go.
        state_folder: Where the unfinished run's state lies.
        precision: `"auto"`, `"bf16"` or `"fp32"`.
        progress: Whether to show a progress bar.

    Returns:
        The path of the weights.
    """
    recipe, on = LANGUAGE_RECIPES[name], runtime.detect(precision=precision)
    corpus = text.load_text(name.removeprefix("tinygpt_"))
    runtime.seed_everything(recipe["seed"])
    model, state_file = new_tiny_gpt(name), state_folder / f"{name}.pt"
    history = fit_language_model(model, corpus.train, on=on, resume_file=state_file, progress=progress, **recipe)
    path = out_folder / f"{name}.safetensors"
    checkpoints.save_weights(model.half(), path)
    record = _record(name, path, corpus, on, history)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    state_file.unlink()
    return path


def _record(name: str, path: Path, corpus: text.Text, on: runtime.Runtime, history: StepHistory) -> dict:
    """Measure the model as it was written (on the CPU, in fp32) and describe how it was made."""
    recipe = LANGUAGE_RECIPES[name]
    model = checkpoints.load_weights(new_tiny_gpt(name), path).eval()
    fp32 = runtime.detect(device="cpu", precision="fp32")
    nats = nats_per_character(model, corpus.held_out, recipe["context"], on=fp32)
    baselines = {f"{n}-gram": NgramModel(corpus.train, n).nats_per_character(corpus.held_out) for n in (2, 5, 6)}
    return {
        "name": name,
        "model": "course_utils.transformer.TinyGPT",
        "shape": SHAPES[name],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "command": f"course pretrain {name}",
        "text": corpus.name,
        "n_train": len(corpus.train),
        "n_held_out": len(corpus.held_out),
        "recipe": recipe,
        "held_out_nats": nats,
        "held_out_bits": nats / math.log(2),
        "held_out_perplexity": math.exp(nats),
        "figures_are": "per character of the held-out tenth, after the last step, stored half-precision weights run in "
        "fp32, at least context / 2 characters before each one judged; no step was chosen by them",
        "sample": generate(model, "It is a truth", 600, temperature=0.7, seed=3),
        "sample_is": "temperature 0.7, seed 3, prompt 'It is a truth'",
        "held_out_bits_of_witten_bell_ngrams": {key: value / math.log(2) for key, value in baselines.items()},
        **provenance(path, history),
    }
