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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/pneumolib/pneumolib/blob/v0.1.0/notebooks/06_serve.ipynb)

# %% [markdown]
# # 6 · Answers in real time
#
# An X-ray has just been taken. Whoever took it will not open a notebook. Their program sends the file somewhere and
# wants an answer while the child is still in the room, in a form that a program can read: a probability, a decision,
# the places that speak for it, or a refusal that says why. This notebook puts the detector to that work, and looks at
# what can go wrong on the way.
#
# **In this notebook you**
# - ask the detector from Python, over HTTP, from a command line and in a browser, and get the same answer
# - see what it refuses, and how a program can tell one refusal from another
# - measure how long an answer takes, where the time goes, and what happens when everyone comes at once
# - send a DICOM file, the format of hospitals, and see what reading it wrongly would do
# - learn which pieces are missing between this notebook and a service
#
# | | |
# |---|---|
# | **Time** | about a minute |
# | **Hardware** | any; no GPU needed: one X-ray at a time is a CPU's work |
# | **Needs** | the data set, found, fetched or drawn; a detector comes with the package |
# | **Leaves** | nothing that runs: the server ends with the notebook |

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
# @title Settings: the folder of a detector of your own, such as notebook 4 left; empty takes the one that ships
DETECTOR = ""  # @param {type: "string"}
PRESET = "auto"  # @param ["auto", "full", "cpu", "scratch", "quick", "ci"]
config = pn.Config.preset(PRESET)

# %%
import base64
import io
import shlex
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import requests
import seaborn as sns
from PIL import Image

from pneumolib.serving.settings import Settings

plt.rcParams["figure.dpi"] = 80

# %% [markdown]
# ## The detector, from Python
# No training today: `load_detector()` gives the detector that ships with the package. It answers without TensorFlow.
# The X-rays are those of the official validation part, which no result is read from; where a copy of the data set
# leaves it out, sixteen of the validation patients that were split off the training part.

# %%
data = pn.load_dataset(config=config)
x_rays = data.val
if not len(x_rays):
    held_out = pn.split_by_patient(data.train).val
    x_rays = held_out.take(np.linspace(0, len(held_out) - 1, 16).astype(int))
mark = "PHANTOM: " if data.phantom else ""
detector = pn.load_detector(DETECTOR or None, allow_phantom=data.phantom)
print(detector)
print(f"{mark}{len(x_rays)} X-rays to ask about")

# %% [markdown]
# A file goes in, as a path or as its bytes. A picture that is too unlike those of training gets no answer but a reason;
# we go on with the first that gets one. On a phantom the answer is computed like any other, and means nothing: this
# detector has learnt from real children.

# %%
answers = [detector.predict(x_rays.read(i)) for i in range(len(x_rays))]
first = next(i for i, answer in enumerate(answers) if answer.input.ok)
content, answer = x_rays.read(first), answers[first]
print(f"{mark}{sum(not answer.input.ok for answer in answers)} of {len(answers)} refused; then, number {first}:")
print(f"{mark}{answer}")
print(f"{mark}in truth: {x_rays[first].subtype}")

# %% [markdown]
# That call is the heart of all that follows. An API adds what a call cannot have: callers in other languages and on
# other machines, many at a time, some of them careless, some of them hostile.
#
# ## The same, as a service
# One line starts the API in the background of this notebook. It listens on this machine only. Nothing here opens a
# public address, because pictures of patients have no business there.

# %%
server = pn.serve(detector, show=False)
print("ready" if requests.get(f"{server.url}/v2/health/ready", timeout=10).json()["ready"] else "not ready")

# %% [markdown]
# *Ready* is a promise: each of its lanes has warmed up, has decoded a picture made for this, and has given the very
# probability that was written down when the detector was saved. A server that starts on a machine where something
# computes differently stays *not ready*, and says so.

# %% tags=["nbval-check-output"]
about = requests.get(f"{server.url}/v1/model", timeout=10).json()
print("it says:", *about)
print("the detector is the one we have:", about["model"]["sha256"] == detector.sha256)
print("it gives the answer that was recorded:", about["self_check"]["difference"] < 1e-4)

