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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/05_evaluate.ipynb)

# %% [markdown]
# # 5 · How good is it, and how do we know?
#
# A single number, "94 % accuracy", says little. Of how many images? Decided by which threshold, chosen when? Better
# than what? Wrong on whom? This notebook opens the official test part, once, and answers these questions, one after the
# other.
#
# **In this notebook you**
# - open the test once, with everything frozen beforehand, and read each number with its interval
# - look behind the numbers: ROC and precision-recall curves, probabilities, subtypes, errors
# - find out what the detector can bear, and whether it needs the lungs to answer
# - translate a threshold into what happens to a thousand children, and say when it should not answer
# - place the result among baselines and published results, and say what it does *not* show
#
# | | |
# |---|---|
# | **Time** | some minutes, if the run of [notebook 4](04_train.ipynb) is there; otherwise it is trained first |
# | **Hardware** | any; a GPU only where the run has to be trained with the preset `full` |
# | **Needs** | the data set, and a finished run: found, or trained by the same call as in notebook 4 |
# | **Leaves** | `report.json` and a folder of figures |

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
# @title Settings: the same as in notebook 4, and how common pneumonia is where the detector would be used
PRESET = "auto"  # @param ["auto", "full", "cpu", "scratch", "quick", "ci"]
SAVE_TO_DRIVE = False  # @param {type: "boolean"}
PREVALENCE = 0.2  # @param {type: "slider", min: 0.01, max: 0.9, step: 0.01}
config = pn.Config.preset(PRESET)

# %%
import json
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from pneumolib import runtime
from pneumolib.config import environment
from pneumolib.data.lungs import lung_field
from pneumolib.data.splits import shared_patients
from pneumolib.data.stress import LUNG_BOX, STRESSES, stressed_squares
from pneumolib.evaluation import metrics, plots
from pneumolib.evaluation.abstention import fit_abstention, measure_abstention
from pneumolib.evaluation.consequences import adjust_for_prevalence, consequences, consequences_of, decision_curve
from pneumolib.evaluation.faithfulness import heat_in_lungs
from pneumolib.evaluation.published import N_TEST, PUBLISHED, SIZE_BASELINE
from pneumolib.models import training
from pneumolib.models.explain import heat_maps, randomisation_check

plt.rcParams["figure.dpi"] = 80
pd.set_option("display.max_colwidth", None)

# %%
data = pn.load_dataset(config=config)
split = pn.split_by_patient(data.train, seed=config.seed)
mark = "PHANTOM: " if data.phantom else ""
figures = environment().home / "figures"
figures.mkdir(parents=True, exist_ok=True)


def keep(name: str) -> None:
    plt.savefig(figures / f"{name}.png", bbox_inches="tight")
    plt.show()


# %% [markdown]
# ## The detector
# The call is that of notebook 4. If its run is finished, it comes back at once; if it was interrupted, it goes on; if
# there is none, it is trained now, with the preset from the settings.

# %%
folder = training.default_folder(config, split)
if SAVE_TO_DRIVE:
    folder = runtime.drive_folder() / folder.name
found = (folder / "detector").is_dir()
run = pn.train(data, config, out=folder)
detector = run.detector
print("A finished run was here." if found else "No finished run was here, so it was trained now.")
print(detector)

# %% [markdown]
# ## What is frozen
# Everything that could be chosen has been chosen, on validation patients: the weights, the *temperature* that corrects
# how sure the probabilities are, and three *operating points*, the probabilities from which on it says pneumonia.

# %%
points = detector.operating_points
pd.DataFrame([vars(point) for point in points.values()]).set_index("name").round(3)

# %% tags=["nbval-check-output"]
print("operating points:", *points)
low, middle, high = (points[name].threshold for name in ("high_sensitivity", "balanced", "high_specificity"))
print("in this order, between 0 and 1:", 0 < low <= middle <= high < 1)
print("temperature above 0:", detector.temperature > 0)
for name, part in split.parts().items():
    print(f"{name + ' & test':14} share {len(shared_patients(part, data.test))} patients")

# %% [markdown]
# `balanced` is the one by which we shall be judged. Why does it matter so much *when* it was chosen? Because the best
# threshold for the test part can only be found by looking at the test part. Many a published accuracy was made that
# way, and no hospital has the labels of tomorrow's patients.

# %% [markdown]
# ## The test, once
# How much of the official test part is there, and how hard is it to be right by chance?

