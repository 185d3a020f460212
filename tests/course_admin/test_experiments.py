"""Experiments: the catalogue, resuming, zeros that stay, packed files that hold what the record claims, the page."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from course_admin.cli import app
from course_admin.experiments import catalogue, convnet, page, pruning, quantization, results, runner
from course_admin.experiments.catalogue import Experiment, Job
from course_admin.paths import Repository
from course_utils import profiles, training, training_state
from course_utils.accounting import total_sparsity
from course_utils.data_files import MissingData
from course_utils.packing import read_packed
from course_utils.pruning import global_prune_by_percentage, linear_schedule, prune_by_percentage, structured_plan
from course_utils.pruning.structured import filter_l1_pruning, unstructured_pruning
from course_utils.pruning.structured_given import folded_copy
from tests.course_utils.tiny import tiny_dataset, tiny_model

ITERATIVE = partial(pruning.iterative, prune=global_prune_by_percentage, sparsity=0.7, schedule=linear_schedule)


class TinyProfile(profiles.Profile):
    """The quick profile on the tiny data set and network."""

    def load_dataset(self):
        return tiny_dataset()

    def load_resnet20(self):
        return tiny_model(seed=5).eval()


TINY = TinyProfile(**{**dataclasses.asdict(profiles.PROFILES["quick"]), "batch_size": 32, "padding": 1})
QUIET = {"precision": "fp32", "progress": False}


@pytest.fixture(autouse=True)
def four_epochs(monkeypatch):
    monkeypatch.setitem(runner.EPOCHS, "quick", 4)


def experiment(prepare, name="tiny") -> Experiment:
    return Experiment(name, "Tiny", "a tiny row", prepare, published=0.5, target=0.6)


def run_in_pieces(chosen: Experiment, folder: Path, n_interruptions: int, monkeypatch) -> Path:
    """Run an experiment that is interrupted after each of its first epochs; only the last run leaves a record."""
    save = training_state.save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training_state, "save", save_and_stop)
    for _ in range(n_interruptions):
        with pytest.raises(KeyboardInterrupt):
            runner.run(chosen, TINY, folder, **QUIET)
        assert not list(folder.glob("*.json"))
    monkeypatch.setattr(training_state, "save", save)
    return runner.run(chosen, TINY, folder, **QUIET)


def assert_same_network(one: Path, other: Path) -> None:
    """Both records' packed files hold the same tensors, bit for bit."""
    expected, packed = (read_packed(path.with_suffix(".safetensors")) for path in (one, other))
    assert all(torch.equal(packed[name], tensor) for name, tensor in expected.items())


def test_the_catalogue_has_unique_names_and_every_row_of_the_published_pruning_table():
    known = catalogue.catalogue()
    assert len(known) == sum(len(module.EXPERIMENTS) for module in (pruning, quantization, convnet))
    published = [row.published for row in pruning.EXPERIMENTS if row.published is not None]
    assert sorted(set(published)) == [0.1003, 0.7223, 0.8756, 0.8799, 0.8840, 0.8874]
    assert known["iterative_global_80"].seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="no experiment is called 'prune'; there are: prune_layer_40"):
        catalogue.find("prune")


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    chosen = experiment(ITERATIVE)
    straight = runner.run(chosen, TINY, tmp_path / "straight", **QUIET)
    pieces = run_in_pieces(chosen, tmp_path / "pieces", 4, monkeypatch)
    assert_same_network(straight, pieces)
    one, two = json.loads(straight.read_text()), json.loads(pieces.read_text())
    assert one["test_accuracy"] == two["test_accuracy"]
    assert len(two["history"]["train_loss"]) == 4