# %% [markdown]
# Now the X-ray. The body of the request is the file as it is; no form, no base64, no file name.

# %%
jpeg = {"Content-Type": "image/jpeg"}
response = requests.post(f"{server.url}/v1/predict", data=content, headers=jpeg, timeout=10)
found = response.json()
for name in ("probability", "decision", "operating_point", "subtypes", "input", "timing", "notice"):
    print(f"{name:16} {found[name]}")

# %% [markdown]
# Read it as a program would. `input.ok` comes first: where it is false, `decision` and `probability` are null, so that
# nobody can take an answer for one that was refused. `operating_point` says which threshold decided. `subtypes` carries
# the word *proven: false* with it. `timing`, in milliseconds, says where the time went.
#
# Is it the same answer?

# %% tags=["nbval-check-output"]
print("same probability:", abs(found["probability"] - answer.probability) < 1e-6)
print("same decision:", found["decision"] == answer.decision)
print("a wish for another threshold:", end=" ")
wish = requests.post(
    f"{server.url}/v1/predict?operating_point=high_sensitivity", data=content, headers=jpeg, timeout=10
)
print(wish.json()["operating_point"]["name"])

# %% [markdown]
# ## From a command line
# Anything that speaks HTTP can ask. With `curl`:

# %%
command = "curl --silent --header 'Content-Type: image/jpeg' --data-binary @x-ray.jpeg URL/v1/predict"
print(command)
if shutil.which("curl"):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x-ray.jpeg").write_bytes(content)
        asked = shlex.split(command.replace("URL", server.url))
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=True)
    print(done.stdout[:300], "...")

# %% [markdown]
# The header says what the body is. Left out, `curl` claims to send a form, and the server says so rather than guess.
#
# ## Where it looked
# A heat map is made on request. `layer` gives colours with transparency, for a program that draws them over the
# picture; `overlay` has that done. Both are PNG files in base64.

# %%
response = requests.post(
    f"{server.url}/v1/predict?heatmap=overlay&picture=true", data=content, headers=jpeg, timeout=10
)
pictures = [Image.open(io.BytesIO(base64.b64decode(response.json()[name]["data"]))) for name in ("picture", "heatmap")]
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2))
for ax, picture, title in zip(axes, pictures, ("as the server read it", "what speaks for pneumonia"), strict=True):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    ax.set_title(mark + title, fontsize=10)
    ax.axis("off")
plt.show()

# %% [markdown]
# Colour marks what moved this network's answer, in its own coarse view. It does not mark where pneumonia is; how far
# the two lie apart is measured in [notebook 5](05_evaluate.ipynb).
#
# ## What it refuses
# A server gets everything: holiday photographs, text files, halves of files. Each of these gets an answer, too, and one
# that a program can act on.

# %%
noise = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)
negative = 255 - pn.decode(content)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


