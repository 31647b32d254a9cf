"""Sentences of the documentation that have numbers, made from the files that commands wrote.

`CLAIMS` names the page of each; lines may be broken anywhere in it.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from device_runs import FLOAT64_APART, LOSSES_APART

from benchmarks.architectures import MODELS, forward_flop
from benchmarks.peaks import published_peak
from glow_jax.cli import from_openai, from_torch
from glow_jax.config import DataConfig, ModelConfig, TrainingConfig
from glow_jax.config.presets import PRESETS
from glow_jax.data.memory import _LEAST as LEAST_DECODING_MEMORY
from glow_jax.demo.limits import MOST_BYTES
from glow_jax.devices.processes import _JOINING_SECONDS as JOINING_SECONDS
from glow_jax.hub import read_config
from glow_jax.model import abstract_glow, parameter_count
from glow_jax.training.trainer import _SKIPS_THAT_STOP as SKIPS_THAT_STOP
from tests.fuzz.watch import Limits

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "docs" / "benchmarks"
SHIPPED = REPOSITORY / "models" / "fashion_mnist"
TASKS = ("training", "likelihood", "sampling")  # of the table of an H200
WORDS = {5: "five", 10: "ten"}
Sentences = Iterator[str]


def read(name: str) -> Any:
    """A file of figures."""
    return json.loads((BENCHMARKS / name).read_text())


def parameters(config: ModelConfig) -> int:
    """The number of a model's parameters."""
    return parameter_count(abstract_glow(config))


def millions(config: ModelConfig) -> str:
    return f"{parameters(config) / 1e6:.1f} million parameters"


def readme() -> Sentences:
    of_depth = {row["K"]: row["reversible"][0] for row in read("memory.json")["rows"]}
    assert of_depth[4] == of_depth[64]
    yield "temporary memory is the same for 64 steps of flow as for four"
    kills = read("faults.json")["rows"][0]
    assert kills["fault"] == "kill -9 at random moments"
    yield f"[{kills['outcome'].split(',')[0]} at random moments](docs/faults.md)"
    compared = read("parity.json")
    public = compared["JAX and the public implementations"].keys()
    # Likelihoods, or the two parts of one, and latents of each program.
    assert {"evaluation: bits/dim", "evaluation: z"} <= public
    assert {"bits_x", "z_top"} <= compared["JAX and openai/glow's TensorFlow, float32"].keys()
    assert {"rosinality: bits/dim", "rosinality: latents"} <= public
    parts = {f"chaiyujin: {part} / (D log 2)" for part in ("flow_objective", "prior_log_prob")}
    assert parts | {"chaiyujin: z"} <= public
    yield "compared with those of Glow-PyTorch, openai/glow and two more programs"
    assert from_torch.Arguments.check
    assert from_openai.Arguments.check
    yield "Conversion of their checkpoints is proved before it is written, unless `--no_check`"


def accelerators() -> Sentences:
    rows = read("ahead_of_time.json")["rows"]
    count = parameters(MODELS["published"])
    yield f"the gradient, {4 * count / 1e6:.1f} MB for {millions(MODELS['published'])}"
    fast, remat = (
        rows[f"8 x H100, cifar10, 64 each: training {memory} highest"]["temporary"]
        for memory in ("fast", "remat")
    )
    yield f"`fast` keeps {(fast - remat) / 64 / 2**20:.0f} MiB an image more than `remat`"
    celeba256 = "8 x H100, celeba256, 5 each: training"
    kept, reversible = (
        rows[f"{celeba256} {how}"]["temporary"] / 2**20
        for how in ("remat high", "reversible highest")
    )
    yield f"for `celeba256` it saves {kept - reversible:.0f} MiB of {kept:.0f}"
    fast, remat = (kernels_of_a_step(memory) for memory in ("fast", "remat"))
    yield f"launches {fast:,} kernels on a GPU"
    yield f"and `remat` {remat:,}."
    longest = max(row["seconds"] for row in rows.values())
    yield f"A program took up to {longest / 60:.0f} minutes on the busy machine"