def test_weights_recover_until_the_last_step_and_zeros_stay_after_it(tmp_path):
    seen = []

    def prepare(setting):
        job = ITERATIVE(setting)
        return Job(job.model, job.lr, job.epochs, {**job.hooks, "after_epoch": lambda s: seen.append(total_sparsity(s.model))})

    path = runner.run(experiment(prepare), TINY, tmp_path, **QUIET)
    assert seen[0] < 0.05  # 35 % were cut before the first epoch and came back in it
    assert seen[1:] == pytest.approx([0.7] * 3, abs=0.002)
    record = json.loads(path.read_text())
    assert record["sparsity"] == seen[-1]
    assert record["packed_bytes"] == path.with_suffix(".safetensors").stat().st_size < record["dense_bytes"]


def test_the_best_epoch_is_one_of_those_in_which_the_network_was_pruned_as_far_as_it_is():
    history = training.History(test_accuracy=[0.99, 0.7, 0.9, float("nan"), 0.8])
    best = [runner._final_numbers(tiny_model(), 0.8, history, n)["best_epoch_test_accuracy"] for n in (1, 2, 4)]
    assert best == [0.99, 0.9, 0.8]
    for name, epoch in (("iterative_global_80", 10), ("iterative_global_95_60epochs", 30), ("prune80_qat_4bit", 10)):
        setting = catalogue.Setting(TINY, catalogue.find(name).epochs, 0, Path())
        assert catalogue.find(name).prepare(setting).pruned_by == epoch


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_convnet_is_half_gone_in_the_epoch_that_the_plan_says(profile):
    plan = structured_plan.PLANS[profile]
    assert [plan.pruned_fraction(plan.pruned_by - 2), plan.pruned_fraction(plan.pruned_by - 1)] == [0.4, 0.5]


def test_statistics_measured_anew_change_no_weight_and_keep_the_zeros(tmp_path):
    plain = partial(pruning.one_shot, prune=prune_by_percentage, sparsity=0.5, finetune=False)
    one = runner.run(experiment(plain), TINY, tmp_path / "plain", **QUIET)
    two = runner.run(experiment(partial(plain, remeasure=True)), TINY, tmp_path / "anew", **QUIET)
    old, new = (read_packed(path.with_suffix(".safetensors")) for path in (one, two))
    assert {name for name, tensor in old.items() if not torch.equal(tensor, new[name])} == {
        name for name in old if "running_" in name or "num_batches" in name
    }


def test_without_finetuning_nothing_is_trained(tmp_path):
    prepare = partial(pruning.one_shot, prune=prune_by_percentage, sparsity=0.5, finetune=False)
    path = runner.run(experiment(prepare), TINY, tmp_path, **QUIET)
    expected = tiny_model(seed=5)
    prune_by_percentage(expected, 0.5)
    packed = read_packed(path.with_suffix(".safetensors"))
    assert all(torch.equal(packed[name], tensor) for name, tensor in expected.state_dict().items())
    record = json.loads(path.read_text())
    assert record["accuracy_before_training"] == record["test_accuracy"]
    assert record["history"]["train_loss"] == []


def test_frozen_convolutions_do_not_move(tmp_path):
    path = runner.run(experiment(partial(pruning.freeze_and_retrain, sparsity=0.5)), TINY, tmp_path, **QUIET)
    expected, packed = tiny_model(seed=5), read_packed(path.with_suffix(".safetensors"))
    global_prune_by_percentage(expected, 0.5)
    for name, tensor in expected.state_dict().items():
        if "conv" in name:
            assert torch.equal(packed[name], tensor), name
    assert not torch.equal(packed["fc.weight"], expected.fc.weight)
    assert torch.equal(packed["fc.weight"] != 0, expected.fc.weight != 0)


def levels(packed: dict[str, torch.Tensor], name: str) -> list[int]:
    """Number of different values in each output channel, zeros not counted."""
    return [len(row[row != 0].unique()) for row in packed[name].flatten(1)]


