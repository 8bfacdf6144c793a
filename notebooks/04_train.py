# ---
# jupyter:
#   accelerator: GPU
#   jupytext:
#     cell_metadata_filter: tags,cellView,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,accelerator,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/04_train.ipynb)

# %% [markdown]
# # 4 · Train a detector
#
# A network with random weights answers at random. Training turns millions of small screws until it answers rightly, on
# images that it has seen and, if all goes well, on others too. Here every part of that is taken apart, tried in
# seconds, and then put together for the real run, which you may interrupt whenever you like.
#
# **In this notebook you**
# - build a residual network that takes raw gray values, learns three classes and answers one question
# - see what transfer learning, a borrowed look, number formats, class weights, label smoothing, schedule and averaging
#   each do
# - compile and fit a network with your own hands, on one batch
# - train the detector, pull the plug on a run, and prove that nothing was lost
# - read training curves, and know which number must not choose
#
# | | |
# |---|---|
# | **Time** | under a minute with the phantom; on real images it is measured below, before the long part begins |
# | **Hardware** | a GPU for the preset `full`; two processor cores for `quick` and `cpu` |
# | **Needs** | the data set (found or fetched by itself); nothing from earlier notebooks |
# | **Leaves** | a detector, in the folder of a run: settings, split, log, checkpoints, predictions |

# %% cellView="form" tags=["setup"]
# @title Set-up: in Colab this installs pneumolib, elsewhere it only imports it
import importlib.util
import subprocess
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("pneumolib") is None:
    home = "https://github.com/pneumolib/pneumolib"
    # Without dependencies, so that nothing that Colab has can change; the list names all that it lacks.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.check_call([*pip, "--requirement", f"{home}/raw/v0.1.0/requirements-colab.txt"])
    subprocess.check_call([*pip, f"{home}/archive/refs/tags/v0.1.0.zip"])

import pneumolib as pn

# %% cellView="form"
# @title Settings: "auto" takes the full settings where there is a GPU, else the quick ones
PRESET = "auto"  # @param ["auto", "full", "cpu", "scratch", "quick", "ci"]
SAVE_TO_DRIVE = False  # @param {type: "boolean"}
config = pn.Config.preset(PRESET)

# %%
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pneumolib import runtime
from pneumolib.config import PRESETS
from pneumolib.evaluation import plots
from pneumolib.models import batches, training
from pneumolib.models.mixstyle import MixStyle
from pneumolib.models.resnet import freeze_backbone, unfreeze_backbone

keras = runtime.keras()
plt.rcParams["figure.dpi"] = 80
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## What we compute on
# The hardware decides which network is sensible. A line says what this runtime has, and in which number format it
# computes fastest.

# %%
print(runtime.describe())
if not runtime.has_gpu():
    print("No GPU here. Nothing is wrong: 'auto' takes a small network that two processor cores can train.")
    print("In Colab, a GPU is under Runtime > Change runtime type > T4 GPU. Save, then Runtime > Run all.")

# %% [markdown]
# A GPU does thousands of small multiplications at the same time, and a network is hardly anything else. The large
# network of the preset `full` takes minutes on a GPU and days on two cores; the small one is made for the cores.

# %% [markdown]
# ## The settings, with their reasons
# A `Config` holds everything that decides the result. It is frozen, every field is checked, and equal settings on equal
# data give equal weights on a processor. Here are the presets side by side, and why each field is there.