def kernels_of_a_step(memory: str) -> int:
    """What a training step of the published size launches on an H100."""
    rows = read("ahead_of_time.json")["rows"]
    return rows[f"8 x H100, cifar10, 64 each: training {memory} high"]["kernels"]


def data() -> Sentences:
    config, training = DataConfig(), TrainingConfig()
    yield f"`--memory_limit` gigabytes ({config.memory_limit:g})"
    yield f"`--picture_limit` megapixels ({config.picture_limit:g})"
    yield f"within {LEAST_DECODING_MEMORY / 1e9:g} GB of memory"
    batches, batch = training.n_init_batches, training.batch_size
    yield f"fewer than {batches} * {batch} = {batches * batch} training pictures"


def data_speed() -> Sentences:
    garments, jpegs = read("data_fashion_mnist.json"), read("data_jpegs.json")
    for found in (garments, jpegs):
        yield (
            f"K = {found['K']}, L = {found['L']}, {found['hidden_channels']} hidden channels and "
            f"batches of {found['batch_size']}. Each row times {found['seconds']} seconds"
        )
        yield f"the training step alone reaches {found['step_alone']:,.0f} images/s."


def demo() -> Sentences:
    yield f"Requests of more than {MOST_BYTES / 2**20:.0f} MiB are refused before they are read"


def devices() -> Sentences:
    apart, exact = (f"{most:.0e}".replace("e-0", "e-") for most in (LOSSES_APART, FLOAT64_APART))
    yield f"differ by less than {apart} bits/dim in float32"
    yield f"in float64, losses and parameters differ by less than {exact}"
    yield f"gives up after {WORDS[JOINING_SECONDS // 60]} minutes"


def evaluating() -> Sentences:
    yield f"{math.log2(10) / 28**2:.4f} for ten classes and 28 x 28 values"


def faq() -> Sentences:
    digits, inverse = read("baseline_digits.json"), read("inverse.json")
    yield (
        f"digits ({digits['images']} test images) the mean over images differs by "
        f"{digits['deviation_of_draws']:.3f} from draw to draw (standard deviation of "
        f"{digits['draws']}), at {digits['glow']:.3f} bits/dim"
    )
    yield f"with {inverse['samples']:,} samples each"
    affine, additive = (run["bits_per_dim"] for run in inverse["runs"].values())
    yield f"The models' test bits/dim are {affine:.2f} and {additive:.2f}."
    yield f"with {inverse['images']} test images, whose values have a range of 1 (a bin is 1/16)"
    yield f"{28**2} / {32**2} = {28**2 / 32**2:.2f} of its bits/dim"

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    yield f"s starts at sigmoid(2) = {sigmoid(2):.2f}"
    yield f"sigmoid(-h - 2): {sigmoid(-2):.2f} at the start"
    yield f"with these constants, by {(1 - 0.9) / (1 - 0.9 / 0.999):.2f} lr at most"
    yield f"sqrt(1 - 0.999) = {(1 - 0.9) / math.sqrt(1 - 0.999):.1f} lr"


def getting_started() -> Sentences:
    bits = read("baseline_digits.json")["n_bits"]
    yield f"needs {bits} bits for each of these values"