@pytest.mark.parametrize("make_quantizer", [quantization.per_channel, quantization.LSQ, quantization.ChannelLSQ])
def test_quantization_aware_training_leaves_four_values_a_channel(tmp_path, make_quantizer):
    prepare = partial(quantization.aware, n_bits=2, make_quantizer=make_quantizer)
    path = runner.run(experiment(prepare), TINY, tmp_path, **QUIET)
    packed = read_packed(path.with_suffix(".safetensors"))
    inner = [name for name in packed if "conv" in name and name.endswith("weight")][1:]
    assert len(inner) == 6
    assert all(max(levels(packed, name)) <= 4 for name in inner)
    assert max(levels(packed, "conv1.weight")) > 4  # the first convolution stays in float
    record = json.loads(path.read_text())
    assert record["packed_bytes"] < record["dense_bytes"]
    assert record["test_accuracy"] == record["history"]["test_accuracy"][-1]  # what is packed is what was trained


def test_a_step_for_each_channel_does_to_a_channel_what_one_step_does_to_a_layer():
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6).view(-1, 1, 1, 1)
    together = quantization.ChannelLSQ(weight, 3)
    inputs = weight.clone().requires_grad_()
    result = together(inputs)
    result.square().sum().backward()
    for channel in range(5):
        alone = quantization.LSQ(weight[channel], 3)
        own = weight[channel].clone().requires_grad_()
        one = alone(own)
        one.square().sum().backward()
        torch.testing.assert_close(result[channel], one)
        torch.testing.assert_close(inputs.grad[channel], own.grad)
        torch.testing.assert_close(together.step_size.grad[channel].sum(), alone.step_size.grad)


def test_rate_and_weight_decay_of_a_row_are_used_and_recorded(tmp_path):
    networks = []
    for folder, options in (("a", {}), ("b", {"lr": 0.05}), ("c", {"lr": 0.05, "weight_decay": 0.1})):
        prepare = partial(ITERATIVE, **options)
        (tmp_path / folder).mkdir()
        path = runner.run(experiment(prepare), TINY, tmp_path / folder, **QUIET)
        record = json.loads(path.read_text())
        assert (record["lr"], record["weight_decay"]) == (options.get("lr", 0.02), options.get("weight_decay", 5e-4))
        networks.append(read_packed(path.with_suffix(".safetensors"))["fc.weight"])
    assert not torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[1], networks[2])


def test_an_interrupted_quantized_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    chosen = experiment(partial(quantization.aware, n_bits=3, make_quantizer=quantization.LSQ))
    straight = runner.run(chosen, TINY, tmp_path / "straight", **QUIET)
    pieces = run_in_pieces(chosen, tmp_path / "pieces", 2, monkeypatch)
    assert_same_network(straight, pieces)


def test_a_sparse_network_keeps_its_zeros_through_quantization(tmp_path):
    prepare = partial(quantization.aware, n_bits=2, make_quantizer=quantization.per_layer_sparse, sparse=True)
    with pytest.raises(MissingData, match="course experiment iterative_global_80"):
        runner.run(experiment(prepare), TINY, tmp_path, **QUIET)
    start = runner.run(experiment(ITERATIVE, "iterative_global_80"), TINY, tmp_path, **QUIET)
    path = runner.run(experiment(prepare), TINY, tmp_path, **QUIET)
    before, after = (read_packed(p.with_suffix(".safetensors")) for p in (start, path))
    for name in before:
        if name.endswith("weight") and before[name].dim() > 1:
            assert not after[name][before[name] == 0].any(), name
    assert json.loads(path.read_text())["sparsity"] == pytest.approx(0.7, abs=0.05)


def test_pruning_and_quantizing_together_reaches_the_sparsity(tmp_path):
    prepare = partial(quantization.aware_while_pruning, n_bits=4, sparsity=0.7)
    record = json.loads(runner.run(experiment(prepare), TINY, tmp_path, **QUIET).read_text())
    assert record["sparsity"] >= 0.69
    assert record["test_accuracy"] == record["history"]["test_accuracy"][-1]