# %%
WHY = {
    "architecture": "deep enough for faint signs; the residual links keep it trainable",
    "size": "side of the square image: larger shows finer signs and costs its square",
    "margin": "what stands at the edges, letters and ends of films, tells who took it",
    "width": "filters of the first stage (ResNet-18 and -34)",
    "weights": "start from a network that has seen a million photographs, or from chance",
    "frozen_epochs": "first let the new head settle, then touch what was learnt elsewhere",
    "augmentation": "what may change without changing the diagnosis: notebook 3",
    "mix_style": "how often an image is lent the look of another, inside the net: below",
    "epochs": "how often each image is seen, never twice the same way",
    "batch_size": "images for one turn of the screws",
    "min_steps": "turns of an epoch at least, so that a small data set is seen often enough",
    "learning_rate": "how far a turn goes, at its highest",
    "fine_tune_learning_rate": "smaller, once borrowed weights move",
    "weight_decay": "pulls weights to zero that nothing holds: simpler answers",
    "dropout": "hides a part of the last features, so that no answer hangs on one",
    "label_smoothing": "asks for nearly sure instead of infinitely sure",
    "class_weights": "the rare class counts as much as the common one",
    "export_weights": "may let rare pairs of device and class count more (notebook 2); costs more than it helps",
    "average_weights": "momentum of the average that is kept in the end",
}
table = pd.DataFrame({name: pn.Config.preset(name).to_dict() for name in PRESETS}).loc[list(WHY)]
table.assign(why=WHY)

# %%
print(f"This run: preset {config.name!r}, {config.architecture} at {config.size} pixels, {config.epochs} epochs")

# %% [markdown]
# `full` borrows a large network and needs a GPU; `cpu` borrows a small one and gives the reference result in the
# [README](../README.md); `scratch` trains a compact one from nothing; `quick` is the same, smaller and shorter, for a
# first walk; `ci` shows that everything runs and proves nothing. A value that makes no sense is refused at once, not
# after an hour:

# %% tags=["nbval-check-output"]
try:
    config.replace(label_smoothing=0.7)
except pn.errors.ConfigError as error:
    print(error)

# %% [markdown]
# ## The data, by patient
# [Notebook 2](02_explore.ipynb) shows why the images are divided by patient, and why there is a second, *shifted*
# validation part. Two lines do it here. The test images are not opened in this notebook at all.

# %%
data = pn.load_dataset(config=config)
split = pn.split_by_patient(data.train, seed=config.seed)
mark = "PHANTOM: " if data.phantom else ""
split.table().groupby(["part", "subtype"]).size().unstack(fill_value=0).loc[["train", "val", "shifted"]]

# %% tags=["nbval-check-output"]
for pair, shared in split.proof()["overlaps"].items():
    print(f"{pair:16} share {shared} patients")

# %% [markdown]
# Now decode. Each image becomes a square of gray values, once; from then on they lie in one file that training reads
# without decoding anything.

# %%
began = time.perf_counter()
images = split.train.images(config.size)
print(f"{mark}{len(images):,} images of {config.size} x {config.size}, ready in {time.perf_counter() - began:.1f} s")

# %% [markdown]
# Run the cell a second time, if you like, and compare.

# %% [markdown]
# ## The network
# A **residual network** is a pile of blocks. Each block looks at its input through two or three small filters and
# *adds* what it finds: `output = input + finding`. A block that has nothing to say adds zero and does no harm, and the
# way back, along which corrections travel when it learns, has a short cut past every block. That is why such piles can
# be deep.

# %%
model = pn.build_model(config)
rows = [(layer.name.split("_")[0], layer.output.shape[1:], layer.count_params()) for layer in model.layers]
layers = pd.DataFrame(rows, columns=["part", "output", "parameters"]).groupby("part", sort=False)
layers.agg(layers=("output", "size"), output=("output", "last"), parameters=("parameters", "sum"))

# %% [markdown]
# Read it from the top. The picture gets smaller and the list of features longer: many places with little meaning become
# few places with much. `features` is the last map, `pooled` its mean over all places, and `logits` one number for each
# class. Most parameters sit near the end, where the features are many.
#
# **Pixels inside.** The very first layer rescales, so the model takes gray values from 0 to 255 as they come out of a
# file. A famous mistake, feeding a network numbers in another range than it was trained with, has no place to happen.
#
# **Three classes inside, two outside.** File names tell bacterial from viral, and it is easier to learn two patterns
# than one that looks like either. The answer is the sum: P(pneumonia) = 1 - P(normal).