# %%
official = pn.CARD.counts["test"]
y = data.test.is_pneumonia
whole = data.counts()["test"] == dict(official)
print(f"{mark}{len(y)} images of {len(set(data.test.patients))} patients,", end=" ")
print("a drawn stand-in for the official test part." if data.phantom else "all of it." if whole else "a part of it.")
print(f"{mark}Always saying pneumonia would be right in {y.mean():.1%} of them.")

# %% [markdown]
# Now. Each number comes with a 95 % interval: patients are drawn again and again, with replacement, and each time
# everything is computed anew. Patients, not images, because two images of one child are no two independent pieces of
# evidence.

# %%
report = pn.evaluate(detector, data.test)
report

# %% [markdown]
# How to read it:
# - **AUC**: take one ill and one healthy child at random; how often does the ill one get the higher probability? No
#   threshold is involved.
# - **Sensitivity**: of the ill, how many are found? **Specificity**: of the healthy, how many are left in peace? Both
#   depend on the threshold, and pull in opposite directions.
# - **Accuracy** mixes the two by the test part's share of pneumonia, which is nobody else's share.
# - **Brier score** and **calibration error** ask whether the probabilities mean what they say: zero is perfect.
#
# In a sentence:

# %%
auc, accuracy = report.metrics["auc"], report.metrics["accuracy"]
right = report.confusion["tp"] + report.confusion["tn"]
print(f"{mark}{right} of {report.n} right: accuracy {accuracy}; AUC {auc}.")
half = 100 * (accuracy.high - accuracy.low) / 2
print(f"{mark}Another result within {half:.1f} points of this accuracy is not a different one.")

# %% [markdown]
# Two checks that every reader of papers should make. Do the four fields add up, and is the accuracy a whole number of
# images? A published accuracy that is no multiple of 1/624 was not measured on the official test part.

# %% tags=["nbval-check-output"]
print("metrics:", *report.metrics)
print("tn + fp + fn + tp = n:", sum(report.confusion.values()) == report.n == len(data.test))
print("accuracy is a whole number of images:", abs(accuracy.value * report.n - round(accuracy.value * report.n)) < 1e-6)
print("every value lies in its interval:", all(m.low <= m.value <= m.high for m in report.metrics.values()))

# %% [markdown]
# And a claim, which fails where something is wrong. The floors are far below what each preset should reach; a preset
# for a minute's test promises only that it beats a coin.

# %%
floor = {"full": 0.95, "cpu": 0.95, "scratch": 0.95, "quick": 0.85}.get(config.name, 0.75)
assert auc.value > floor, f"AUC {auc} with preset {config.name}: something is wrong"

# %% [markdown]
# ## All thresholds at once
# The **ROC curve** draws sensitivity against false alarms for every threshold there is. The **precision-recall curve**
# asks of the alarms how many are right; the dashed line is what a coin would reach.

# %%
p = np.array(report.predictions["probability"])
figure, axes = plt.subplots(1, 2, figsize=(9, 4))
shared = {"patients": data.test.patients, "operating_point": points["balanced"], "phantom": report.phantom}
plots.plot_roc(y, p, ax=axes[0], **shared)
plots.plot_precision_recall(y, p, ax=axes[1], **shared)
figure.tight_layout()
keep("roc_and_precision")

# %% [markdown]
# The mark is the frozen operating point. It need not lie at the corner of the curve: it was chosen elsewhere. How far
# it lies from the corner is the price of honesty, and of the shift between the parts.

# %%
figure, ax = plt.subplots(figsize=(7, 3.2))
plots.plot_scores(p, data.test.subtypes, threshold=points["balanced"], ax=ax, phantom=report.phantom)
keep("scores")

# %% [markdown]
# Here are the probabilities behind the curves. Ideal would be two heaps, one at each end, and nothing between. What
# lies on the wrong side of the line is an error; what lies near it is a coin toss that looks like an answer.

# %% [markdown]
# ## Do the probabilities mean what they say?
# Take all images for which it says about 80 %. Are 80 % of them pneumonia? Left: validation patients, drawn like those
# of training; the temperature was fitted on them together with the shifted validation images, so the left side
# flatters. Right: the test.

# %%
held_out = pd.read_csv(run.folder / "predictions.csv").query("part == 'val'")
validation = held_out["subtype"] != "normal", held_out["probability"], held_out["patient"]
plots.plot_calibration_pair(validation, (y, p, data.test.patients), phantom=report.phantom)
keep("reliability")

