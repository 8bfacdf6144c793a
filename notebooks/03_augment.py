# ---
# jupyter:
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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/03_augment.ipynb)

# %% [markdown]
# # 3 · What may change, and what must not
#
# Pneumonia is faint: low contrast, overlapping organs, blurred borders. Beside it, a hundred things in the picture are
# loud and mean nothing: how the child lies, how bright the film is, how the file was saved. *Augmentation* tells the
# model which is which. It shows each image changed in ways that leave the diagnosis as it is.
#
# **In this notebook you**
# - see what makes pneumonia hard to see: low contrast, overlapping organs, blurred borders
# - look at each step of the augmentation on one image, with its reason and its cost
# - check that chance is repeatable: the same seed, epoch and image give the same pixels
# - compare the strengths, find a step too far, and look at a batch as the model sees it
#
# | | |
# |---|---|
# | **Time** | half a minute with the phantom; about a minute on Colab with the real images |
# | **Hardware** | any; no GPU needed |
# | **Needs** | the data set (found or fetched by itself); nothing from earlier notebooks |
# | **Leaves** | `augmentation.json`: the settings that training will use |

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
config = pn.Config.preset(PRESET)

# %%
import dataclasses
import json
import time

import matplotlib.pyplot as plt
import numpy as np

from pneumolib.config import environment
from pneumolib.evaluation import plots
from pneumolib.models.augment import REASONS, STRENGTHS, Augmentation, augment
from pneumolib.models.batches import class_balance, one_hot, training_batches

plt.rcParams["figure.dpi"] = 72

# %% [markdown]
# A sample is enough here: a hundred images of each kind at most, out of the training part, as squares of 112 pixels.

# %%
data = pn.load_dataset(config=config)
mark = "PHANTOM: " if data.phantom else ""
rng = np.random.default_rng(config.seed)
places = [np.flatnonzero(data.train.subtypes == kind) for kind in config.class_names]
sample = data.train.take(np.concatenate([np.sort(rng.permutation(p)[:100]) for p in places]))
images = sample.images(112)

# %% tags=["nbval-check-output"]
print("one image:", images[0].shape, images.dtype)
print("kinds:", *dict.fromkeys(sample.subtypes))

# %% [markdown]
# ## Low contrast
# How large is the difference that we are after? Average the healthy images, average the others, and subtract. Beside
# it, to have a measure, how much healthy images differ *among themselves* at each place.

# %%
healthy, ill = (images[sample.is_pneumonia == sick].astype(np.float32) for sick in (False, True))
difference, spread = ill.mean(axis=0) - healthy.mean(axis=0), healthy.std(axis=0)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.8))
panels = {"healthy, averaged": healthy.mean(axis=0), "ill minus healthy": difference, "spread of the healthy": spread}
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    how = {"cmap": "coolwarm", "vmin": -60, "vmax": 60} if "minus" in title else {"cmap": "gray", "vmin": 0}
    figure.colorbar(ax.imshow(values, **how), ax=ax, label="gray levels", shrink=0.8)
    ax.set(xticks=[], yticks=[])
    ax.set_title(mark + title, fontsize=9)
plt.tight_layout()
plt.show()

# %% [markdown]
# Red is where the ill are brighter: the lungs, above all. But look at the scales of the last two. In numbers, for the
# middle of the chest:

# %%
lungs = np.s_[35:77, 25:87]
between, within = np.abs(difference[lungs]).mean(), spread[lungs].mean()
print(f"{mark}in the middle of the chest, ill and healthy differ by {between:.0f} gray levels on average;")
print(f"{mark}the healthy differ among themselves by {within:.0f} (standard deviation).")
assert between < within

# %% [markdown]
# The difference between the classes is *smaller* than the difference between two
# healthy children. No single pixel can decide; a threshold on brightness would mostly measure exposure. That is what
# **low contrast** means, and why a model needs many pixels together, and needs to see exposure vary.

# %% [markdown]
# ## Overlapping organs, blurred borders
# Walk along one row of the picture and write down the gray values.