# %% tags=["nbval-check-output"]
x = split.val.images(config.size)[:4, ..., None].astype("float32")
p = np.asarray(model(x))
print("classes:", *config.class_names)
print("pixels go in raw, 0 to 255:", bool(x.min() >= 0 and x.max() <= 255 and x.max() > 1))
print("probabilities come out:", p.dtype, p.shape, "rows add up to one:", bool(np.allclose(p.sum(1), 1, atol=1e-5)))
print("P(pneumonia) is the sum of two:", bool(np.allclose(1 - p[:, 0], p[:, 1] + p[:, 2], atol=1e-5)))

# %% [markdown]
# ## Borrowed or home-made
# **Transfer learning** (preset `full`) begins with a ResNet-50 that has learnt from a million photographs. Edges,
# curves and textures are useful for X-rays too. It goes in two steps:
# 1. *The head alone.* The new last layer starts at random, and its first corrections are wild. Only it learns for some
#    epochs; the rest, the **backbone**, is frozen.
# 2. *Fine-tuning.* Then everything learns, at a small rate. One kind of layer stays as it was: **batch normalisation**,
#    which keeps running means of what it sees. Means of a few X-rays would overwrite those of a million photographs,
#    and many a network that "does not learn" died of just that. It stays in inference mode.

# %% tags=["nbval-check-output"]
large = pn.build_model(pn.Config.preset("full"), pretrained=False)
norms = [layer for layer in large.layers if isinstance(layer, keras.layers.BatchNormalization)]
for step, change in (("head alone", freeze_backbone), ("fine-tuning", unfreeze_backbone)):
    change(large)
    learn = sum(int(np.prod(variable.shape)) for variable in large.trainable_variables)
    print(f"{step:12} {learn:>10,} of {large.count_params():,} parameters learn,", end=" ")
    print(f"{sum(layer.trainable for layer in norms)} of {len(norms)} normalisation layers")

# %% [markdown]
# The preset `cpu` borrows as well, for machines without a GPU: EfficientNet-Lite0, built for telephones. Its first
# stages, which work on the largest feature maps and cost the most, stay as they are, and all that follows learns. The
# detector in the package was made that way.
#
# **From scratch** (`scratch`, `quick`, `ci`) is the other way: a ResNet-18 with one gray channel, an eighth of the
# parameters or fewer, and weights drawn at random. It knows nothing of cats, and everything it learns, it learns from
# chests. What that costs in accuracy stands in the README: both ways were measured on the same patients.

# %%
sizes = {
    name: pn.build_model(pn.Config.preset(name), pretrained=False).count_params() for name in ("scratch", "quick", "ci")
}
assert max(sizes.values()) < large.count_params() / 8
print({name: f"{n:,}" for name, n in sizes.items()})
del large

# %% [markdown]
# ## A borrowed look
# What a picture *shows* is in the pattern of its feature maps. How it *looks*, by whose device and software, is for a
# good part in two numbers of each early map, its mean and its spread. So a layer for training lends an image the mean
# and the spread of another one in its batch, or something between the two, and leaves the pattern as it is. A look
# that changes from turn to turn foretells nothing. The idea is **MixStyle** (Zhou et al. 2021,
# [arXiv:2104.02008](https://arxiv.org/abs/2104.02008)); `mix_style` is the share of images that take part, and 0 leaves
# the layer out. Here it is alone, with pictures in place of feature maps:

# %% tags=["nbval-check-output"]
layer = MixStyle(probability=1.0, seed=0)
lent = np.asarray(layer(x, training=True))
look = {name: (v.mean((1, 2, 3)), v.std((1, 2, 3))) for name, v in (("own", x), ("lent", lent))}
pattern = {"own": x, "lent": lent}
for name, (mean, spread) in look.items():
    pattern[name] = (pattern[name] - mean[:, None, None, None]) / spread[:, None, None, None]
print("the look changes:  ", not np.allclose(look["own"], look["lent"], rtol=0.01))
print("the pattern stays: ", bool(np.allclose(pattern["own"], pattern["lent"], atol=0.01)))
print("in use, it is idle:", np.array_equal(layer(x, training=False), x))

# %% [markdown]
# In this data set the look of one device foretells pneumonia ([notebook 2](02_explore.ipynb)). The step `tone` of
# [notebook 3](03_augment.ipynb) varies it in the pixels, with devices that are made up; this layer varies it inside,
# with the looks that are really there. Both make the look a poor guide, and neither takes it out of the data.