# %% [markdown]
# Points on the dotted line are kept promises. A point below it says "surer of pneumonia than the images bear out", a
# point above it the opposite; a long bar says that there are too few images to tell. Below each curve: how many images
# its points rest on. Above it, the reading: the **calibration error** is the mean distance from the line, each point
# with the weight of its images, and the last line says whether the probabilities are too high or too low *on the
# whole*, where that is more than chance. "Right on the whole" is a weak word: what is too high on one side and too low
# on the other passes as right.
#
# Calibration is a promise about *one* population. One number, the temperature, was fitted on patients of the training
# part, where pneumonia has another share than in the test, and a ward would have another one again. It can make the
# detector less boastful. It cannot know who will come through the door.

# %% [markdown]
# ## What a threshold costs
# Now a thousand children, of whom a share of `PREVALENCE` has pneumonia (set it in the settings at the top). The
# sensitivity and specificity measured above turn into children:

# %%
here = consequences_of(report, PREVALENCE)
print(here)
plots.plot_consequences(here)
keep("consequences")

# %% [markdown]
# Left the ill, right the healthy; a black cross is an ill child that is called normal, a diamond a healthy one alarmed
# for nothing. Blue marks and diamonds together are the alarms: that is how a doctor meets the detector, one alarm after
# the other, without knowing which kind it is. In brackets, what the sensitivity and specificity might be as well. Not
# in brackets: how far one particular thousand departs from the average, and whether the prevalence is what you set.
#
# That was one line. What would you choose for a ward at night, where a missed child is the worst? And for a screening,
# where each alarm means another X-ray?

# %%
rates = {name: metrics.bootstrap(y, p, data.test.patients, point.threshold) for name, point in points.items()}
leads = {
    name: consequences(rate["sensitivity"], rate["specificity"], PREVALENCE, name=name, phantom=report.phantom)
    for name, rate in rates.items()
}
rows = {
    name: {group.replace("_", " "): lead.count(group) for group in lead.children}
    | {"an alarm is right": lead.share("ppv"), "an all-clear is right": lead.share("npv")}
    for name, lead in leads.items()
}
pd.DataFrame(rows)

# %% tags=["nbval-check-output"]
every = [here, *leads.values()]
ill = {lead.children["found"] + lead.children["missed"] for lead in every}
print("found and missed are the ill:", ill == {round(1000 * PREVALENCE)})
print("the four groups make the thousand:", all(sum(lead.children.values()) == 1000 for lead in every))
print("the report's line is the balanced one:", here.children == leads["balanced"].children)
line = [leads[name] for name in ("high_sensitivity", "balanced", "high_specificity")]
print("a higher line finds no more:", all(a.found >= b.found for a, b in pairwise(line)))
print("and alarms no more:", all(a.alarmed >= b.alarmed for a, b in pairwise(line)))

# %% [markdown]
# The same detector, the same images; only the line is drawn elsewhere. **An operating point is a choice of
# consequences.** No column is the right one: a higher line buys fewer false alarms with missed children, and what a
# missed child may cost is no question about images. The thresholds were frozen on validation; look whether the column
# `high_sensitivity` does here what its name says.
#
# And the same line means something else where pneumonia is rare:

# %%
shares = np.linspace(0.01, 0.9, 90)
figure, ax = plt.subplots(figsize=(7, 3.2))
for name, rate in rates.items():
    hit, spared = rate["sensitivity"].value, rate["specificity"].value
    ax.plot(shares, [consequences(hit, spared, share).ppv for share in shares], label=name)
ax.axvline(PREVALENCE, color="gray", linestyle=":")
title = f"{mark}how often an alarm is right"
ax.set(title=title, xlabel="share of ill children", ylabel="alarms that are right", ylim=(0, 1.02))
ax.legend(loc="lower right", frameon=False)
keep("alarms")

# %% [markdown]
# On the left, where few are ill, most alarms of even a good detector are false: the few errors among very many healthy
# children outnumber the ill. A curve that is flat at the top belongs to a line that alarmed no healthy child *among
# these*; the brackets in the table say what it might do among others. A share of right alarms that was measured on a
# test part with a majority of ill children says nothing about a practice with few. And all of this assumes that ill and
# healthy children there look like those in the test part, which nobody has checked.

# %% [markdown]
# ## Is acting on it worth it?
# Whoever acts from a probability of 20 % on says that one found child is worth four alarms for nothing. Thus each
# threshold *is* a judgement of what errors cost, and in its currency detectors can be compared: **net benefit** is the
# children found, less the alarms for nothing at the price that the threshold puts on them (Vickers and Elkin 2006, doi
# 10.1177/0272989X06295361). Two rivals need no detector at all: to act on every child, and on none.
#
# The probabilities were calibrated where pneumonia has the share of the validation images. Where it has another, they
# can be **adjusted**: their odds times the ratio of the prior odds.

