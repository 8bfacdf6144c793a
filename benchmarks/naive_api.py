"""The API that a tutorial would write: what `serving.py` compares with. The detector is the one that ships."""

import base64
import io

import keras
import numpy as np
import tensorflow as tf
from fastapi import FastAPI, UploadFile
from PIL import Image

from pneumolib.models.detector import load_detector

detector = load_detector()
model = detector.keras_model()
grad_model = keras.Model(model.inputs, [model.get_layer("features").output, model.output])
app = FastAPI()


@app.get("/ready")
def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/predict")
def predict(file: UploadFile, heatmap: bool = False) -> dict[str, object]:
    picture = Image.open(file.file).convert("L")
    x = np.asarray(picture.resize((detector.size, detector.size)), np.float32)[None, ..., None]
    normal, bacterial, viral = model.predict(x, verbose=0)[0].tolist()
    answer: dict[str, object] = {"pneumonia": 1 - normal, "bacterial": bacterial, "viral": viral}
    if heatmap:
        answer["heatmap"] = base64.b64encode(grad_cam(x, picture)).decode()
    return answer


def grad_cam(x: np.ndarray, picture: Image.Image) -> bytes:
    with tf.GradientTape() as tape:
        features, p = grad_model(x)
        target = 1 - p[:, 0]
    weights = tf.reduce_mean(tape.gradient(target, features), axis=(0, 1, 2))
    heat = tf.maximum(features[0] @ weights[:, None], 0)[..., 0].numpy()
    red = Image.fromarray(np.uint8(255 * heat / max(heat.max(), 1e-9))).resize(picture.size)
    out = io.BytesIO()
    Image.merge("RGB", (Image.blend(picture, red, 0.4), picture, picture)).save(out, "PNG")
    return out.getvalue()


model.predict(np.zeros((1, detector.size, detector.size, 1), np.float32), verbose=0)  # warm
