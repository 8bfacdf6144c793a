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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/02_explore.ipynb)

# %% [markdown]
# # 2 · What the data says, and what it gives away
#
# A model learns whatever separates the classes, and it does not ask whether that is medicine. So before any model is
# built: how many images are there, of whom, and what *besides* the lungs tells the sick from the healthy? The answers
# decide which images to learn from and which to judge by.
#
# **In this notebook you**
# - count images, classes and patients, and see why sixteen images cannot choose anything
# - catch a random split in the act of leaking patients, and prove that a split by patient does not leak
# - keep a second, *shifted* validation part, and see why one is not enough
# - measure how well the files give the label away before a single pixel is read
#
# | | |
# |---|---|
# | **Time** | half a minute with the phantom; about two minutes on Colab with all images |
# | **Hardware** | any; no GPU needed |
# | **Needs** | the data set (found or fetched by itself); nothing from [notebook 1](01_download.ipynb) |
# | **Leaves** | `split.csv`, which image belongs to which part, and `audit.json`, what the files give away |

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
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from pneumolib.config import environment
from pneumolib.data.exports import original_sizes
from pneumolib.data.images import square
from pneumolib.data.splits import shared_patients, shifted_images
from pneumolib.evaluation import plots
from pneumolib.evaluation.metrics import wilson

plt.rcParams["figure.dpi"] = 80

# %%
data = pn.load_dataset(config=config)
mark = "PHANTOM: " if data.phantom else ""
table = pd.concat([part.table() for part in (data.train, data.val, data.test)], ignore_index=True)
print(f"{mark}{len(table):,} images in {table['split'].nunique()} parts")

# %% [markdown]
# ## How many of what
# `table` has one row for each image: its name, its part, its class, its subtype, its patient. Counting is a line.

# %%
counts = table.groupby(["split", "subtype"], sort=False).size().unstack(fill_value=0)
counts

# %%
plots.plot_counts(counts, phantom=data.phantom)
plt.show()

# %% [markdown]
# The classes are not balanced, and not equally unbalanced in the parts. Two things follow. A model that always says
# *pneumonia*, without looking, is right surprisingly often; any accuracy has to be read beside that number. And a
# probability learnt under one mix of classes is not right under another.

# %%
for name, part in (("train", data.train), ("test", data.test)):
    print(f"{mark}{name:5}: always saying pneumonia is right in {part.is_pneumonia.mean():.1%} of the images")

# %% [markdown]
# The folders know two classes, the names three: bacterial and viral pneumonia differ in the picture as well. We train
# on three classes, because it makes the task clearer to the model, and add two of them up for the answer. How the germ
# was found is not documented for single images, so the subtype is reported as what it is: unproven.

# %% [markdown]
# ## Sixteen images
# The official validation part has 16 images, half of them normal. Suppose a model gets 15 of them right. How good is
# it? A share measured on few images is uncertain, and by how much can be computed: the *interval of Wilson* holds all
# true accuracies that agree with what was seen. Guess before you run: how wide is it for 16 images, how wide for 624,
# the size of the test part?

# %% tags=["nbval-check-output"]
for right, n in [(16, 16), (15, 16), (14, 16), (585, 624)]:
    print(f"{right:3} of {n:3} right: accuracy and 95 % interval {wilson(right, n)}")

# %% [markdown]
# 15 of 16 and 585 of 624 are the same share, yet the first goes with nearly any model that is not useless. Two models
# whose true accuracies differ by ten points cannot be told apart with 16 images: whoever chooses the epoch or the
# threshold on them chooses by lot. The curve shows what more images buy.