def models() -> Sentences:
    results = json.loads((SHIPPED / "config.json").read_text())["results"]
    count = parameters(read_config(SHIPPED).model)
    levels = ", ".join(f"{share:.3f}" for share in results["level_bits_per_dim"])
    yield (
        f"It has {count:,} parameters ({4 * count / 1e6:.1f} MB), and "
        f"{results['bits_per_dim']:.4f} +- {results['standard_error']:.4f} bits/dim on the "
        f"{results['images']:,} test images (levels: {levels})"
    )
    error = max(results["reconstruction_max_abs_error"].values())
    yield f"encode -> decode is {error:.1e}, or {256 * error:.2f} grey levels"
    assert results["reconstruction_images_off"] == 0
    trainings = (BENCHMARKS / "fashion_mnist_first.jsonl", SHIPPED / "metrics.jsonl")
    first, second = (hours(training) for training in trainings)
    yield f"The first took {first:.1f} hours on a core that it shared"
    yield f"the second {second:.1f} hours."
    yield f"needs {read('baseline_fashion_mnist.json')['gaussian']:.3f} (`python benchmarks/"
    framed = 2.958
    yield f"report {framed} bits/dim"
    yield f"that is {framed * 32**2 / 28**2:.2f} over the image's own {28**2} values"
    classes = labelled("fashion_mnist_classes")
    yield (
        f"accuracy of {classes['classifier_accuracy']:.3f}, and the class of the largest "
        f"likelihood one of {classes['likelihood_accuracy']:.3f}"
    )
    yield f"Knowing the class saves {classes['class_bits_per_dim']:.4f} bits/dim"
    assert classes["reconstruction_images_off"] == 1
    yield f"One of {classes['images']:,} test images does not come back"