def test_rounding_after_training_trains_nothing(tmp_path):
    prepare = partial(quantization.after_training, n_bits=3, by_channel=True)
    path = runner.run(experiment(prepare), TINY, tmp_path, **QUIET)
    packed, start = read_packed(path.with_suffix(".safetensors")), tiny_model(seed=5).state_dict()
    assert torch.equal(packed["fc.weight"], start["fc.weight"])
    assert all(torch.equal(packed[name], tensor) for name, tensor in start.items() if "bn" in name)
    assert not torch.equal(packed["stage1.0.conv1.weight"], start["stage1.0.conv1.weight"])


CONVNET_FILE = {"filters": filter_l1_pruning, "weights": unstructured_pruning}


@pytest.mark.parametrize("kind", CONVNET_FILE)
def test_a_convnet_loses_half_of_itself_in_five_steps_also_when_it_is_interrupted(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(runner.EPOCHS, "quick", 10)
    seen = {}

    def prepare(setting):
        job = convnet.pruned(setting, prune=CONVNET_FILE[kind])
        note = {"after_epoch": lambda s: seen.update({s.epoch: gone(folded_copy(s.model), kind)})}
        return dataclasses.replace(job, hooks={**job.hooks, **note})

    chosen = dataclasses.replace(experiment(prepare), network="convnet")
    straight = runner.run(chosen, TINY, tmp_path / "straight", **QUIET)
    steps = [seen[epoch] for epoch in sorted(seen)]
    assert steps == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5], abs=0.02)
    pieces = run_in_pieces(chosen, tmp_path / "pieces", 4, monkeypatch)
    assert_same_network(straight, pieces)
    record = json.loads(straight.read_text())
    assert (record["network"], record["starts_from"], record["schedule"]) == ("convnet", "random weights", "multi_step(milestones=(0.25, 0.5, 0.75))")
    assert record["test_accuracy"] == record["history"]["test_accuracy"][-1]