# %%
sizes = 16 * np.unique(np.geomspace(1, 200, 40).astype(int))
intervals = [wilson(n * 15 // 16, n) for n in sizes]
figure, ax = plt.subplots(figsize=(6, 3))
ax.loglog(sizes, [100 * (interval.high - interval.low) / 2 for interval in intervals])
for n, name in ((16, "official validation"), (624, "test")):
    ax.axvline(n, color="tab:orange", linestyle="--")
    ax.text(n * 1.08, 15, f"{name}: {n}", color="tab:orange")
ax.set(title="How sure is an accuracy of 15/16?", xlabel="images", ylabel="± points (95 %)")
ax.set(xticks=[16, 100, 624, 3000], xticklabels=["16", "100", "624", "3000"])
ax.set(yticks=[1, 2, 5, 10, 20], yticklabels=["1", "2", "5", "10", "20"])
plt.show()

# %% [markdown]
# Both axes are logarithmic and the curve is nearly straight: **four times the images halve the uncertainty**. Even the
# test part leaves about two points either way, which is more than what most papers on this data set argue about. So the
# 16 images stay unused, and validation images are taken out of `train`. The question is: which?

# %% [markdown]
# ## Whose images?
# Some children were X-rayed more than once. How often?

# %%
per_patient = table.groupby(["subtype", "patient"]).size().rename("images").reset_index()
per_patient["images"] = per_patient["images"].clip(upper=6)
figure, ax = plt.subplots(figsize=(6, 3))
kinds = ["normal", "bacterial", "viral"]
bars = {"multiple": "dodge", "discrete": True, "shrink": 0.8, "palette": plots.COLOURS}
sns.histplot(per_patient, x="images", hue="subtype", hue_order=kinds, **bars, ax=ax)
ax.set(title=f"{mark}images of one patient", xlabel="images (6: six or more)", ylabel="patients", xticks=range(1, 7))
ax.set(yscale="log", ylim=(0.7, None))
plt.show()

# %% [markdown]
# Most have one image, but there is a tail, longest among the bacterial cases: children who were watched through their
# illness. Two images of one child share the shape of the ribs, the heart, the position of the marker. A model that has
# seen one of them knows something about the other that has nothing to do with pneumonia.

# %% [markdown]
# ## A random split leaks
# The usual way is to shuffle the images and to put every tenth aside. Do it, and look for patients on both sides.

# %%
order = np.random.default_rng(config.seed).permutation(len(data.train))
tenth = len(order) // 10
random_val, random_train = data.train.take(order[:tenth]), data.train.take(order[tenth:])
leaked = shared_patients(random_train, random_val)
affected = np.isin(random_val.patients, leaked).mean()
print(f"{mark}{len(leaked)} patients are on both sides; {affected:.0%} of the validation images are theirs")

# %% [markdown]
# Here is one of them: learnt from on the left, judged by on the right.

# %%
who = leaked[0]
sides = [("learnt from", random_train), ("judged by", random_val)]
pictures = [square(part.image(int(np.flatnonzero(part.patients == who)[0])), 220) for _, part in sides]
plots.plot_images(pictures, [side for side, _ in sides], phantom=data.phantom, heading=f"patient {who}")
plt.show()

# %% [markdown]
# The same bones, the same child. A validation number from this split is partly a number about remembering. The claim,
# so that it is tested and not only told:

# %%
assert len(leaked) > 0
assert affected > 0.01

# %% [markdown]
# ## A split by patient
# The cure: decide for *patients* instead of images. `split_by_patient` keeps each patient whole, takes the same share
# of each subtype, and depends on nothing but the names and the seed. It gives three parts; what `shifted` is for comes
# in a moment.

# %%
split = pn.split_by_patient(data.train, seed=config.seed)
split.table().groupby(["part", "subtype"]).size().unstack(fill_value=0).loc[["train", "val", "shifted"]]

# %% [markdown]
# And the proof. It counts, for each two of the parts, the patients whom they share. The two lines with *test* are the
# official split, which was made well: it has no patient on both sides either.

# %% tags=["nbval-check-output"]
for pair, shared in split.proof()["overlaps"].items():
    print(f"{pair:16} share {shared} patients")
for name, part in split.parts().items():
    print(f"{name + ' & test':16} share {len(shared_patients(part, data.test))} patients")
print("every image of train in exactly one part:", sorted(split.table()["name"]) == sorted(data.train.names))

# %% [markdown]
# A seed makes this repeatable: the same seed, the same split, on every machine. It does not make it *better*; another
# seed gives another split that is as good, and a result that holds for one seed alone is none.

# %% tags=["nbval-check-output"]
again, other = (pn.split_by_patient(data.train, seed=config.seed + step) for step in (0, 1))
print("same seed, same validation part: ", again.val.names == split.val.names)
print("other seed, same validation part:", other.val.names == split.val.names)
print("other seed, patients shared:     ", sum(other.proof()["overlaps"].values()))

# %% [markdown]
# ## Why one validation part is not enough
# Those who publish results on this data set report 98 or 99 % in validation and markedly less on the test. Leaking
# explains a part. The rest is a **shift**: the test part was not collected as the training part was. The patients'
# numbers show it. Where they were given in the order of arrival, they are a kind of calendar.

# %%
parts = {**split.parts(), "test": data.test}
rows = [(name, *p.rsplit(":", 1)) for name, part in parts.items() for p in set(part.patients) if ":" in p]
calendar = pd.DataFrame(rows, columns=["part", "family", "number"])
calendar = calendar[calendar["number"].str.isdigit()].astype({"number": int})
grid = sns.catplot(
    calendar.sort_values("family"), x="number", y="part", hue="part", col="family", order=list(parts), col_wrap=2,
    hue_order=list(parts), palette="colorblind", sharex=False, height=1.9, aspect=1.9, size=3, legend=False,
)  # fmt: skip
grid.set_titles("{col_name}").set_axis_labels("number of the patient", "")
grid.figure.suptitle(f"{mark}who is in which part", y=1.03)
plt.show()

# %% [markdown]
# The test patients stand in blocks of their own. Perhaps another year, another machine,
# another way of saving files. A random validation part lies scattered among the training patients and inherits all
# their habits; the test does not.
#
# So there is a second part, `shifted`: how were its patients chosen?

# %%
print(split.note)

# %% [markdown]
# Their pixels are changed as well, each image in its own way: another frame, resolution, exposure and encoding, as
# another hospital might have sent it. A model that is good on `val` only has learnt habits. One that is good on both
# has a chance.

# %%
few = split.shifted.take(np.linspace(0, len(split.shifted) - 1, 4).astype(int))
as_they_are = [square(few.image(i), 160) for i in range(len(few))]
shifted = list(shifted_images(few, 160, seed=config.seed))
titles = [f"as it is: {kind}" for kind in few.subtypes] + ["shifted"] * len(few)
plots.plot_images([*as_they_are, *shifted], titles, inches=1.5, phantom=data.phantom, heading="what shifted means")
plt.show()

# %% [markdown]
# Below is what training will *not* see, and validation will: fainter, cropped, coarser, but a doctor's answer would be
# the same. That is the test of a good perturbation: it must not change the diagnosis.
#
# It remains a stand-in. The true shift is in the test part, and nobody looks at the test part to design a validation.

# %% [markdown]
# ## What the files give away
# Now forget the lungs. A JPEG file has a width and a height, a quality setting, a colour mode and a size in bytes; a
# picture has a mean, a contrast and a border. None of it is medicine. `audit` takes these facts from every file and
# asks how well they alone tell pneumonia from normal; it looks for files that occur twice, too. From a terminal:
# `pneumolib audit DATA --html audit.html`.

# %%
audit = pn.audit(data)
facts = audit.facts
facts[["label", "mode", "width", "height", "aspect", "jpeg_quality", "n_bytes"]].sample(6, random_state=0)

# %% [markdown]
# First a look: each dot is a file, at its width and height.

# %%
grid = sns.relplot(
    facts[facts["split"] != "val"], x="width", y="height", col="split", hue="label", hue_order=["normal", "pneumonia"],
    palette=plots.COLOURS, height=3, s=12, alpha=0.5,
)  # fmt: skip
grid.set_titles("{col_name}").set_axis_labels("width, pixels", "height, pixels")
grid.figure.suptitle(f"{mark}size of the files", y=1.04)
plt.show()

# %% [markdown]
# If the colours form different clouds, size tells the class. If there is a single dot, all files have one size. Next,
# quality and colour mode, as medians and shares:

# %%
facts.assign(colour=facts["mode"] != "L").groupby(["split", "label"]).agg(
    files=("name", "size"), aspect=("aspect", "median"), jpeg_quality=("jpeg_quality", "median"),
    kilobytes_per_megapixel=("bytes_per_megapixel", lambda x: x.median() / 1000), share_in_colour=("colour", "mean"),
).round(2)  # fmt: skip

# %% [markdown]
# Compare the two rows of `train`, then the two rows of `test`. Whatever differs in `train` will be learnt; whatever
# differs there but not in `test` is a trap: it makes validation brilliant and the test poor.

# %% [markdown]
# ## The mark to beat
# Now in numbers. A plain logistic regression gets one kind of fact at a time and nothing else. The AUC says how often
# it ranks a sick child above a healthy one: .5 is guessing, 1 is perfect. Once in cross-validation on `train`, by
# patient, and once learnt on `train` and applied to `test`.

# %%
baselines = audit.baselines.set_index("features")[["auc_cv_train", "auc_test", "accuracy_test"]]
baselines.round(3)

# %%
plots.plot_shortcuts(audit.baselines, phantom=data.phantom)
plt.show()

# %% [markdown]
# What this means depends on the copy that you have, so let the numbers speak:

# %%
known = baselines.iloc[1:]
strong = known[known["auc_cv_train"] > 0.7]
if strong.empty:
    print(f"{mark}No fact of this kind says much about the class.")
constant = facts[["width", "height", "jpeg_quality", "mode"]].nunique().eq(1)
if constant.all():
    print(f"{mark}All files have one size, one quality and one colour mode: this copy was saved anew.")
for features, row in strong.iterrows():
    keeps = "and keeps it" if row["auc_test"] > row["auc_cv_train"] - 0.15 else "but loses it"
    print(f"{mark}{features}: AUC {row['auc_cv_train']:.2f} on train, {keeps} on test ({row['auc_test']:.2f})")

# %% [markdown]
# - **The original files.** The JPEG quality gives the label away almost perfectly in `train` and not at all in `test`:
#   somebody saved the healthy half of `train` with other settings. *Width and height* are another matter: they tell
#   much on both, and reach an accuracy on the test that has been published for networks. The project's
#   [README](../README.md) shows this table for all originals beside the model's results.
# - **A copy that was saved anew** at one size has lost width, quality and mode. If *bytes per megapixel* still speak,
#   they now speak of the picture: fine detail costs bytes, and the healthy images have more of it. Partly because clear
#   lungs show more, partly because their originals were larger and saved better. Those are the old shortcuts, moved
#   from the headers into the pixels, where a network can find them.
# - **The phantom** imitates some of the defects, at its own strength. It teaches how to look, and nothing about
#   patients.
#
# ## The device behind the file
# One fact leads from the header into the picture. Some programs write images in blocks of 8 pixels, so that width *and*
# height are multiples of 8; by chance, one file in 64 would be so. The library knows the sizes of the original training
# files, even where your copy has lost them. How many are of that kind?

# %% tags=["nbval-check-output"]
sizes = original_sizes().items()
in_blocks = pd.DataFrame(
    [("normal" if "IM-" in name else "pneumonia", w % 8 == 0 and h % 8 == 0) for name, (w, h) in sizes],
    columns=["label", "in blocks of 8"],
)
print(in_blocks.groupby("label")["in blocks of 8"].mean().map("{:.1%}".format).to_string())
print(f"by chance    {1 / 64:.1%}")

# %% [markdown]
# So most of the ill children came past one machine that most of the healthy ones never saw. That machine sets a large
# *R* into the corner and has a gray curve of its own, and both can be seen in the pixels. A network that recognises the
# machine is right four times out of five, without a look at the lungs; and it calls every healthy child ill that
# happens to come from there. Stretching, turning and re-encoding do not help against a gray curve.
#
# Can it be helped? Two things make the machine a poor guide, and the preset `cpu` uses both: a random gray curve for
# each image of training (`tone`, [notebook 3](03_augment.ipynb)), and a layer that lends an image the statistics of
# another (`mix_style`). `benchmarks/choice.py` in the repository measures them on training patients held out for the
# purpose, on whom the machine misleads. Another was tried and left: to let the few healthy images of that kind count
# more (`export_weights`) helps there and costs elsewhere, since few images then speak for many. And the edges, where
# the *R* stands, the preset does not look at (`margin`), which does little against the machine and much for pictures
# that were turned or written on. None of them removes the shortcut. One has to know it, and to tell.
#
# The card says what else is known about the original:

# %%
for defect in pn.CARD.defects:
    print("-", defect)

# %% [markdown]
# What do we do about it? Stretch all images to one square, so that shape is gone. Vary sharpness, contrast and encoding
# during training, so that they stop being useful: [notebook 3](03_augment.ipynb). Judge by a shifted part. And print
# the baselines beside every result: **a model has to beat the files before it may speak of lungs**.

# %% [markdown]
# ## Leave both behind
# The split as a table, so that anyone can use the very same one with other tools, and the audit as JSON. What else it
# found, in words:

# %%
home = environment().home
home.mkdir(parents=True, exist_ok=True)
split.save(home / "split.csv")
_ = (home / "audit.json").write_text(audit.to_json() + "\n")
for subject, words in audit.findings.items():
    print(f"{mark}{subject}: {words}")

# %% [markdown]
# A last contract reads the file back and counts again. A proof that lives in memory proves nothing about the file.

# %% tags=["nbval-check-output"]
saved = pd.read_csv(home / "split.csv")
print("columns:", *saved.columns)
print("parts:", *sorted(saved["part"].unique()))
print("patients in more than one part:", int((saved.groupby("patient")["part"].nunique() > 1).sum()))
print("subtypes in every part:", bool((saved.groupby("part")["subtype"].nunique() == saved["subtype"].nunique()).all()))

# %% [markdown]
# ## What you have done
# You have
# - counted images, classes and patients, and seen why sixteen images cannot choose anything
# - caught a random split in the act of leaking patients, and proved that a split by patient does not leak
# - kept a second, *shifted* validation part, and seen why one is not enough
# - measured how well the files give the label away before a single pixel is read
#
# ## Three questions
# 1. A colleague reports 97 % accuracy on a random tenth of the images. Which two reasons for doubt do you know now, and
#    which of them would a split by patient remove?
# 2. A fact has an AUC of .30 on the test. Is it useless?
# 3. Why would it be wrong to build the shifted part by looking at what the *test* images look like?
#
# <details><summary>Answers</summary>
#
# 1. Leaked patients, and habits of the training part that the random tenth shares. The split removes the first only.
# 2. No: it ranks backwards, which is worse than useless for a model that learnt it the other way round on `train`, and
#    it shows that what the fact means has changed between the parts.
# 3. Choosing by the test part, even by eye, is learning from it: the final number would no longer be about new images.
#    The numbers in the names are used, which are known without opening one.
#
# </details>

# %% [markdown] tags=["next"]
# **Next:** [3 · What may change, and what must not](03_augment.ipynb) · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/03_augment.ipynb)