sent = {
    "an X-ray": (content, "image/jpeg"),
    "noise": (png(noise), "image/png"),
    "a negative": (png(negative), "image/png"),
    "half a file": (content[: len(content) // 2], "image/jpeg"),
    "a text": (b"Dear doctor, " * 9, "application/octet-stream"),
    "a web page": (b"<html>", "text/html"),
    "too much": (bytes(100_000_000), "image/jpeg"),
}

# %% tags=["nbval-check-output"]
for what, (body, kind) in sent.items():
    response = requests.post(f"{server.url}/v1/predict", data=body, headers={"Content-Type": kind}, timeout=10)
    told = response.json()
    verdict = told["code"] if "code" in told else "decided" if told["input"]["ok"] else told["input"]["code"]
    print(f"{what:12} {response.status_code}  {verdict}")

# %% [markdown]
# Two kinds of no, and the difference matters to a program. `4xx` means that the *request* was wrong; its body is a
# *problem* (RFC 9457) with a code that does not change, such as `undecodable_image`. A picture that can be read but
# does not look like a chest X-ray is no error of the caller's: status 200, `input.ok` false, a reason, no decision.
#
# The text was told from the content, not from a name. And the last body was not read to its end: bytes are counted as
# they arrive. A file is decoded in a process of its own, with a limit on memory and on time, so that one made to break
# a decoder breaks only that process.

# %%
response = requests.post(
    f"{server.url}/v1/predict", data=png(negative), headers={"Content-Type": "image/png"}, timeout=10
)
print("for people: ", response.json()["input"]["reason"])
response = requests.post(f"{server.url}/v1/predict", data=sent["half a file"][0], headers=jpeg, timeout=10)
print("for people: ", response.json()["detail"])

# %% [markdown]
# ## A whole list
# Several files go as one form to `predict:batch`; the answers come in the same order, and a damaged file spoils its
# own line only.

# %%
files = [("files", x_rays.read(i)) for i in range(len(x_rays))] + [("files", sent["half a file"][0])]
batch = requests.post(f"{server.url}/v1/predict:batch", files=files, timeout=30).json()["results"]
rows = []
for result in batch:
    told, problem = result["answer"] or {}, result["problem"] or {}
    p = told.get("probability")
    rows.append(
        {
            "decision": told.get("decision"),
            "probability": None if p is None else f"{p:.3f}",
            "refused": told.get("input", {}).get("code"),
            "problem": problem.get("code"),
        }
    )
table = pd.DataFrame(rows)
table["in truth"] = [*(record.subtype for record in x_rays), "-"]
table.fillna("-").tail(6)

# %%
assert len(batch) == len(files)
assert [row["problem"] for row in rows] == [None] * len(x_rays) + ["undecodable_image"]

# %% [markdown]
# For an archive of thousands an API is the wrong tool: `pneumolib score FOLDER --out scores.parquet` reads the files
# itself, uses all cores, and goes on where it was interrupted.
#
# ## How fast is it?
# Asked one after the other, over one connection, as a program would.

# %%
session = requests.Session()
times = []
for i in range(120):
    began = time.perf_counter()
    told = session.post(f"{server.url}/v1/predict", data=x_rays.read(i % len(x_rays)), headers=jpeg, timeout=10).json()
    whole = 1000 * (time.perf_counter() - began)
    times.append({**told["timing"], "whole": whole})
times = pd.DataFrame(times).iloc[20:]
inside = []
for i in range(100):
    began = time.perf_counter()
    detector.predict(x_rays.read(i % len(x_rays)))
    inside.append(1000 * (time.perf_counter() - began))

# %%
times["network and client"] = times["whole"] - times["total"]
times["server, around it"] = times["total"] - times[["queue", "decode", "inference"]].sum(axis=1)
parts = ["decode", "inference", "queue", "server, around it", "network and client"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), width_ratios=(2, 3), layout="constrained")
sns.ecdfplot(x=inside, ax=left, label="Python call")
sns.ecdfplot(x=times["whole"], ax=left, label="over HTTP")
left.set(xlabel="milliseconds", ylabel="share of answers", xlim=(0, None))
left.legend(loc="lower right", fontsize=8)
sns.boxplot(data=times[parts], orient="h", ax=right, fliersize=2, color="#8fb3d9")
right.set(xlabel="milliseconds")
plt.show()

# %% [markdown]
# Left: the more upright a curve, the more the answers are alike; its right end is the slow tail, which users remember.
# Right: the time inside one request. The network and the check of the input take the most; decoding grows with the
# file. In numbers:

# %%
middle, slow = times["whole"].quantile([0.5, 0.99])
print(f"over HTTP: half of the answers within {middle:.1f} ms, 99 of 100 within {slow:.1f} ms")
print(
    f"in Python: half within {np.median(inside):.1f} ms; so the way through the server costs "
    f"{middle - np.median(inside):.1f} ms"
)

# %% [markdown]
# These are small files on this machine, shared with whatever else it does; measure where you deploy.
#
# A common way to build such an API calls `model.predict()` in the handler. `benchmarks/serving.py` puts one beside this
# server; the README has the result.
#
# ## When everyone comes at once
# A server can answer so many a second. If more come, something has to give. A queue without an end makes everyone wait,
# until all have given up. This one is bounded: whoever does not fit is told so at once, with the time after which to
# try again. To see it, a second server with a queue of four, and 64 callers:


# %%
def ask(index: int) -> requests.Response:
    return requests.post(f"{small.url}/v1/predict", data=x_rays.read(index % len(x_rays)), headers=jpeg, timeout=30)


with pn.serve(detector, show=False, settings=Settings(port=0, queue=4)) as small, ThreadPoolExecutor(64) as callers:
    responses = list(callers.map(ask, range(256)))
statuses = pd.Series([response.status_code for response in responses]).value_counts()
print(statuses.to_dict())
turned_away = [r for r in responses if r.status_code == 429]
if turned_away:
    print("one who was turned away reads:", turned_away[0].json()["detail"])
    print("Retry-After, seconds:", turned_away[0].headers["Retry-After"])

# %% tags=["nbval-check-output"]
print("everyone was answered:", len(responses) == 256)
print("and either looked at or turned away:", set(statuses.index) <= {200, 429})
print("some were looked at:", bool(statuses.get(200, 0)))

# %% [markdown]
# Turning away is a kindness to those who are in: their time stays bounded. A request that waited past its deadline is
# dropped without being computed (504), and so is one whose caller has hung up.
#
# ## The page
# For people, the server has a page: drop an X-ray on it, or choose an example, and see the answer, with the heat map
# under a slider. It loads nothing from elsewhere. In Colab it is shown through Colab's own proxy, which only you can
# reach.

# %%
server.show()

# %% [markdown]
# (In a notebook that is only read, the frame is empty: there is no server behind it.)
#
# ## What hospitals send
# X-rays in hospitals are DICOM files: pixels of 10 to 16 bits, and a header that says how to read them, and whose they
# are. Two of its fields ruin detectors silently. A *window* says which of the values are to be shown between black and
# white. And `MONOCHROME1` says that the scale runs backwards: large values are dark. Here is the X-ray from above as
# such a file, with 12 bits, a window, and the scale turned round.

# %%
import pydicom
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

pixels = pn.decode(content).astype(np.uint16)
header = pydicom.Dataset()
header.SOPClassUID, header.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
header.PatientName, header.Modality = "Doe^Jane", "DX"
header.PhotometricInterpretation, header.SamplesPerPixel = "MONOCHROME1", 1
header.Rows, header.Columns = pixels.shape
header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
header.WindowCenter, header.WindowWidth = "1500.5", "2550"
header.PixelData = (2775 - 10 * pixels).astype("<u2").tobytes()  # white 225, black 2775; shown 225 to 2775, backwards
header.file_meta = pydicom.dataset.FileMetaDataset()
header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
file = io.BytesIO()
pydicom.dcmwrite(file, header, enforce_file_format=True)

# %%
naive = pydicom.dcmread(io.BytesIO(file.getvalue())).pixel_array
naive = (255.0 * naive / naive.max()).astype(np.uint8)
right = pn.decode(file.getvalue())
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2))
for ax, picture, title in zip(axes, (naive, right), ("stored values, scaled", "as the header says"), strict=True):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    ax.set_title(mark + title, fontsize=10)
    ax.axis("off")