# %%
before = validation[0].mean()
there = adjust_for_prevalence(p, before, PREVALENCE)
place = {"patients": data.test.patients, "prevalence": PREVALENCE}
curves = {"as they are": decision_curve(y, p, **place), "adjusted to the prevalence": decision_curve(y, there, **place)}
plots.plot_decision_curve(curves, phantom=report.phantom)
keep("decision_curve")
print(f"{mark}{before:.1%} of the validation images are ill; it shall be used where {PREVALENCE:.0%} are.")

# %% [markdown]
# Find the threshold that stands for *your* judgement of the two errors, on the lower or the upper axis, and look only
# there. A curve **above both lines**: at this judgement, acting on the detector beats acting on all and on none, for
# children like these. On or below the orange line: one might as well act on every child. Below zero: acting on it does
# more harm than good. Only where the whole band is above both, more than chance is to be seen; the band is for each
# threshold by itself, not for the curve.

# %%
for name, curve in curves.items():
    best = np.maximum(curve.treat_all, curve.treat_none)
    shown = curve.thresholds[curve.low > best]
    span = f", between {shown.min():.2f} and {shown.max():.2f}" if len(shown) else ""
    print(f"{mark}{name}: shown to be worth it at {len(shown)} of {len(best)} thresholds{span}")
print("adjusting leaves the order, so the AUC:", abs(metrics.auc(y, there) - metrics.auc(y, p)) < 1e-6)

# %% [markdown]
# The two curves know the same: adjusting moves no child past another. What differs is the children on whom one acts at
# a given threshold. Where the adjusted curve is the higher one, the arithmetic has paid. It need not be: the arithmetic
# is right if the probabilities were calibrated before, and if ill and healthy children look the same in both places.
# The pictures of calibration above say how far the first holds; the second can only be checked there.
#
# Two things not to do. Do not pick a threshold where the curve is best: it is made of test images. And do not take net
# benefit for a benefit to children: it counts who is found and who is alarmed, not what is done then. Whether acting
# *helps* is a question for a trial.

# %% [markdown]
# ## When should it say "not sure"?
# A detector that must answer guesses where it does not know. A **conformal** rule may give both answers, or none. It
# puts two limits on the probability, so that of each class a stated share of patients, the *coverage*, keeps the true
# answer among the possible ones (class-conditional split conformal prediction: Vovk 2012, arXiv 1209.2673). The limits
# come from the validation patients, ill and healthy apart, each patient with the same weight. With `n` patients of a
# class, the rarest that can be told is one in `n + 1`: beyond a coverage of `n / (n + 1)`, nothing can be ruled out.

# %%
fewest = held_out.groupby(validation[0])["patient"].nunique().min()
rarest = 1 / (fewest + 1)
rule = fit_abstention(*validation, coverage=min(0.98, 1 - rarest))
print(f"{mark}{fewest} validation patients in the smaller class, so a coverage of at most {1 - rarest:.1%}")
print(f"{mark}{rule}")
print(f"{mark}{measure_abstention(rule, y, p, data.test.patients)}")

# %% [markdown]
# The promise holds for **exchangeable** patients: such as might as well have stood among the validation patients. Those
# of the official test part might not, for it is shifted against the training part. Therefore coverage is *measured*
# here, and nothing is promised. "Less than stated", with the whole interval, is no fault of the arithmetic. It is the
# shift, or bad luck with few validation patients: the promise is a mean over all that might have been drawn. And
# validation images chose the epoch, which makes it a little too bright. Now the same for other coverages, and what they
# cost:

# %%
stated = 1 - np.geomspace(max(0.2, 2 * rarest), rarest, 12)
kept = [measure_abstention(fit_abstention(*validation, coverage=c), y, p, data.test.patients) for c in stated]
plots.plot_abstention(kept, phantom=report.phantom)
keep("abstention")

# %% [markdown]
# Left, is the promise kept? A curve on or above the dotted line keeps it here; one **below it with its whole band is a
# broken promise**. Look at the classes apart: a shift can cost one its coverage and spare the other, and then the rule
# errs in one direction. Each step is an image of a validation patient; where there are few, as on the phantom, the
# curves have few steps, and say little more than that.
#
# Right, the price: how many patients get *one* answer. "Neither fits" is where the coverage asks for less than the
# detector can do: a higher one would cost no answers. "Both fit" is where it asks for more, and there "not sure" is the
# honest answer.
#
# Before it is used, such a rule has to be fitted anew, on patients from there. And "not sure" is worth only what
# follows it: somebody has to look at these children.