# %% [markdown]
# ## Fewer digits, more speed
# Numbers usually take 32 bits. **Mixed precision** does the bulk of the multiplications with 16, which a T4's tensor
# cores do several times faster. What is lost are digits:

# %% tags=["nbval-check-output"]
for kind in (np.float32, np.float16):
    print(f"{kind.__name__}: 1 + 0.0004 = {kind(1) + kind(0.0004):.4f}")

# %% [markdown]
# A correction of that size would be swallowed again and again. So the *weights* are kept in 32 bits and only the work
# between them is done in 16; and the last layers, where small differences are the answer, get all 32.

# %%
for name in ("features", "logits", "probabilities"):
    layer = model.get_layer(name)
    print(f"{name:14} computed in {layer.compute_dtype}, variables kept in {layer.variable_dtype}")

# %% [markdown]
# If your machine has no fast 16-bit format, all lines say `float32`; that is slower and just as good.

# %% [markdown]
# ## Class weights
# There are about twice as many bacterial images as there are of each other kind. Left alone, the network would learn
# the common class first and best. So every image is weighted in the loss, such that each class carries the same.

# %%
targets = split.train.targets(config.classes)
weights = batches.class_balance(targets, config.classes)
balance = pd.DataFrame({"class": np.array(config.class_names)[targets], "weight": weights})
balance = balance.groupby("class")["weight"].agg(images="size", weight="first", together="sum")
balance.loc[list(config.class_names)].round(2)

# %% tags=["nbval-check-output"]
print("every class carries the same:", bool(np.allclose(balance["together"], balance["together"].iloc[0], rtol=1e-4)))
print(f"mean weight of an image: {weights.mean():.2f}")

# %% [markdown]
# This has a price. A network trained so believes that the three classes are equally common. Its raw probabilities fit
# no hospital; [notebook 5](05_evaluate.ipynb) looks at what calibration repairs of that, and what it cannot.

# %% [markdown]
# ## Label smoothing
# A loss that asks for probability 1 is never satisfied: the logits would have to be infinite. Asking for a little less
# gives the network a place where it may stop, and forgives a wrong label more easily. For an image of the class
# *bacterial*, the target and the logits that meet it:

# %% tags=["nbval-check-output"]
wanted = np.array([0.0, 1.0, 0.0]) * (1 - config.label_smoothing) + config.label_smoothing / 3
print("target:          ", np.round(wanted, 3))
print("ideal logit lead:", round(float(np.log(wanted[1] / wanted[0])), 2), "instead of infinity")

# %% [markdown]
# ## The schedule
# Large steps at the beginning would break what is not yet formed, large steps at the end would jump about the goal. So
# the rate **warms up** in a line, then follows half a **cosine** down to zero. With a frozen phase there are two such
# hills.

# %%
steps = batches.steps_per_epoch(len(split.train), config.batch_size, config.min_steps)
phases = [(config.epochs - config.frozen_epochs, config.learning_rate)]
if config.frozen_epochs:
    phases = [(config.frozen_epochs, config.learning_rate), (phases[0][0], config.fine_tune_learning_rate)]


def schedule(epochs: int, peak: float):
    warm = min(int(config.warmup_epochs * steps), epochs * steps - 1)
    return keras.optimizers.schedules.CosineDecay(0.0, epochs * steps - warm, warmup_target=peak, warmup_steps=warm)


# %%
figure, ax = plt.subplots(figsize=(6, 2.6))
start = 0
for epochs, peak in phases:
    at = np.linspace(0, epochs, 60)
    ax.plot(start + at, [float(schedule(epochs, peak)(t * steps)) for t in at])
    start += epochs
ax.set(title="learning rate of this run", xlabel="epoch", ylabel="learning rate", ylim=(0, None))
plt.show()

# %% [markdown]
# The end is as important as the beginning: in the flat tail the network settles. A run that is stopped at half its
# epochs is *not* the same as one that was planned with half of them.