# %%
kinds = [(kind, int(np.flatnonzero(sample.subtypes == kind)[1])) for kind in ("normal", "bacterial", "viral")]
ROW = 62
figure, axes = plt.subplots(2, 3, figsize=(7.4, 3.9), height_ratios=[2, 1], sharex=True, sharey="row")
for column, (kind, i) in zip(axes.T, kinds, strict=True):
    column[0].imshow(images[i], cmap="gray", vmin=0, vmax=255, aspect="auto")
    column[0].axhline(ROW, color="tab:orange")
    column[0].set(title=mark + kind, yticks=[])
    column[1].plot(images[i][ROW], color="tab:orange")
    column[1].set(xlabel="column, pixels", ylim=(0, 255))
axes[1, 0].set_ylabel("gray value")
plt.tight_layout()
plt.show()

# %% [markdown]
# From left to right the line meets arm, ribs, lung, the mountain of spine and heart, lung again. Ribs ripple over
# everything, because the picture adds up what lies one behind the other: **overlapping organs**. In a healthy lung
# there are valleys on both sides of the mountain, with steep walls. Where there is fluid, a valley fills and its wall
# becomes a slope: **blurred borders**. What must be learnt is this: filled valleys and lost edges, wherever they are.
# What must *not* be learnt is where exactly the line runs, how high its level is, how sharp its ripples are.

# %% [markdown]
# ## The steps, one at a time
# They follow the way in which an X-ray comes into being: the child's position, the exposure, the detector, the file,
# the frame. One step goes before all of these, the gray curve of a device. Each is shown alone, on the same image, at
# its largest strength in pneumolib; the left column is the original.

# %%
image = images[kinds[1][1]]
most = Augmentation.preset("framed").active() | {"cut": 0.15}  # no preset cuts; it was tried


def show(steps: list[str], draws: int = 3, seed: int = 868) -> None:
    shown, titles = [], []
    for step in steps:
        alone = Augmentation(**{step: most[step]}, occasional=1.0)
        shown += [image, *(augment(image, alone, seed=seed, epoch=epoch, index=0) for epoch in range(draws))]
        titles += ["original", *[f"{step} {most[step]:g}"] * draws]
        print(f"{step:12} {REASONS[step]}")
    plots.plot_images(shown, titles, ncols=draws + 1, inches=1.25, phantom=data.phantom, heading=", ".join(steps))
    plt.show()


# %% [markdown]
# **Gray curve.** A plate counts rays; how bright a count is shown, the device's software decides, and each maker has a
# taste of its own. In this data set that is dangerous. Most of the pneumonia images came through *one* device
# ([notebook 2](02_explore.ipynb)), so that a net could learn its taste instead of the disease.

# %%
show(["tone"], seed=5676)

# %% [markdown]
# Every picture gets the curve of a device that does not exist: a histogram is drawn at random, and the picture's grays
# are moved towards it, a random part of the way. Here are the three curves, and the histograms before and after. The
# seed was picked so that the three go far and are unlike.

# %%
before = np.arange(256)
levels, first = np.unique(image, return_index=True)  # the grays of the picture, and where each stands in it
curves = {"original": image}
tone = Augmentation(tone=most["tone"], occasional=1.0)
curves |= {f"tone, {n}": augment(image, tone, seed=5676, epoch=n - 1, index=0) for n in (1, 2, 3)}
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.7))
for (name, picture), colour in zip(curves.items(), ("gray", "tab:blue", "tab:orange", "tab:green"), strict=True):
    line = {"color": colour, "linestyle": ":" if name == "original" else "-", "label": name}
    axes[0].plot(levels, picture.ravel()[first], **line)
    axes[1].plot(before[::8] + 4, np.bincount(picture.ravel(), minlength=256).reshape(32, 8).sum(axis=1), **line)