# %% [markdown]
# ## On whom does it fail?
# The names tell bacterial from viral. One is harder than the other.

# %%
rows = [
    (name, part.n, key, str(value)) for name, part in report.per_subtype.items() for key, value in part.metrics.items()
]
pd.DataFrame(rows, columns=["subtype", "images", "metric", "value and 95 % interval"])

# %%
found = {name: part.metrics["sensitivity"] for name, part in report.per_subtype.items() if name != "normal" and part.n}
found = {name: value for name, value in found.items() if value is not None}
hardest, easiest = min(found, key=lambda n: found[n].value), max(found, key=lambda n: found[n].value)
apart = found[hardest].high < found[easiest].low
print(f"{mark}{hardest} cases are found least: {found[hardest]}; {easiest}: {found[easiest]}.")
print(
    "The intervals do not overlap."
    if apart
    else "The intervals overlap: that they differ is not shown by these images."
)

# %% [markdown]
# Viral pneumonia is often diffuse and faint, without the dense patch that catches the eye, so one would expect it to be
# missed more often. Whether it is, the interval says, not the expectation. How the germ was found is not documented for
# single images; take the subtype as a hint.

# %% [markdown]
# ## Look at the errors
# First how many, then which. Shown is a row for each outcome: the errors that it was surest of, and some that it called
# rightly. Beside each picture lies a **heat map**: how much each place of the last feature map adds to the odds of
# pneumonia. The logits are linear in the mean of that map, so this needs no gradient (Zhou et al., 2016,
# arXiv:1512.04150); Grad-CAM at this layer is the same picture.

# %%
wrong = report.table().query("decision != label")
missed, alarms = wrong[wrong["label"] == "pneumonia"], wrong[wrong["label"] == "normal"]
print(f"{mark}{len(missed)} ill children missed:", missed["subtype"].value_counts().to_dict())
print(
    f"{mark}{len(alarms)} healthy children alarmed; {len(wrong)} errors come from {wrong['patient'].nunique()} patients"
)

# %%
squares = data.test.images(detector.size)
heats = heat_maps(detector, squares)
shown = {"inches": 1.75, "phantom": report.phantom}
plots.plot_heatmap_gallery(squares, heats, y, p, data.test.names, points["balanced"], **shown)
keep("errors")

# %% [markdown]
# Look slowly, and distrust the first story that comes to mind; for any eight pictures a story can be found. Some
# questions that can be *checked* afterwards:
# - Is the child turned, cut off, very dark or very bright? Compare with the stress test below.
# - Is there something that is not the child: a letter, a tube, an electrode, the edge of the film?
# - Several errors of one patient? Then it is one finding, not several.
# - Is the heat where the finding is? It has few places, so it points to a region and draws no outline; and it is warm
#   where the *network* found its reasons, in a wrong answer just as in a right one.
# - Could the label be wrong? The test labels were read by more doctors than the training labels, but the healthy ones
#   that were called ill have never been read again. A sure error may be a doctor's.
#
# What you must not do is to repair the detector until these pictures are right. Then they are training images, and you
# need a new test.

# %% [markdown]
# ## What can it bear?
# Tomorrow's machine is darker, its files are smaller, its child lies askew. A **stress test** changes the test images
# in one way at a time, by a known amount, and asks the frozen detector again, at the frozen threshold. In most of these
# pictures a doctor's answer would stay. One child, and a change of each kind (of brightness, two):

# %%
child = int(np.argmax(y))
labels = {change.group: change.label for change in STRESSES if change.group != "lung box"}
wanted = [change for change in STRESSES if change.label in (*labels.values(), "brightness x 0.6")]
changed = stressed_squares(data.test, child, 112, wanted)
pictures = [data.test.take([child]).images(112)[0], *changed]
titles = ["untouched", *(f"{change.group}\n{change.level}" for change in wanted)]
plots.plot_images(pictures, titles, ncols=7, inches=1.15, phantom=data.phantom, heading="one child, changed")
plt.show()

# %% [markdown]
# Would you decide otherwise for any of them? Now for all test images and all changes. A large network on a small
# machine would take very long for that; there, every fourth image is enough to see a loss that matters.