plt.show()

# %% [markdown]
# On the left, what a program sees that takes the numbers as they are: a negative. On the right, the same file through
# the one function by which pneumolib reads everything, in training, here and in the API. So the API's answer does not
# depend on the format:

# %% tags=["nbval-check-output"]
dicom = {"Content-Type": "application/dicom"}
from_dicom = requests.post(f"{server.url}/v1/predict", data=file.getvalue(), headers=dicom, timeout=10)
print("as DICOM: ", from_dicom.status_code, from_dicom.json()["decision"] == found["decision"])
print("largest difference of a pixel:", int(np.abs(right.astype(int) - pn.decode(content).astype(int)).max()))
print("the patient's name comes back:", "Doe" in from_dicom.text)
as_if = requests.post(f"{server.url}/v1/predict", data=png(naive), headers={"Content-Type": "image/png"}, timeout=10)
print("read naively:", as_if.json()["decision"], "because", as_if.json()["input"]["code"])

# %% [markdown]
# The header's names and numbers never leave the function that reads it: they are not in the answer, not in an error,
# not in a log.
#
# ## Who runs it wants to know
# How many came, how long they waited, what was refused and why: `/metrics` tells it to Prometheus. No picture and no
# caller is among it.

# %%
metrics = requests.get(f"{server.url}/metrics", timeout=10).text
wanted = ("pneumolib_pictures_total", "pneumolib_refusals_total", "pneumolib_problems_total", "pneumolib_queue_depth")
print("\n".join(line for line in metrics.splitlines() if line.startswith(wanted)))

