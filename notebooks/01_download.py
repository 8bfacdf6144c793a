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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/01_download.ipynb)

# %% [markdown]
# # 1 · The task and its data
#
# Can a program tell from a chest X-ray whether a young child has pneumonia? This series builds such a program, in six
# steps, and finds out how far it can be trusted. It begins where every project of this kind begins: with the images,
# with where they come from, and with the question whether the copy on this machine is what it claims to be.
#
# **In this notebook you**
# - learn what a chest X-ray shows, and what pneumonia changes in it
# - get the data set, and know where it was found
# - verify the copy against the data set's card instead of believing it
# - look at X-rays of three kinds, and read from a file's name whose they are
#
# | | |
# |---|---|
# | **Time** | under a minute with the phantom; on Colab some minutes, to fetch more than 1 GB and to open every image |
# | **Hardware** | any; no GPU needed |
# | **Needs** | nothing: the data set is found, fetched or, offline, drawn |
# | **Leaves** | the data set where all later notebooks find it, and `data.json`: what was found and verified |

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
import json
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from pneumolib.config import environment
from pneumolib.data.card import parse_name
from pneumolib.data.images import square
from pneumolib.data.phantom import draw
from pneumolib.evaluation import plots

plt.rcParams["figure.dpi"] = 80

# %% [markdown]
# ## What an X-ray shows
# An X-ray image is a shadow. The rays leave the tube, pass through the child and blacken the detector behind it.
# **Air** lets them through and comes out dark; **water**, and so blood, muscle and heart, holds back a part and comes
# out gray; **bone** holds back most and comes out bright. All that lies along one ray falls onto one pixel: the picture
# has no depth, and organs overlap.
#
# Before any real image, a map. The chest below is *drawn*: it comes from pneumolib's **phantom**, a program that draws
# synthetic X-rays. Because it is drawn, we know where everything is.

# %%
chest = draw("normal", seed=5, patient=3, size=(300, 340))
places = {"lung: air, dark": (108, 130), "spine": (173, 60), "rib": (270, 150), "heart": (215, 170)}
places |= {"diaphragm": (115, 207), "collar bone": (95, 42), "air in the stomach": (230, 262)}
figure, ax = plt.subplots(figsize=(6, 4))
ax.imshow(chest, cmap="gray", vmin=0, vmax=255)
for row, (name, at) in enumerate(sorted(places.items(), key=lambda item: item[1][1])):
    ax.annotate(name, at, (365, 22 + 43 * row), arrowprops={"arrowstyle": "-", "color": "tab:orange"}, va="center")