# %%
large = config.weights is not None
part = data.test.take(np.arange(0, len(y), 4)) if large else data.test
stress = pn.stress_test(detector, part)
plots.plot_stress(stress.to_dict())
keep("stress")

# %% [markdown]
# How to read it:
# - A row is a change, a dashed line the untouched images. A mark to the left of its line has lost; one to the right has
#   gained, mostly by luck. What would not fit stands in an arrow.
# - Compare **AUC** with **accuracy** in each row. Often the *order* of the children survives a change and the
#   *threshold* does not: all probabilities shift together, and a fixed line cuts elsewhere. Then accuracy falls and AUC
#   stays. A detector can lose half of its specificity to a brightness knob while its AUC looks untouched. So a new
#   place needs its threshold looked at before anything else.
# - Where both fall, the pictures have really become harder for it.
# - The last rows, the lung box, are of another kind; they come below.
#
# Which of these has it met in training? A child that was turned in every epoch should not mind being turned. For each
# kind of change, the worst loss (below 0, even the worst was a gain), and the step of this run's augmentation that
# resembles it:

# %%
steps = pn.Augmentation.of(config.augmentation).active()
RESEMBLES = {"aspect": "scale", "borders": "border", "markers": "letters" if "letters" in steps else "border"}
table = stress.to_frame()
kinds = table[table["group"].isin(labels)].groupby("group", sort=False)
worst = kinds[["auc_loss", "accuracy_loss", "changed"]].max().round(3)
met = {kind: RESEMBLES.get(kind, kind) for kind in worst.index}
worst["met in training"] = [f"{met[kind]} {steps[met[kind]]:g}" if met[kind] in steps else "" for kind in worst.index]
worst.rename(columns={"auc_loss": "AUC, loss", "accuracy_loss": "accuracy, loss", "changed": "answers that change"})

# %%
harm = table[table["group"].isin(labels)].sort_values("accuracy_loss").iloc[-1]
print(f"{mark}The most harmful, {harm['label']!r}, costs {100 * harm['accuracy_loss']:.1f} points of accuracy", end=" ")
print(f"and {harm['auc_loss']:.3f} of AUC.")
print(f"{mark}{stress.n} images: one of them is {100 / stress.n:.1f} points of accuracy.")

# %% [markdown]
# A small loss where training has met the change is no surprise, and no proof that it bears what nobody thought of. A
# large loss *in spite of* a step says that the step was weaker than the change: compare its number with the rows of the
# figure. And a loss where nothing was met is a piece of news about the world in which this detector must not be used.
#
# The column of answers that change counts both directions: an accuracy can stay as it is while some errors are mended
# and as many are made. And look at what one image is worth. In the stored outputs, on the phantom, it is nearly a
# point, so that most of the short lines in the figure mean nothing.
#
# **Nothing was chosen by this table**, and nothing may be: it is made of test images. If it gives you an idea, such as
# a stronger step, then develop it with `pn.stress_test(detector, split.val)`.

# %% [markdown]
# ## Where does it look?
# Two of the changes are questions about the detector, not about tomorrow's pictures. Black out a box around the lungs:
# what can it still know? Black out everything *but* the box: what does it lose? The box is the same for all, drawn by
# hand on the mean of the training images; it holds both lungs of nearly all children, and few of the corners' letters.
# What is black from edge to edge is left out before a detector looks, so the box alone fills the square.

# %%
boxes = [change for change in STRESSES if change.group == "lung box"]
reached = table.set_index("level")["auc"]
titles = {"": "untouched, and the box", "hidden": "lungs hidden", "only": "only the lungs"}
titles = [f"{title}\nAUC {reached[level]:.3f}" for level, title in titles.items()]
pictures = [data.test.take([child]).images(160)[0], *stressed_squares(data.test, child, 160, boxes)]
more = {"phantom": data.phantom, "heading": "one child, and the AUC of all"}
figure = plots.plot_images(pictures, titles, ncols=3, inches=2.3, **more)
top, bottom, left, right = (160 * edge for edge in LUNG_BOX)
figure.axes[0].plot([left, right, right, left, left], [top, top, bottom, bottom, top], "--", color="tab:orange")
keep("lung_box")

# %% [markdown]
# With the lungs hidden, a detector that reads lungs should do what a coin does, AUC .5, give or take what chance gives
# to so many images. With only the lungs left, it should lose little. Does it?