# %% [markdown]
# ## Averaging the weights
# Each batch pulls the weights its own way, so they jitter around the place where they belong. A running average sees
# through the jitter. Here it is for one made-up weight:

# %%
rng = np.random.default_rng(0)
truth = 1 - np.exp(-np.arange(800) / 90)
jitter = np.convolve(rng.normal(0, 0.12, 810), np.ones(11) / 3.5, mode="valid")
weight, average = truth + jitter, np.zeros(800)
for t in range(1, 800):
    average[t] = 0.99 * average[t - 1] + 0.01 * weight[t]
figure, ax = plt.subplots(figsize=(6, 2.6))
ax.plot(weight, linewidth=0.6, label="weight after each step")
ax.plot(average, linewidth=2, label="running average, momentum .99")
ax.set(title="one weight, made up", xlabel="step")
ax.legend(loc="lower right", frameon=False)
plt.show()

# %% [markdown]
# The average lags behind at first and is calmer in the end, which is when it is taken. One trap: batch normalisation's
# running means belong to the jittering weights, not to their average. They have to be measured again on training
# images; `pn.train` does so. A project that forgets it sees its accuracy fall by ten points and blames the average.

# %% [markdown]
# ## Compile and fit, by hand
# Keras needs two calls. `compile` says how to learn: which **optimizer** turns the screws, which **loss** it follows.
# The constant rate is enough for a first try.

# %%
model.compile(
    optimizer=keras.optimizers.AdamW(config.fine_tune_learning_rate if config.weights else config.learning_rate),
    loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
    metrics=["accuracy"],
)

# %% [markdown]
# A batch: images, what they show, and their weights. Order and augmentation are functions of (seed, epoch, image) and
# of nothing else, which will matter in a moment.

# %% tags=["nbval-check-output"]
augmentation = pn.Augmentation.of(config.augmentation)
classes = batches.one_hot(targets, config.classes)
source = {"batch_size": config.batch_size, "seed": config.seed, "first_epoch": 0, "epochs": 1}
stream = batches.training_batches(images, classes, weights, augmentation, **source)
x, y, w = next(iter(stream))
print(
    "images: ", x.dtype.name, "batch, side, side, channel:", x.shape == (config.batch_size, config.size, config.size, 1)
)
print("classes:", y.dtype.name, "one a row:", bool((np.asarray(y).sum(1) == 1).all()))
print("weights:", w.dtype.name, "all positive:", bool((np.asarray(w) > 0).all()))

# %% [markdown]
# And `fit` learns. On one batch, again and again: a network that cannot learn a handful of images by heart has a bug,
# and it is better to find it now. What do you expect the loss to do?

# %%
by_heart = model.fit(x, y, sample_weight=w, batch_size=config.batch_size, epochs=20, verbose=0).history
figure, ax = plt.subplots(figsize=(6, 2.6))
ax.plot(range(1, 21), by_heart["loss"], marker=".")
ax.axhline(np.log(config.classes), color="gray", linestyle=":")
ax.text(20, np.log(config.classes), "knowing nothing", color="gray", ha="right", va="bottom")
ax.set(title=f"{mark}one batch, learnt by heart", xlabel="step", ylabel="loss", ylim=(0, None))
plt.show()

# %% [markdown]
# It begins near the loss of a network that knows nothing, and falls. It will not reach zero: label smoothing forbids
# it. And it means nothing yet. Learning by heart is what a network does best; that it learns what *holds for other
# images* is the art, and the reason for everything above.

# %%
assert by_heart["loss"][-1] < 0.75 * by_heart["loss"][0], "the network cannot learn one batch by heart"

# %% [markdown]
# The same call tells what the real run will cost here.

# %%
began = time.perf_counter()
model.fit(x, y, sample_weight=w, batch_size=config.batch_size, epochs=5, verbose=0)
seconds = (time.perf_counter() - began) / 5
print(f"{seconds:.2f} s a step, {steps} steps an epoch, {config.epochs} epochs:", end=" ")
print(f"about {max(1, round(seconds * steps * config.epochs / 60))} min of training, validation not counted")