ax.set(title="PHANTOM: the map of a chest", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# You look at the child from the front, so the child's left side, and with it the tip of the heart, is on the *right* of
# the picture. Two dark fields, the lungs, lie in a cage of ribs. Fine bright threads that branch inside them are blood
# vessels. The edges to look for are those between air and water: lung against heart, lung against diaphragm. They are
# sharp here because on one side of them there is air.

# %% [markdown]
# ## What pneumonia changes
# In pneumonia a part of the lung fills with fluid. Where air was, there is water now, so what was dark turns
# **bright**: radiologists say *opacity*. Here is one drawn child three times: healthy, with the kind of opacity that is
# typical of bacteria, and with the kind that is typical of viruses.

# %%
kinds = ("normal", "bacterial", "viral")
trio = [draw(kind, seed=5, patient=3, size=(260, 300)) for kind in kinds]
plots.plot_images(trio, kinds, ncols=3, inches=2, phantom=True, heading="one child, three times")
plt.show()

# %% [markdown]
# - **Bacterial**, as in the text book: *one* dense patch, often as large as a lobe. Its edges are soft, and where it
#   touches the heart or the diaphragm, their edge vanishes, because the air beside it is gone.
# - **Viral**, as in the text book: streaks and small patches on *both* sides, thickest near the middle.
#
# Now forget half of it. Real images are darker, fainter and more crooked than drawings; the two kinds overlap; doctors
# decide with fever, breathing, blood and history in hand, and not by the picture alone. **What this series builds is
# for learning and research. It is no medical device, and nobody is diagnosed by it.**

# %% [markdown]
# ## The card
# A data set should come with a card that says what it holds, where it was made, and what is wrong with it. pneumolib
# carries this one as data, so that code can compare with it.

# %%
print(pn.CARD)

# %% [markdown]
# Three lines deserve a second look. *Who*: small children of one hospital, so that nothing measured here holds for
# adults or elsewhere. *How many*: three pneumonias for each healthy child in `train`, fewer in `test`. And the
# *defects*: known ones, printed where everyone sees them. [Notebook 2](02_explore.ipynb) measures them.
#
# Cells like the next one are contracts: what they print is compared whenever the project is tested.

# %% tags=["nbval-check-output"]
for split, classes in pn.CARD.counts.items():
    print(f"{split:6}", *(f"{name} {n:5,}" for name, n in classes.items()))
print("total ", f"{pn.CARD.n_images:,}")

# %% [markdown]
# The parts are called *training*, *validation* and *test*. A model learns from the first, its settings are chosen on
# the second, and the third is opened once, at the very end, to see what came of it. Sixteen images to choose on:
# remember that number.

# %% [markdown]
# ## Get the data
# One line. It looks, in this order, at
# 1. the folder or zip that you name: `pn.load_dataset("...")`, or the environment variable `PNEUMOLIB_DATA`;
# 2. the copy that an earlier download through `kagglehub` left in its cache, or that Colab or Kaggle have mounted;
# 3. Kaggle itself: no account is needed. The version is pinned, so that you and I get the same files;
# 4. the **phantom**: where no X-rays can be had and the settings allow it, synthetic ones are drawn, and said to be so.

# %%
data = pn.load_dataset(config=config)

# %% [markdown]
# So which of them was it? The next cell answers in words.

# %%
FOUND = {
    "folder": "in a folder that was named.",
    "zip": "in a zip that was named; it is read in place, without unpacking.",
    "kaggle": "through kagglehub: the pinned version of the data set on Kaggle.",
    "phantom": "nowhere: these are PHANTOMS, drawn by pneumolib. They show how everything works and prove nothing.",
}
print("Real X-rays." if not data.phantom else "No real X-rays.", "Found", FOUND[data.kind])
print(data.counts())

# %% [markdown]
# If you see phantoms and would rather see X-rays: on a machine with network access choose the preset `cpu` or `full`,
# which never stand in, and run all cells again. Everything below works with both, and every figure made from phantoms
# says so in its title.

# %% [markdown]
# ## Verify it
# Downloads break, zips are repacked, somebody deletes "the bad ones". So compare what is here with the card: what is
# missing, what is there too much, which files are the same twice, and, with `deep=True`, which cannot be decoded.

# %%
verification = data.verify(deep=True)
print(verification)

# %% [markdown]
# A copy that is not whole is *reported*, not refused: a part is enough for many purposes, as long as nobody takes it
# for the whole. What to make of the report, in a sentence:

# %%
found = sum(len(part) for part in (data.train, data.val, data.test))
if data.phantom:
    print(f"PHANTOM: {found:,} drawn images. The card describes the real data set, so the counts cannot match.")
elif pn.CARD.counts_match(data.counts()):
    print(f"All {found:,} images of the card are here, in the right numbers.")
else:
    print(f"A partial copy: {found:,} of {pn.CARD.n_images:,} images. Results from it are not those of the whole set.")

# %% [markdown]
# **Duplicates** are the finding to think about. The same file twice in `train` counts double, no more. The same file in
# `train` and in `test` would be an exam question that was in the exercise book: the result would be worth less, and
# nothing in the result would show it. The next cell *claims* that this has not happened, and stops if it has.

# %%
assert not verification.across_splits, "the same file lies in two parts: the test is not clean"
assert not verification.conflicting, "the same file carries both labels"
assert not verification.unreadable, "there are files that cannot be read"

# %% [markdown]
# A check that has never found anything proves little about the check. So break something on purpose: a tiny phantom,
# one of its training images copied into the test part, and another cut off, as by a download that stopped.

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    root = pn.make_phantom(f"{folder}/broken", n_train=12, n_val=2, n_test=8, size=(96, 112))
    first, second, *_ = sorted((root / "train" / "NORMAL").iterdir())
    (root / "test" / "NORMAL" / first.name).write_bytes(first.read_bytes())
    second.write_bytes(second.read_bytes()[:900])
    broken = pn.load_dataset(root).verify(deep=True)
print("in train and in test:", *broken.across_splits[0])
print("cannot be read:", *(name for name, reason in broken.unreadable))

# %% [markdown]
# Both are found, by name.

# %% [markdown]
# ## Read the names
# The labels are the folders: `NORMAL` and `PNEUMONIA`. The *names* say more. They tell bacterial from viral, and they
# number the patients. One trap waits there: `person80_bacteria` and `person80_virus` are two different children,
# because the bacterial and the viral files were numbered separately.

# %% tags=["nbval-check-output"]
for folder, name in [
    ("NORMAL", "IM-0115-0001.jpeg"),
    ("NORMAL", "NORMAL2-IM-0383-0001.jpeg"),
    ("PNEUMONIA", "person80_bacteria_389.jpeg"),
    ("PNEUMONIA", "person80_virus_150.jpeg"),
    ("PNEUMONIA", "my_own_file.jpeg"),
]:
    who = parse_name("train", folder, name)
    print(f"{name:27} {who.label:10} {who.subtype:12} patient {who.patient}")

# %% [markdown]
# Many who worked with this data set took the number alone for the patient, and found that train and test share some
# hundred patients. With the right key they share none. A name that follows no pattern is not guessed at: its file
# becomes a patient of its own.

# %% [markdown]
# ## Look
# Now the images. Three of each kind, taken at equal distances through the training part, so that nobody picked them.

# %%
picked = [i for kind in kinds for i in np.flatnonzero(data.train.subtypes == kind)[[5, 20, 35]]]
images = [square(data.train.image(i), 180) for i in picked]
titles = [data.train.subtypes[i] for i in picked]
plots.plot_images(images, titles, ncols=3, inches=1.45, phantom=data.phantom, heading="three of each kind")
plt.show()

# %% [markdown]
# Take your time. Cover the titles with your hand: could you tell the rows apart? Compare how dark the lungs are,
# whether you can follow the edge of the heart all the way down, whether the diaphragm is a clear line. Look also at
# what should *not* matter and still differs: how much of the arms and the belly is in the picture, letters near the
# edge, how the child lies. A program sees all of that, too, and does not know what matters. [Notebook
# 3](03_augment.ipynb) is about telling it.

# %% [markdown]
# What does the computer get? A table of numbers: one gray value, 0 (black) to 255 (white), for each pixel. Files may be
# gray or colour, 8 or 16 bits; every image enters through one door, `pn.decode`, which always gives the same kind of
# array or says why it cannot.

# %% tags=["nbval-check-output"]
arrays = [data.train.image(i) for i in picked]
print("types of array:", {str(array.dtype) for array in arrays})
print("axes:", {array.ndim for array in arrays})
print("gray values within 0 and 255:", all(a.min() >= 0 and a.max() <= 255 for a in arrays))
print("after squaring:", {square(array, 64).shape for array in arrays})

# %% [markdown]
# Heights and widths differ from file to file; a network wants them equal. So each image is *stretched* to a square.
# That bends the chest a little, and it is done on purpose: black bars or a crop would keep the proportions, and the
# proportions of the files give the label away, as the next notebook shows. Bars that a file brings along, black from
# edge to edge, are left out first.

# %%
for i, array in zip(picked, arrays, strict=True):
    height, width = array.shape
    kind = data.train.subtypes[i]
    print(f"{kind:10} {height:5} x {width:<5} aspect {width / height:.2f}   mean gray value {array.mean():.0f}")

# %% [markdown]
# If all sizes are equal, the copy on this machine was saved anew by someone; verification cannot know that, but you can
# see it.

# %% [markdown]
# ## Whose images these are
# The X-rays are other people's work, and other people's children. The licence allows use with attribution: whoever
# publishes something made with them cites this.

# %% tags=["nbval-check-output"]
print(pn.CARD.citation)
print("Licence:", pn.CARD.licence)

# %% [markdown]
# ## Leave a record
# The data set lies where `pn.load_dataset()` finds it again, at once, in every later notebook. A small file records
# what was found, with a **fingerprint**: sixteen digits that change when any file is added, removed or exchanged.
# Results carry it, so that a year from now you can tell whether they belong to the same data.

# %%
home = environment().home
home.mkdir(parents=True, exist_ok=True)
record = {"kind": data.kind, "phantom": data.phantom, "fingerprint": data.fingerprint(), "counts": data.counts()}
_ = (home / "data.json").write_text(json.dumps(record, indent=1) + "\n")
assert pn.load_dataset(config=config).fingerprint() == record["fingerprint"]

# %% [markdown]
# ## What you have done
# You have
# - learnt what a chest X-ray shows, and what pneumonia changes in it
# - got the data set, and know where it was found
# - verified the copy against the data set's card instead of believing it
# - looked at X-rays of three kinds, and read from a file's name whose they are
#
# ## Three questions
# 1. Why does pneumonia look *bright*, and why can the edge of the heart vanish beside it?
# 2. Your copy holds the same image once in `train` and once in `test`. Which number of your final report is wrong, and
#    in which direction?
# 3. Why should a verification report a missing folder, but not refuse to go on?
#
# <details><summary>Answers</summary>
#
# 1. Fluid has replaced air, and fluid holds back more rays. An edge is seen only where the two sides differ; beside the
#    heart, fluid against muscle is gray against gray.
# 2. All that are measured on the test part, and they are too good: the model has seen the answer.
# 3. Because a part may be all that somebody needs or has. What must not happen is that it passes for the whole; so it
#    is said, and written into the record.
#
# </details>

# %% [markdown] tags=["next"]
# **Next:** [2 · What the data says, and what it gives away](02_explore.ipynb) · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/02_explore.ipynb)