def gone(model: torch.nn.Module, kind: str) -> float:
    """Share of the filters, or of the weights, of all convolutions that are zero."""
    weights = [layer.weight.detach().flatten(1) for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    if kind == "filters":
        return sum(int((~w.any(1)).sum()) for w in weights) / sum(len(w) for w in weights)
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def test_a_convnet_is_trained_by_either_schedule_from_the_seeds_weights(tmp_path):
    for name, lr, epochs in (("multistep", 0.1, 100), ("cosine", 0.1, 100), ("rate_0.0001", 0.0001, 5), ("rate_1", 1.0, 5)):
        row = catalogue.find(f"convnet_{name}")
        record = json.loads(runner.run(row, TINY, tmp_path, **QUIET).read_text())
        assert (record["epochs"], record["lr"], record["sparsity"], row.epochs) == (4, lr, 0.0, epochs)
        assert set(record["history"]["learning_rate"]) == {lr} or "rate" not in name
    data = TINY.load_dataset()
    one, same, other = (convnet.network(data, TINY, seed).conv1.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.fixture
def full_records(tmp_path, monkeypatch):
    """A folder with one record, and a catalogue of two rows."""
    monkeypatch.setattr(results, "catalogue", lambda: {"tiny": experiment(ITERATIVE), "other": experiment(ITERATIVE, "other")})
    monkeypatch.setitem(profiles.PROFILES, "quick", TINY)
    monkeypatch.setitem(results.PROFILES, "quick", TINY)
    return runner.run(experiment(ITERATIVE), TINY, tmp_path / "results", **QUIET)


def test_verify_accepts_what_was_written_and_notices_another_network(full_records):
    assert results.verify(full_records.parent) == []
    record = json.loads(full_records.read_text())
    full_records.write_text(json.dumps({**record, "test_accuracy": record["test_accuracy"] + 0.01}))
    folder = full_records.parent
    assert "its record says" in results.verify(folder)[0]
    packed = full_records.with_suffix(".safetensors")
    packed.write_bytes(packed.read_bytes()[:1000])
    anew = f"to make it anew: course experiment tiny --profile quick --out {folder} --force"
    [damaged] = results.verify(folder)
    assert "cannot be read" in damaged
    assert damaged.endswith(anew)
    packed.unlink()
    assert results.verify(folder) == [f"{packed} is missing; {anew}"]


def test_commands_have_the_options_that_differ_from_the_default(tmp_path):
    own = Repository.find().root / "results"
    assert catalogue.command("a", folder=own) == "course experiment a"
    assert catalogue.command("a", seed=2, folder=own, force=True) == "course experiment a --seed 2 --force"
    assert catalogue.command("a", profile="quick", folder=tmp_path) == f"course experiment a --profile quick --out {tmp_path}"


def test_the_page_shows_full_records_only_and_says_what_was_not_run(full_records, tmp_path):
    target = tmp_path / "docs" / "results.md"
    assert page.build_page(full_records.parent, target) == 0  # a quick run is no result
    assert target.read_text().count("not run yet") == 3  # the aim of both, and each row
    record = {**json.loads(full_records.read_text()), "profile": "full"}
    (full_records.parent / "tiny.json").write_text(json.dumps(record))
    assert page.build_page(full_records.parent, target) == 1
    text = target.read_text()
    assert f"| 0.5000 | 0.6000 | {record['test_accuracy']:.4f} | {record['test_accuracy'] - 0.5:+.4f} |" in text
    waiting = [line for line in text.splitlines() if "| not run yet |" in line]
    assert ["(`other`)" in line for line in waiting] == [True]
    assert "Of 1 aims " in text
    assert (target.with_suffix("") / "tiny.png").stat().st_size > 5000


@pytest.mark.parametrize(("accuracy", "reached", "missed"), [(0.6, 1, False), (0.5999, 0, True)])
def test_the_page_names_a_row_that_misses_its_target(full_records, tmp_path, accuracy, reached, missed):
    record = json.loads(full_records.read_text())
    full = {**record, "profile": "full", "test_accuracy": accuracy}
    (full_records.parent / "tiny.json").write_text(json.dumps(full))
    page.build_page(full_records.parent, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    assert f"**Of 1 aims {reached} are reached" in text
    tried = "- a tiny row: `tiny` 0.5999, 0.0001 below 0.6000; `other` has not run yet."
    assert (tried in text) == missed


def test_an_aim_is_reached_by_whichever_of_its_rows_reaches_it_and_else_shows_the_nearest():
    def row(name, *accuracies, target=0.6, published=None):
        chosen = dataclasses.replace(experiment(ITERATIVE, name), aim="one", target=target, published=published)
        return results.Row(chosen, tuple({"test_accuracy": accuracy} for accuracy in accuracies))

    def shown(*rows):
        [aim] = page._aims(list(rows))
        return page._aim_cells(aim)[1:]

    assert shown(row("a", 0.5), row("b", 0.7, 0.61), row("c", 0.9)) == [
        "-", "0.6000", "0.6550 (0.6100 to 0.7000, 2 seeds)", "`b`", "reached"]  # fmt: skip
    assert shown(row("a", 0.5), row("b", 0.55), row("c")) == ["-", "0.6000", "0.5500", "`b`", "**missed**"]
    assert shown(row("a", 0.65), row("b", 0.7, published=0.4)) == ["0.4000", "0.6000", "0.7000", "`b`", "reached"]
    assert shown(row("a"), row("b")) == ["-", "0.6000", "not run yet", "", ""]


def test_the_committed_records_hold_what_the_catalogue_says():
    folder = Repository.find().root / "results"
    full = profiles.PROFILES["full"]
    for path in sorted(folder.glob("*.json")):
        record = results.read_record(path)
        known = catalogue.find(record["experiment"])
        copies = {key: record[key] for key in ("table", "title", "published", "target", "starts_from", "network", "method")}
        assert copies == {
            "table": known.table, "title": known.title, "published": known.published, "target": known.target,
            "starts_from": known.starts_from(full), "network": known.network,
            "method": json.loads(json.dumps(runner.describe_method(known.prepare))),
        }, path  # fmt: skip
        assert record["seed"] in known.seeds
        assert path.stem == catalogue.record_name(known.name, record["seed"])
    for key, name in (("multi_step", "convnet_multistep"), ("cosine", "convnet_cosine")):
        assert convnet.MEASURED[key] == results.read_record(folder / f"{name}.json")["test_accuracy"]


def test_every_method_has_four_sparsities_and_its_line_in_the_picture(full_records, tmp_path, monkeypatch):
    by_curve = {}
    for row in pruning.EXPERIMENTS:
        by_curve.setdefault(row.curve, set()).add(int(re.search(r"_(\d\d)(_|$)", row.name)[1]))
    assert len(by_curve) == 7  # four methods, two of them with statistics measured anew too, and the rows that are none
    assert all({50, 80, 90, 95} <= percents for curve, percents in by_curve.items() if curve)

    record = {**json.loads(full_records.read_text()), "profile": "full"}
    names = {"one": ("a", 0.2), "two": ("a", 0.1), "three": ("b", 0.3), "left_out": ("", 0.4)}
    rows = {name: dataclasses.replace(experiment(ITERATIVE, name), table=pruning.METHODS_TABLE, curve=curve)
            for name, (curve, _) in names.items()}  # fmt: skip
    monkeypatch.setattr(results, "catalogue", lambda: rows)
    for name, (_, sparsity) in names.items():
        (full_records.parent / f"{name}.json").write_text(json.dumps({**record, "sparsity": sparsity}))
    drawn = []
    save = lambda figure, path, **options: drawn.append((path.name, figure.axes[0].lines))  # noqa: E731
    monkeypatch.setattr(page.Figure, "savefig", save)
    page.build_page(full_records.parent, tmp_path / "results.md")
    lines = dict(drawn)["accuracy_against_sparsity.png"]
    assert [list(line.get_xdata()) for line in lines[:2]] == [[0.1, 0.2], [0.3]]
    assert list(lines[2].get_ydata()) == [0.9427, 0.9427]  # the checkpoint's own record


def test_a_trial_in_the_quick_profile_takes_no_results_place(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "find", lambda name: experiment(ITERATIVE))
    monkeypatch.setitem(profiles.PROFILES, "quick", TINY)
    (tmp_path / "tiny.json").write_text("the published row")

    def run(*options):
        done = CliRunner().invoke(app, ["experiment", "tiny", "--out", str(tmp_path), *options], catch_exceptions=False)
        return "there already" in done.output

    assert not run("--profile", "quick", "--seed", "2")
    assert json.loads((tmp_path / "tiny.quick.seed2.json").read_text())["profile"] == "quick"
    assert run("--profile", "quick", "--seed", "2")
    assert not run("--profile", "quick", "--seed", "2", "--force")
    assert run("--profile", "full", "--seed", "0")
    assert (tmp_path / "tiny.json").read_text() == "the published row"


def test_the_committed_page_is_that_of_the_committed_records(tmp_path):
    root = Repository.find().root
    page.build_page(root / "results", tmp_path / "results.md")
    assert (tmp_path / "results.md").read_text() == (root / "docs" / "results.md").read_text(), "run: course results"
    pictures = {path.name for path in (tmp_path / "results").iterdir()}
    assert pictures == {path.name for path in (root / "docs" / "results").iterdir()}


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "odd.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"odd\.json is not a record"):
        results.read_record(tmp_path / "odd.json")
    whole = json.loads((Repository.find().root / "results" / "prune_layer_40.json").read_text())
    for change, words in (({"ran_on": None}, "it has no ran_on"), ({"profile": "huge"}, r"one of .*'quick'.*, got 'huge'")):
        broken = {key: value for key, value in (whole | change).items() if value is not None or key not in change}
        (tmp_path / "odd.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=words):
            results.read_record(tmp_path / "odd.json")