# %%
ill, well = part.is_pneumonia.sum(), (~part.is_pneumonia).sum()
luck = 1.96 * np.sqrt((ill + well + 1) / (12 * ill * well))
print(
    f"{mark}lungs hidden:   AUC {reached['hidden']:.3f}; a coin would mostly get {0.5 - luck:.3f} to {0.5 + luck:.3f}"
)
print(f"{mark}only the lungs: AUC {reached['only']:.3f}, untouched {reached['']:.3f}")
beyond = abs(reached["hidden"] - 0.5) > luck
print(mark + ("Something" if beyond else "Nothing"), "outside the box is shown to tell the classes apart.")

# %% tags=["nbval-check-output"]
jpeg = table.loc[table["group"] == "jpeg", "auc_loss"]
print(len(STRESSES), "changes of", len({change.group for change in STRESSES}), "kinds, and the untouched:", len(table))
print("untouched, it is what the report says:", large or abs(reached[""] - auc.value) < 1e-4)
print("hiding the lungs costs more AUC than any JPEG quality:", bool(reached[""] - reached["hidden"] > jpeg.max()))
print("the lungs alone are worth more than all the rest:", bool(reached["only"] > reached["hidden"]))

# %% [markdown]
# Read the AUC here, not the accuracy: a black box is something that it has never seen, and no threshold was made for
# it. And do not read too much:
# - An AUC **well above .5 without lungs** means that something else tells the classes apart: a letter, the frame, the
#   arms, how the film was cut, the gray of the shoulders. It *can* use that. How much it does while there are lungs to
#   look at, this does not say.
# - An AUC **near .5 without lungs** means that it needs what is in the box. It does not mean that it reads pneumonia
#   there. Sharpness, grain and gray curve of a device are in the box as well; so is the heart.
# - A loss **with only the lungs** may be what stood outside, or the black frame itself.
#
# A shortcut can be shown in this way. Its absence cannot. The heat maps may be asked the same, in two numbers: how much
# of the heat lies in the lungs, as a rough outline drawn by the library finds them; and whether the maps change when
# the network forgets all that it learnt (Adebayo et al., 2018, arXiv:1810.03292), as they must if they show that.

# %%
called = np.flatnonzero(p >= points["balanced"].threshold)[:40]
lungs = {i: mask for i in called if (mask := lung_field(squares[i])).any()}
heat = [heat_in_lungs(heats[i], mask) for i, mask in lungs.items()]
print(f"{mark}lungs found on {len(lungs)} of {len(called)} pictures that were called ill")
print(f"{mark}share of the heat inside them, median: {np.nanmedian(heat):.2f}")
print(f"{mark}share of the picture that they are: {np.median([mask.mean() for mask in lungs.values()]):.2f}")
forgotten = randomisation_check(detector, squares[called[:8]])
print(f"{mark}likeness of the maps when the network forgets: {forgotten['network']:.2f} (1: the same maps)")

# %% [markdown]
# Heat that is spread evenly over the picture would have the same share in the lungs as the lungs have of the picture.
# More speaks for the detector; how much more is enough, nobody can say, for pneumonia reaches behind heart and
# diaphragm, where the outline does not go. A likeness far from 0 would say that the maps show the picture, and not
# what was learnt.

# %% [markdown]
# ## Among others
# What do others reach? Only results on the same 624 official test images count, and only such that, as far as one can
# see, were not selected on them. Re-shuffled splits, where 97 to 99 % are common, measure another thing: there, the
# JPEG quality of the files alone separates the classes (notebook 2). The sources are named; the numbers are theirs.

# %%
published = pd.DataFrame([SIZE_BASELINE, *PUBLISHED])[["model", "pretraining", "auc", "accuracy", "source"]]
ours = f"{mark}this run, {config.architecture}, {config.size} pixels"
pretraining = "ImageNet" if config.weights else "none"
more = [
    ("always pneumonia", "none", 0.5, official["PNEUMONIA"] / sum(official.values()), "counted"),
    (ours, pretraining, auc.value, accuracy.value, "above"),
]
others = pd.concat([published, pd.DataFrame(more, columns=published.columns)])
others.sort_values("accuracy").round(3).reset_index(drop=True)

# %% [markdown]
# With intervals it looks different. Each bar holds the accuracies that agree with what was seen on so many images.

# %%
figure, ax = plt.subplots(figsize=(8, 4))
for row, (_, other) in enumerate(others.sort_values("accuracy").iterrows()):
    n = report.n if other["model"] == ours else N_TEST
    share = metrics.wilson(round(other["accuracy"] * n), n)
    colour = "tab:orange" if other["model"] == ours else "tab:blue"
    ax.plot([share.low, share.high], [row, row], color=colour, linewidth=3, alpha=0.6)
    ax.plot(share.value, row, "o", color=colour)