# %% [markdown]
# `/docs` is the description of all addresses, to be tried in the browser; programs read it from `/openapi.json`.
#
# ## From here to a service
# The same server runs outside a notebook; it stops on a signal when what it has begun is finished:
#
# ```sh
# pip install 'pneumolib[serve,dicom]'
# pneumolib serve --port 8000
# ```
#
# - **One machine**: a container with this server, about a core a lane: `deploy/Dockerfile`.
# - **Several machines**: Kubernetes or KServe, which find the health addresses where they expect them:
#   `deploy/kubernetes.yaml`, `deploy/kserve.yaml`.
# - **A Ray cluster**: Ray Serve, which adds and removes copies with the load: `deploy/ray_serve.py`.
# - **A model server that is there already**: `pneumolib export OUT --format saved_model` for TensorFlow Serving, or
#   `onnx` for others: `docs/export.md`.
#
# With the last one only the network travels. The check of the input, the refusals and the reading of DICOM stay behind,
# and someone has to build them again.
#
# What none of them brings: encryption and rate limits (a proxy's work), who may ask (an API key is the least), a second
# reader, a study on the patients of that place, and the approval that software needs before it may advise on a
# person's care. This is research and teaching software, and no medical device.

# %%
server.stop()

# %% [markdown]
# ## What you have done
# You have
# - asked the detector from Python, over HTTP, from a command line and in a browser, and got the same answer
# - seen what it refuses, and how a program can tell one refusal from another
# - measured how long an answer takes, where the time goes, and what happens when everyone comes at once
# - sent a DICOM file, and seen what reading it wrongly would have done
# - learnt which pieces are missing between this notebook and a service
#
# ## Three questions
# 1. The server answers 40 requests a second, and 60 a second arrive. What happens with a queue without an end, after
#    one minute? What happens here?
# 2. A colleague suggests to answer a picture that is no chest X-ray with status 422. What would a caller's program have
#    to do that it does not have to do now?
# 3. You measure the time of each request and send the next one when the answer is there. Every hour the server stands
#    still for ten seconds. How many of your measurements show it? How many patients would have noticed?
#
# <details><summary>Answers</summary>
#
# 1. After a minute 1,200 requests wait, and who comes now waits half a minute; the callers have long given up, and
#    their requests are computed all the same. Here about 40 a second are answered in time, and 20 are told at once to
#    come back.
# 2. Tell it from a damaged file, which has the same status, by reading the code. And a picture that was read, judged
#    and found unsuitable is a result, which belongs into the record; an error does not.
# 3. One. While the server stands still, no request of yours is on its way. Patients come all the same: everybody who
#    arrived in these ten seconds. To see them, send at fixed times and count from the time at which a request should
#    have been sent, as `benchmarks/serving.py` does.
#
# </details>

# %% [markdown] tags=["next"]
# **This was the last notebook.** What the series found, in one table: [README](https://github.com/pneumolib/pneumolib#readme)