# %% [markdown]
# ## Pull the plug
# A Colab runtime can end at any moment: the browser sleeps, the time is up, the GPU is wanted elsewhere. A run of
# pneumolib may be killed at any moment too. After each epoch it writes a **checkpoint**: weights, optimizer, average,
# history. The chance of order and augmentation needs no saving, since it is a function of (seed, epoch, image); that of
# layers, such as dropout, is saved with the weights. So the claim is not that a run goes on *somehow*, but that it ends
# with **the same weights, bit for bit**, as one that nobody disturbed.
#
# Let us try, with a few images and a tiny network. First the undisturbed run.

# %%
few = pn.split_by_patient(data.train.take(np.linspace(0, len(data.train) - 1, 150).astype(int)))
tiny = pn.Config.preset("ci", size=32, epochs=3, batch_size=16)
scratch = tempfile.TemporaryDirectory()
whole = pn.train(few, tiny, out=Path(scratch.name) / "whole")

# %% [markdown]
# Then the disturbed one. This callback plays the cat on the power cable, once, after the first epoch.


# %%
class Unplug(keras.callbacks.Callback):
    happened = False

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and not Unplug.happened:
            Unplug.happened = True
            raise KeyboardInterrupt


# %%
try:
    pn.train(few, tiny, out=Path(scratch.name) / "cut", callbacks=[Unplug()])
except KeyboardInterrupt:
    cut = pn.Run.load(Path(scratch.name) / "cut")
    print(f"Interrupted. On disk: {len(cut.history)} of {tiny.epochs} epochs, finished: {cut.finished}")

# %% [markdown]
# And now, the very same call again.

# %%
resumed = pn.train(few, tiny, out=Path(scratch.name) / "cut", callbacks=[Unplug()])

# %% [markdown]
# It began with epoch 2. Does it end where the undisturbed run ended? On a processor the two files of weights must be
# equal, byte for byte. A GPU adds up in varying order; there, the two agree closely.

# %% tags=["nbval-check-output"]
print("epochs:", [int(row["epoch"]) for row in resumed.history], "finished:", resumed.finished)
files = [run.folder / "detector" / "weights.safetensors" for run in (whole, resumed)]
same = files[0].read_bytes() == files[1].read_bytes()
print("as good as undisturbed:", same or runtime.has_gpu())
assert same or runtime.has_gpu(), "the resumed run differs from the undisturbed one"

# %%
scratch.cleanup()

# %% [markdown]
# ## The real run
# Everything together. Around `compile` and `fit`, `pn.train`
# - divides the training images by patient, prepares them once, and streams augmented batches;
# - runs the phases, with schedule, class weights, smoothing, average and the number format of this machine;
# - looks at both validation parts after each epoch, writes the log and a checkpoint;
# - at the end takes the average, measures batch normalisation again, fits the **temperature** that makes probabilities
#   honest and chooses the **operating points**, all on validation patients;
# - writes the detector last, so that a folder with a detector is a finished run.
#
# A finished run is returned at once; an interrupted one goes on. In Colab the disk vanishes with the runtime: tick
# `SAVE_TO_DRIVE` in the settings, and the run's folder lies on your Drive (Colab will ask you to allow it).

# %%
out = runtime.drive_folder() / training.default_folder(config, split).name if SAVE_TO_DRIVE else None
run = pn.train(data, config, out=out)

# %% [markdown]
# If you see a line for each epoch, you saw it learn; if you see none, the run had been finished before.

# %%
minutes = sum(row["seconds"] for row in run.history) / 60
rate = len(split.train) * len(run.history) / minutes / 60
print(f"{mark}{len(run.history)} epochs in {minutes:.1f} min, {rate:.0f} images/s")
assert run.finished
assert run.history[-1]["loss"] < run.history[0]["loss"]

# %% [markdown]
# ## The curves

# %%
plots.plot_history(run.history, phantom=run.phantom)
plt.show()