axes[0].set(title=f"{mark}gray curves", xlabel="gray value before", ylabel="after", xlim=(0, 255), ylim=(0, 255))
axes[1].set(title=f"{mark}histograms", xlabel="gray value", ylabel="pixels", xlim=(0, 255), ylim=(0, None))
axes[0].legend(frameon=False, fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# Where a curve runs above the dotted line, it brightens; where it is steep, it pulls grays apart, and where it is flat,
# it presses them together. All of them rise: what was brighter than its neighbour is never made darker. And none of
# them is a formula that fits one device. A gray value goes by how much of *this picture* is darker, so at full strength
# two devices' versions of one chest would come out the same. For that reason the step goes first: the black corners of
# a turned picture would count as grays.

# %% [markdown]
# **Position.** Nobody lies twice in the same way, least of all a child of three.

# %%
show(["rotation", "scale", "shear"])

# %% [markdown]
# Height and width are scaled by different amounts, because the stretch to a square has done the same. What the picture
# lacks after a turn or a shift is filled with black, like the dark rim that many of the originals have.

# %%
show(["translation", "mirror"])

# %% [markdown]
# The mirror is the one to argue about. In a mirrored picture the heart lies on the wrong side, and a doctor would stop.
# For *this* question it does no harm, since opacities occur on both sides, and it takes from the model the chance to go
# by the marker's place. For another question it might be wrong: a step of augmentation is a claim about medicine.

# %% [markdown]
# **Exposure.** Dose, and the film's gray scale.

# %%
show(["brightness", "contrast", "gamma"])

# %% [markdown]
# The order of gray values stays: lung darker than heart, heart darker than bone. The levels do not. A model that was
# looking at the overall brightness has to find something better.

# %% [markdown]
# **Detector.** Sharpness, resolution, grain.

# %%
show(["blur", "resolution", "noise"])

# %% [markdown]
# At first sight this throws information away, and it does: the finest detail. Pneumonia is larger than that. What is
# *not* larger are the traces of the first encoding, which in this data set tell the classes apart
# ([notebook 2](02_explore.ipynb)).

# %% [markdown]
# **File and frame.** JPEG's eight-pixel blocks; letters and edges at the border.

# %%
show(["jpeg", "border"])

# %% [markdown]
# Look closely at the flat areas: blocks. After this, a quality of encoding is something that changes from epoch to
# epoch, and no longer something that belongs to a class.

# %%
show(["letters", "cut"], draws=2, seed=326)

# %% [markdown]
# Letters, and where the film ends, say who took it. A detector that saw the edges called many a healthy child ill when
# they were cut off: they had told it, in part, that the child is healthy. Two answers were tried. One is here, letters
# of any size; the other leaves a **margin** of the picture out altogether (`Config.margin`). The margin alone is enough
# for letters in the corners and for turned pictures, and is in the preset `cpu`; with letters, and some pictures left
# straight, the test children were ranked worse. The README has the tables.

# %% [markdown]
# ## What it costs
# Augmentation runs on the processor while the accelerator computes. If it takes longer than a training step, the
# accelerator waits. So measure each step alone, at the size that training uses.

# %%
small = sample.images(config.size)


def milliseconds(settings: Augmentation, n: int = 100) -> float:
    times = []
    for epoch in range(4):  # the best of four, so that other work on the machine counts less
        began = time.perf_counter()
        for i in range(n):
            augment(small[i % len(small)], settings, seed=0, epoch=epoch, index=i)
        times.append(time.perf_counter() - began)
    return 1000 * min(times) / n


costs = {step: milliseconds(Augmentation(**{step: most[step]}, occasional=1.0)) for step in most}
costs |= {f"all of {name!r}": milliseconds(Augmentation.preset(name)) for name in STRENGTHS}

# %%
figure, ax = plt.subplots(figsize=(6, 4.7))
ax.barh(list(costs), list(costs.values()), color=["tab:blue"] * len(most) + ["tab:orange"] * len(STRENGTHS))
ax.invert_yaxis()
ax.set(xlabel="milliseconds an image, one core", title=f"Cost at {config.size} x {config.size} pixels")
plt.show()

# %% [markdown]
# A named strength costs much less than the sum of its steps: all changes of position are one matrix, applied once; all
# changes of exposure are one table of 256 gray values; and what belongs to the gray curve, the detector, the file and
# the frame happens to a part of the images only (`occasional`). For a whole epoch that makes:

# %%
n, cost = len(data.train), costs[f"all of {config.augmentation!r}"]
print(f"Preset {config.name!r} augments {config.augmentation!r}: {cost:.2f} ms an image,")
print(f"so {n * cost / 1000:.1f} s of one core for an epoch of {n:,} images.")

# %% [markdown]
# These are times of your machine, measured a moment ago, while it may have been doing other things: run the cells again
# and see how much they vary.

# %% [markdown]
# ## Chance without a memory
# Usually a random generator runs along: what the thousandth image gets depends on the 999 before. Interrupt the
# training, resume it, and everything is different. Here chance has **no state**. It is computed from three numbers, the
# seed of the run, the epoch and the index of the image, and from nothing else. The contract:

# %% tags=["nbval-check-output"]
strong = Augmentation.preset("strong")
first = augment(image, strong, seed=1, epoch=4, index=7)
for index in range(50):
    augment(image, strong, seed=1, epoch=4, index=index)
for seed, epoch, index in [(1, 4, 7), (2, 4, 7), (1, 5, 7), (1, 4, 8)]:
    same = np.array_equal(first, augment(image, strong, seed=seed, epoch=epoch, index=index))
    print(f"seed {seed}, epoch {epoch}, image {index}: same pixels as at first: {same}")

# %% [markdown]
# Fifty images were augmented in between, and the first comes out the same. Change any of the three numbers, and it does
# not. That is why a run that Colab cuts off after six epochs ends with the same weights as one that was left alone
# ([notebook 4](04_train.ipynb)), and why any image of any epoch can be drawn again when something looks wrong.
#
# The steps do not disturb one another either: each owns its random numbers. Switch one off, and the others stay as they
# were. Here noise is switched off in a chain that ends with it:

# %% tags=["nbval-check-output"]
turn = Augmentation(rotation=30, brightness=0.2)
with_noise = dataclasses.replace(turn, noise=8, occasional=1.0)
plain = augment(image, turn, seed=1, epoch=0, index=0).astype(int)
grainy = augment(image, with_noise, seed=1, epoch=0, index=0).astype(int)
print("pixels differ:", not np.array_equal(plain, grainy))
print("by grain alone, never by more than 60 gray levels:", bool(np.abs(plain - grainy).max() <= 60))

# %% [markdown]
# ## How strong?
# Five strengths have names. Rows from `none` to `framed`, columns three epochs of the same image: what the model is
# shown in place of one picture. `framed` is `strong` with letters painted in, and leaves three of ten pictures straight
# as they came.

# %%
grid = [augment(image, Augmentation.preset(s), seed=0, epoch=e, index=3) for s in STRENGTHS for e in range(3)]
titles = [f"{strength}, {epoch}" for strength in STRENGTHS for epoch in range(3)]
plots.plot_images(grid, titles, ncols=3, inches=1.1, phantom=data.phantom, heading="five strengths, three epochs")
plt.show()

# %% [markdown]
# The rule for every row: **could a doctor still decide?** If not, the label that comes with the image has become a lie.
# Here is the rule broken, one step at a time, far beyond the presets.

# %%
too_far = {"blur": dict(blur=15), "contrast": dict(contrast=0.95), "brightness": dict(brightness=0.8)}
too_far |= {"border": dict(border=0.45), "translation": dict(translation=0.6)}
pictures = [augment(image, Augmentation(**s, occasional=1), seed=729, epoch=0, index=0) for s in too_far.values()]
titles = ["original", *(f"{step}: too far" for step in too_far)]
plots.plot_images([image, *pictures], titles, ncols=3, inches=1.5, phantom=data.phantom, heading="too far")
plt.show()

# %% [markdown]
# Where is the opacity now? Cut away, washed out or burnt to white; and yet the model would be told "pneumonia" and
# would have to explain it by *something*. More is not better, then: each step has to earn its place on validation
# patients. In the trials for this project the named strength `strong` did, and wider borders, a larger change of scale
# or still more blur and noise did not. `framed` seemed to, with small nets, and did not in the end; the README's tables
# of the recipe have the numbers.
#
# A claim that can be tested: the named strengths keep the picture recognisable. It keeps a good part of its contrast,
# and few of its pixels are burnt to white.

# %%
for strength in ("light", "medium", "strong", "framed"):
    drawn = np.stack([augment(image, Augmentation.preset(strength), seed=0, epoch=e, index=0) for e in range(50)])
    assert drawn.std(axis=(1, 2)).min() > 0.4 * image.std(), strength
    assert (drawn == 255).mean() < 0.2, strength

# %% [markdown]
# ## A batch as the model sees it
# Everything together: the order of an epoch, the augmentation, the right type. `training_batches` gives what `fit`
# gets, the images, their targets, and a weight for each image that lets the three classes count the same.

# %%
targets = sample.targets(config.classes)
batches = training_batches(
    small, one_hot(targets, config.classes), class_balance(targets, config.classes),
    Augmentation.of(config.augmentation), batch_size=config.batch_size, seed=config.seed, first_epoch=0, epochs=1,
)  # fmt: skip
x, y, weights = (part.numpy() for part in next(iter(batches)))

# %% [markdown]
# The next contract is the interface of the whole library: raw gray values go in, as `float32`, with one channel. There
# is no division by 255 that somebody could forget; rescaling lives in the model.

# %% tags=["nbval-check-output"]
print("images:", x.dtype, "as batch, height, width, channel:", x.shape == (config.batch_size, *2 * [config.size], 1))
print("gray values from 0 to 255:", bool(x.min() >= 0 and 100 < x.max() <= 255))
print("each target names one class:", bool((y.sum(axis=1) == 1).all()), "of", y.shape[1])
print("all weights positive:", bool((weights > 0).all()))

# %%
titles = [config.class_names[i] for i in y.argmax(axis=1)]
shown = x[:8, ..., 0].astype(np.uint8)
plots.plot_images(shown, titles[:8], ncols=4, inches=1.15, phantom=data.phantom, heading="part of a batch")
plt.show()

# %% [markdown]
# Can you see what was done to each? You should be able to see *that* something was done, and still tell the lungs from
# the heart.

# %% [markdown]
# ## Leave the settings behind
# Training reads its strength from the preset; the file says in full what that means, so that a result can be explained
# later.

# %%
chosen = Augmentation.of(config.augmentation)
settings = {"preset": config.name, "strength": config.augmentation, "settings": dataclasses.asdict(chosen)}
home = environment().home
home.mkdir(parents=True, exist_ok=True)
_ = (home / "augmentation.json").write_text(json.dumps(settings, indent=1) + "\n")

# %% tags=["nbval-check-output"]
saved = json.loads((home / "augmentation.json").read_text())
print("settings in the file are those of the preset:", Augmentation(**saved["settings"]) == chosen)
print("steps that have a reason:", len(REASONS), "of", len(most))

# %% [markdown]
# ## What you have done
# You have
# - seen what makes pneumonia hard to see: low contrast, overlapping organs, blurred borders
# - looked at each step of the augmentation on one image, with its reason and its cost
# - checked that chance is repeatable: the same seed, epoch and image give the same pixels
# - compared the strengths, found a step too far, and looked at a batch as the model sees it
#
# ## Three questions
# 1. Why is the picture never turned upside down, while it is mirrored?
# 2. Should validation images be augmented?
# 3. Training was interrupted in the middle of epoch 6 and begins that epoch again. Which images does the model see
#    changed differently from the first attempt?
#
# <details><summary>Answers</summary>
#
# 1. An augmentation should look like an image that could come. Mirrored chests occur (films are laid down the wrong way
#    round), upside-down ones do not; learning to read them costs capacity and gives nothing.
# 2. No: validation asks how the model does on images as they come. The *shifted* part of notebook 2 is no augmentation
#    for training, but a fixed, second exam.
# 3. None. Chance depends on seed, epoch and image alone, so the epoch repeats pixel for pixel.
#
# </details>

# %% [markdown] tags=["next"]
# **Next:** [4 · Train a detector](04_train.ipynb) · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/04_train.ipynb)