def hours(metrics: Path) -> float:
    """What a training took, with its evaluations."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return sum(value for row in rows for name, value in row.items() if "seconds_" in name) / 3600


def labelled(name: str) -> Any:
    """The results of a model that is conditional on labels."""
    folder = REPOSITORY / "models" / name
    return json.loads((folder / "config.json").read_text())["results"]


def openai() -> Sentences:
    found = read("conversion.json")["rows"]["openai/glow, with averages and the optimizer's state"]
    yield (
        f"{found['bytes'] / 1e6:.0f} MB with averages and Adamax's state, random weights) is "
        f"converted and proved in {found['cpu_seconds']:.0f} s of CPU and "
        f"{found['peak_bytes'] / 1e9:.1f} GB"
    )


def out_of_distribution() -> Sentences:
    found = read("ood.json")
    digits, garments = (found[f"{side}_distribution"]["bits_per_dim"] for side in ("out_of", "in"))
    yield f"cost it {digits:.3f} bits/dim; garments, which it was trained on, cost {garments:.3f}."
    area, passing = (
        {name: score[figure]["value"] for name, score in found["scores"].items()}
        for figure in ("auroc", "fpr95")
    )
    yield f"likelier than a garment in {100 * (1 - area['likelihood']):.0f} of 100 pairs"
    assert area["png"] < area["likelihood"] < 0.5 < area["level_2"]
    tests = found["typicality_test"]["batches"]
    assert [test["size"] for test in tests] == [1, 2, 10, 25]
    assert tests[-2]["rejected_out"] == 1
    for side, kind in (("out", "of the batches of digits"), ("in", "of those of garments")):
        *shares, last = (f"{100 * test[f'rejected_{side}']:.1f} %" for test in tests)
        yield f"{', '.join(shares)} and {last} {kind}"
    yield f"ratio, at {area['likelihood_ratio']:.3f}, repairs most of it"
    yield f"accepts {100 * passing['likelihood_ratio']:.0f} % of the digits where it accepts 95 %"
    yield f"WAIC, at {area['waic']:.3f}, is better than the likelihood and worse than a coin"
    assert area["likelihood"] < area["waic"] < 0.5
    yield f"{100 * passing['typicality']:.0f} % of digits pass when 95 % of garments do"
    yield from pairs()


def pairs() -> Sentences:
    """What is said of the table of pairs."""
    found = read("ood_pairs.json")
    areas = {
        score: dict(zip(found["pairs"], (one["value"] for one in row["pairs"]), strict=True))
        for score, row in found["auroc"].items()
    }
    kde, svm, likelihood = (areas[score] for score in ("dose_kde", "dose_svm", "likelihood"))
    near = ("mirrored", "upside_down", "rotated", "blurred")
    far = [
        pair
        for pair in svm
        if pair.startswith("digits / ")
        or (pair.startswith("fashion_mnist / ") and pair.split(" / ")[1].split(":")[0] not in near)
    ]
    assert len(far) == 12
    least = math.floor(1000 * min(svm[pair] for pair in far)) / 1000
    yield f"`dose_svm` is at {least:.3f} or above on every far pair in both directions"
    (missed,) = (pair for pair in far if kde[pair] < 0.95)
    assert missed == "fashion_mnist / enlarged_digits"
    yield f"miss 0.95 once, at {kde[missed]:.3f} for enlarged digits"
    worse = {pair for pair in svm if svm[pair] < likelihood[pair]}
    blurred = "fashion_mnist / blurred:0.5"
    assert all(pair.startswith("digits / ") for pair in worse - {blurred})
    assert all(likelihood[pair] - svm[pair] < 0.001 for pair in worse - {blurred})
    assert min(svm[pair] for pair in worse - {blurred}) > 0.999
    yield (
        f"is clearly below the likelihood once, on garments blurred by half a pixel: "
        f"{svm[blurred]:.3f} against {likelihood[blurred]:.3f}"
    )
    bags = "garments_without_bags / bags"
    assert max(areas, key=lambda score: areas[score][bags]) == "level_2"
    yield f"Bags it sees at {svm[bags]:.3f}, the likelihood at {likelihood[bags]:.3f}"
    rejected = {
        name: score["threshold"]["rejected_in"]
        for name, score in found["comparisons"][0]["scores"].items()
        if score["threshold"]
    }
    assert min(rejected, key=lambda name: rejected[name]) == "gradient_norm"
    assert max(rejected, key=lambda name: rejected[name]) == "dose_kde"
    low, high = min(rejected.values()), max(rejected.values())
    yield f"reject {100 * low:.1f} % (the gradient norm) to {100 * high:.1f} % (`dose_kde`)"


def h200() -> dict[tuple[str, str], dict[str, str]]:
    """The speeds of an H200: a row's cells by its task and its arithmetic."""
    lines = (REPOSITORY / "docs" / "benchmarks" / "h200_speed.md").read_text().splitlines()
    head, _, *rows = (
        [cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines if "|" in line
    )
    found = (dict(zip(head, row, strict=True)) for row in rows)
    return {(row["images/s"], row["arithmetic"]): row for row in found}


def saved_by_tf32(task: str, side: str = "glow-jax") -> float:
    """How many times as fast an H200 is with TF32 as without."""
    fast, exact = (float(h200()[task, a][side]) for a in ("TF32 allowed", "float32"))
    return fast / exact


def gpu() -> Sentences:
    rows = h200()
    training, likelihood, sampling = (
        rows[task, "TF32 allowed"]["over torch.compile"].split("*")[0] for task in TASKS
    )
    assert all(
        max(sides, key=lambda side: float(row[side])) == "torch.compile"
        for row in rows.values()
        for sides in [("reference", "layer by layer", "torch.compile")]
    )
    yield f"training is {training} times as fast as the reference by `torch.compile`"
    yield f"likelihoods {likelihood} times and samples {sampling} times"
    best = max(float(rows["training", a]["torch.compile"]) for a in ("TF32 allowed", "float32"))
    over_best = float(rows["training", "TF32 allowed"]["glow-jax"]) / best
    yield f"training is {over_best:.2f} times as fast."
    by_default = [
        float(rows[task, "float32"]["glow-jax"])
        / float(rows[task, "TF32 allowed"]["torch.compile"])
        for task in ("likelihood", "sampling")
    ]
    yield f"They are then {by_default[0]:.2f} and {by_default[1]:.2f} times as fast"
    saved = [saved_by_tf32(task) for task in ("training", "likelihood")]
    yield f"a factor of {saved[0]:.2f} to glow-jax in training"
    yield f"in training, and of {saved[1]:.2f} in likelihoods"
    theirs = [saved_by_tf32(task, "torch.compile") for task in ("training", "sampling")]
    yield f"trains at {theirs[0]:.2f} times its float32 speed and samples at {theirs[1]:.2f} times"
    shares = [
        int(part.rstrip("%"))
        for task in TASKS
        for part in rows[task, "TF32 allowed"]["of peak"].split(", ")[1:]
    ]
    yield f"They reach {min(shares)} % to {max(shares)} % of the machine's TF32 products"
    share = rows["training", "TF32 allowed"]["glow-jax of the published peak"]
    yield f"at {share.replace('%', ' %')} of the published peak of TF32 in training"
    taken = 1e3 * 64 / float(rows["training", "TF32 allowed"]["glow-jax"])
    kernels = kernels_of_a_step("fast")
    yield f"The step took {taken:.1f} ms, and launches {kernels:,} kernels today"
    yield f"about {1e3 * taken / kernels:.0f} us for each"
    h200_peak = published_peak("NVIDIA H200")
    assert h200_peak is not None
    positions, hidden = 64 * 16 * 16, 512
    layer, flop = 4 * positions * hidden, 2 * positions * hidden**2
    yield f"is {layer / 1e6:.0f} MB. Reading it and writing the next one takes"
    yield f"takes {1e6 * 2 * layer / 4.8e12:.0f} us at the card's 4.8 TB/s"
    yield f"{flop / 1e9:.1f} GFLOP, takes {1e6 * flop / h200_peak.at('high'):.0f} us"


def parity() -> Sentences:
    yield millions(MODELS["published"])


def precision() -> Sentences:
    h100 = published_peak("NVIDIA H100 80GB HBM3")
    assert h100 is not None
    yield f"{h100.float32:g} TFLOP/s in float32 and {math.ceil(h100.tf32)} in TF32 (dense)"
    yield f"{h100.tf32 / h100.float32:.1f} times as fast"
    assert published_peak("NVIDIA H200") == h100
    yield f"training at batch 64 is [{saved_by_tf32('training'):.2f} times](gpu.md) as fast"
    yield f"2^-11 = {2**-11:.1e} of itself".replace("e-0", "e-")
    config = PRESETS["cifar10"].model
    halves = [
        config.image_shape[0] * config.image_shape[1] * 3 // 2**level // 2
        for level in range(config.L)
    ]
    terms, values = config.K * sum(halves), math.prod(config.image_shape)
    sums = " + ".join(map(str, halves))
    yield f"(K = {config.K}, L = {config.L}, D = {values})"
    yield f"N = {config.K} * ({sums}) = {terms:,}"
    independent, alike = (n / (values * math.log(2)) for n in (math.sqrt(terms), terms))
    e = 5e-4
    yield f"= {independent:.2f} e | {independent * e:.0e} in an image".replace("e-0", "e-")
    yield f"= {alike:.0f} e | {alike * e:.2f} |"
    found = read("precision.json")
    rows = {row["products"]: row for row in found["rows"]}
    yield f"It takes {found['images']} garments, which have {found['bits_per_dim']:.3f} bits/dim."
    yield f"the mean over {found['in_a_gradient']} of them"
    yield f"changes an image's bits/dim by {rows['TF32']['rms']:.0e}."
    shipped = read_config(SHIPPED).model
    values = math.prod(shipped.image_shape)
    terms = shipped.K * sum(values // 2**level // 2 for level in range(shipped.L))
    estimate = e * math.sqrt(terms) / (values * math.log(2))
    assert estimate < rows["TF32"]["rms"] < 10 * estimate
    yield f"is {estimate:.1e} for this model (N = {terms:,}, D = {values})"
    cut = rows["TF32, cut off instead of rounded"]
    assert all(cut[name] > 2 * rows["TF32"][name] for name in ("rms", "gradient"))
    for row in (cut, rows["TF32"]):
        assert abs(row["change"]) < row["rms"] / math.sqrt(found["images"])
    yield f"by less than {found['images']} images can show."
    jumps, exact = (rows[name]["reversible"] for name in ("TF32", "float32"))
    yield f"`remat` by {jumps:.1e} of its norm in TF32, and by {exact:.1e} in float32"


def over_the_first(rows: list[Any], row: Any) -> str:
    """What a recipe of the ablation needs more than the first, with its standard error."""
    pairs = zip(row["outcomes"], rows[0]["outcomes"], strict=True)
    more = [one["bits_per_dim"] - other["bits_per_dim"] for one, other in pairs]
    return f"{np.mean(more):.3f} +- {np.std(more, ddof=1) / math.sqrt(len(more)):.3f}"


def recipes() -> Sentences:
    half_way = 2e-3 * (1 + math.cos(math.pi / 2)) / 2
    yield f"after 8 epochs instead of 4: the learning rate goes on at {half_way:.2e}"
    found = read("ablation.json")
    mean = {
        row["recipe"]: float(np.mean([one["bits_per_dim"] for one in row["outcomes"]]))
        for row in found["rows"]
    }
    of = {name: f"{value:.3f}" for name, value in mean.items()}
    sizes = ("the recipe", "batch 64", "batch 512, accumulated")
    assert mean["batch 512, four times the rate"] > mean[sizes[2]]
    yield "{} at 32, {} at 64, {} at 512".format(*(of[name] for name in sizes))
    twice, warm = "adamax, twice the rate", of["adam, warm-up of an epoch"]
    gained = mean[twice] - mean[f"{twice}, warm-up"]
    yield f"is worth {gained:.3f} to Adamax ({of[twice]} to {of[f'{twice}, warm-up']})"
    more = {row["recipe"]: over_the_first(found["rows"], row) for row in found["rows"]}
    yield f"changes Adam by {more['adam, warm-up of an epoch']}"
    yield f"{of[f'{twice}, warm-up']} with warm-up and twice the rate, {warm} by Adam with warm-up"
    yield f"better than a constant rate by {more['constant rate']}"
    yield f"than half of that rate by {more['constant rate, half of it']}"
    yield f"{of['no averaging']} without it"
    yield f"told the class needs {more['told the class']} more"
    first, variational = (rows := read("ablation_dequantization.json")["rows"])
    assert first["recipe"] == "the recipe"
    yield (
        f"In {variational['relative_time']:.2f} of the time variational dequantisation needs "
        f"{over_the_first(rows, variational)} more"
    )


def scaling() -> Sentences:
    found = read("scaling.json")
    given, cifar10 = found["assumptions"], found["models"]["cifar10"]
    yield f"{given['passes']:g} times the forward pass"
    a100 = published_peak("A100")
    assert a100 is not None
    yield f"{given['flops'] / 1e12:g} TFLOP/s in float32 in practice (an A100's peak is {a100[0]})"
    yield f"| {given['nvlink'] / 1e9:g} GB/s bus bandwidth"
    yield f"{given['network'] / 1e9:g} GB/s in practice, and {given['hop'] * 1e6:g} us per hop"
    size, flop = 4 * cifar10["parameters"] / 1e6, cifar10["forward_flop"] / 1e9
    yield (
        f"512 hidden: {cifar10['parameters'] / 1e6:.1f} million parameters, so {size:.0f} MB; "
        f"forward {flop:.1f} GFLOP an image"
    )
    others = [found["models"][name]["parameters"] / 1e6 for name in ("imagenet64", "celeba256")]
    yield f"`imagenet64` ({others[0]:.0f} million parameters) and `celeba256` ({others[1]:.0f} mil"
    rows = {(row["preset"], row["gpus"], row["batch"]): row for row in found["rows"]}
    near, far = (1e3 * rows["cifar10", gpus, 512]["network"] for gpus in (64, 512))
    nvlink = 1e3 * rows["cifar10", 8, 64]["nvlink"]
    yield f"{size:.0f} MB / {given['nvlink'] / 1e9:g} GB/s = {nvlink:.1f} ms."
    yield f"+ 14 hops = {near:.1f} ms; between 64 nodes {far:.1f} ms."
    yield (
        f"{given['passes']:g} * {flop:.1f} GFLOP / {given['flops'] / 1e12:g} TFLOP/s = "
        f"{given['passes'] * flop * 1e9 / given['flops'] * 1e3:.1f} ms"
    )


def security() -> Sentences:
    limits = Limits()
    yield f"each within {limits.memory / 2**30:g} GB and {limits.seconds} s"


def speed() -> Sentences:
    rates = {
        (row["model"], row["task"], row["batch_size"]): row for row in read("speed.json")["rows"]
    }

    def over(key: tuple[str, str, int], side: str) -> float:
        sides = rates[key]["rates"]
        return float(np.median(np.divide(sides["jax"], sides[side])))

    assert min(over(key, "torch_compiled") for key in rates) > 1
    yield "By the median of the rounds, glow-jax is ahead of `torch.compile` in every row."
    at_16 = "published", "training", 16
    training = rates[at_16]
    reached = np.multiply(training["rates"]["jax"], training["flop_per_image"])
    share = float(np.median(np.divide(reached, training["peak_flops"])))
    yield (
        f"at {over(at_16, 'torch_layers'):.2f} times layer by layer and "
        f"{100 * share:.0f} % of the peak"
    )
    ideal = over(at_16, "torch_compiled") * 0.8 / share
    yield f"it would be {ideal:.2f} times `torch.compile`"
    flop = forward_flop(MODELS["published"]) / 1e9
    yield f"sample takes {flop:.1f} GFLOP and a training step {3 * flop:.1f}."
    small = MODELS["small"]
    height, width, _ = small.image_shape
    yield (
        f"The small model has K = {small.K}, L = {small.L} and {small.hidden_channels} hidden "
        f"channels, on images of {height}x{width}."
    )
    yield f"temporary memory of a gradient at batch {read('memory.json')['batch_size']}"
    found: Mapping[str, float] = read("trained.json")["trained"]
    apart = found["reversible gradient after 200 steps, relative difference"]
    yield f"the whole gradient differs by {apart:.1e} of its norm"
    yield f"change by {found['bits/dim in bfloat16 minus float32']:+.4f} with its networks in"
    errors = [
        found[f"reconstruction error, {name}"]
        for name in ("bfloat16", "float32", "bfloat16, decoded in float32")
    ]
    yield f"reconstructs images to {errors[0]:.1e} (float32: {errors[1]:.1e};"
    yield f"decoded in float32: {errors[2]:.1e})"


def training() -> Sentences:
    found = read("saving.json")
    waited, whole = (max(row[name] for row in found["rows"]) for name in ("waited", "whole"))
    yield f"{found['parameters'] / 1e6:.1f} million parameters and the optimizer's state"
    yield f"waits up to {waited:.1f} s, and the checkpoint is complete after {whole:.1f} s"
    yield f"After {WORDS[SKIPS_THAT_STOP]} skips in a row"
    yield f"its batch of {TrainingConfig().batch_size}"


CLAIMS: Mapping[str, Callable[[], Sentences]] = {
    "README.md": readme,
    "SECURITY.md": security,
    **{
        f"docs/{make.__name__}.md": make
        for make in (
            *(accelerators, data, data_speed, demo, devices, evaluating, faq, getting_started, gpu),
            *(
                models,
                openai,
                out_of_distribution,
                parity,
                precision,
                recipes,
                scaling,
                speed,
                training,
            ),
        )
    },
}
"""What each page must say."""