ax.set(
    yticks=range(len(others)),
    yticklabels=others.sort_values("accuracy")["model"],
    xlabel="accuracy, 95 % interval (Wilson)",
)
ax.set_title(f"{mark}official test part" + (", but for the phantom's own" if data.phantom else ""))
ax.grid(axis="x", alpha=0.3)
keep("comparison")

# %% [markdown]
# Look at which bars reach past one another: most of the table is not in an order that its images could prove. And the
# first question is whether the whole bar lies to the right of what the size of the files reaches.

# %%
size_only = SIZE_BASELINE.accuracy
if data.phantom:
    print("PHANTOM: drawn images are not X-rays. This run's row shows where a result would stand, and is none.")
elif accuracy.low > size_only:
    print(
        f"Better than the size of the files ({size_only:.1%}), with its whole interval. What the surplus is, is open."
    )
else:
    print(f"Not shown to be better than the size of the files ({size_only:.1%}): no claim about lungs can be made.")

# %% [markdown]
# Three things to take along:
# - The bar to look at first is *width and height*. A model that has not clearly passed it has not shown that it sees
#   lungs.
# - Neighbours overlap. Whoever ranks models that are a point apart ranks chance, unless they are compared on the same
#   images, pair by pair.
# - The last points are hard to believe for anyone: this test part has been seen by thousands of people. It is a *known*
#   test by now, and what is known gets chosen by, even without intention.

# %% [markdown]
# ## What this does not show
# - **Elsewhere.** One hospital, one city, a few years. A ResNet-50 that reached an AUC of .95 here fell to .54, little
#   better than a coin, on children in another collection (Xin, Li and Yi 2021, doi 10.1007/s10140-021-01954-x).
# - **Others.** Children of one to five years. Adults, infants and teenagers look different.
# - **Other diseases.** It knows two answers. Tuberculosis, a tumour or a swallowed coin gets one of them.
# - **Why.** It may be right for reasons that are no disease, inside the lung box and out of it. The test part was not
#   collected to find that out.
# - **Use.** Nobody has shown that a doctor decides better with it. **It is no medical device, and must not decide about
#   anyone's care.**
#
# A detector with honest limits is more useful than a better one without.

# %% [markdown]
# ## Leave it behind
# The report as JSON, for programs; the figures, for people.

# %%
path = report.save(environment().home / "report.json")
print("figures:", *sorted(file.name for file in figures.glob("*.png")))

# %% tags=["nbval-check-output"]
saved = json.loads(path.read_text())
print("keys:", *(key for key in saved if not key.endswith("_ci")))
print("each metric has its interval:", all(f"{name}_ci" in saved for name in report.metrics))
print("read back, it is the same report:", pn.Report.load(path) == report)
print("marked as phantom exactly where it is one:", saved["phantom"] == data.phantom)

# %% [markdown]
# ## What you have done
# You have
# - opened the test once, with everything frozen beforehand, and read each number with its interval
# - looked behind the numbers: ROC and precision-recall curves, probabilities, subtypes, errors
# - found out what the detector can bear, and whether it needs the lungs to answer
# - translated a threshold into what happens to a thousand children, and said when it should not answer
# - placed the result among baselines and published results, and said what it does *not* show
#
# What remains is to put the detector to work: to answer questions about images that arrive one by one. It already can,
# in one line, `detector.predict("x-ray.jpeg")`, or in a terminal, `pneumolib predict x-ray.jpeg`.
#
# ## Three questions
# 1. A paper reports 96.83 % accuracy on the official test part. How many images is that? What follows?
# 2. The AUC stays at .98 when all images get darker, and the specificity halves. Has the detector become worse?
# 3. You see the errors above and have an idea that would repair half of them. What do you do with the idea, and what
#    with this test part?
#
# <details><summary>Answers</summary>
#
# 1. 604.2 of 624. There is no fifth of an image, so it was measured on something else, or averaged over several runs;
#    the paper should say which.
# 2. Its ranking has not, its decisions have. A new threshold, chosen on darkened *validation* images, would repair it;
#    better is a detector that has seen darker images in training.
# 3. Try it, choose by validation and shifted validation, and report it, with the remark that the idea came from looking
#    at this test part. For a clean number you need images that nobody has looked at.
#
# </details>

# %% [markdown] tags=["next"]
# **Next:** [6 · Answers in real time](06_serve.ipynb) · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/06_serve.ipynb)