# %% [markdown]
# How to read them:
# - The **training loss** falls, and cannot fall to zero. It is measured on augmented images with smoothed labels, so it
#   may well lie *above* the validation loss. That is no mistake.
# - The **validation AUC**, on random patients, climbs quickly and then sticks to the ceiling. From there on, its ups
#   and downs are a handful of images. It can tell that something is broken; it cannot tell good from better.
# - The **shifted AUC**, on patients from the other end and with disturbed pixels, is lower and has room to move. What
#   improves *it* has a chance to hold on the test.
#
# In numbers, for this run:


# %%
def reached(name: str) -> str:
    values = [row[name] for row in run.history]
    best = max(values)
    first = 1 + next(i for i, value in enumerate(values) if value >= best - 0.005)
    return (
        f"{name:12} ends at {values[-1]:.3f}; within .005 of its best ({best:.3f}) from epoch {first} of {len(values)}"
    )


for name in ("val_auc", "shifted_auc"):
    print(f"{mark}{reached(name)}")

# %% [markdown]
# **Why is no epoch chosen by these curves?** Because choosing the best of many noisy numbers chooses the luckiest. The
# schedule ends where it was planned to end, and the average of the last weights is taken, whatever the curve did. And
# the test images? Whoever looks at the test curve and picks its peak has trained on the test; several published results
# did just that, and lie above what anyone reaches who does not.

# %% [markdown]
# ## What we leave behind
# The detector is a folder of four files, and it carries its own facts.

# %%
print(run.detector)
pd.Series(
    run.detector.card["images"] | {name: run.detector.card[name] for name in ("val_auc", "shifted_auc", "phantom")}
)

# %%
pd.DataFrame([vars(point) for point in run.detector.operating_points.values()]).round(3)

# %% [markdown]
# Three **operating points**: from which probability on does it say *pneumonia*? Chosen here, on validation patients,
# and frozen. Notebook 5 pays for them. One image of the validation part, as a detector answers it:

# %%
print(split.val[0].label, "->", run.detector.predict(split.val.read(0)))

# %% [markdown]
# It answers without TensorFlow, through a light runtime. The Keras model stays one call away, and the two must agree:

# %% tags=["nbval-check-output"]
x = split.val.images(config.size)[:8]
logits = run.detector.logits(x)
light = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
heavy = np.asarray(run.detector.keras_model()(x[..., None].astype("float32")))
print("largest difference below 1e-5:", bool(np.abs(light - heavy).max() < 1e-5))

# %% tags=["nbval-check-output"]
print("run:     ", *sorted(path.name for path in run.folder.iterdir()))
print("detector:", *sorted(path.name for path in (run.folder / "detector").iterdir()))
print("points:  ", *run.detector.operating_points)

# %% [markdown]
# ## What you have done
# You have
# - built a residual network that takes raw gray values, learns three classes and answers one question
# - seen what transfer learning, a borrowed look, number formats, class weights, label smoothing, schedule and averaging
#   each do
# - compiled and fitted a network with your own hands, on one batch
# - trained the detector, pulled the plug on a run, and proved that nothing was lost
# - read training curves, and know which number must not choose
#
# ## Three questions
# 1. Your training loss is higher than your validation loss. A friend says that the two were swapped. What do you
#    answer?
# 2. Why does the bit-for-bit claim need augmentation to be a function of (seed, epoch, image), and not of a random
#    generator that simply runs on?
# 3. Two runs end with validation AUCs of .9962 and .9968, and shifted AUCs of .953 and .941. Which would you keep?
#
# <details><summary>Answers</summary>
#
# 1. Training images are augmented, labels smoothed, dropout may be on, and the classes weighted: the training task is
#    harder. Nothing need be swapped.
# 2. A generator's state depends on everything that was drawn before. After an interruption it would have to be restored
#    to the very draw, for every worker of the pipeline. A function needs no memory.
# 3. The first. The difference in validation is a few images near the ceiling; the shifted part has room, and differs by
#    more. But say so before you look, and do not try a hundred runs: then you choose by luck again.
#
# </details>

# %% [markdown] tags=["next"]
# **Next:** [5 · How good is it, and how do we know?](05_evaluate.ipynb) · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/05_evaluate.ipynb)
