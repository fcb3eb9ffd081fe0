import pathlib

import numpy
import ultralytics
from PIL import Image

ultralytics.settings.update({"wandb": True})
for part in ("train", "val"):
    for kind in ("a", "b"):
        folder = pathlib.Path("data", part, kind)
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = numpy.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / f"{number}.png")
model = ultralytics.YOLO("yolo11n-cls.yaml")
model.train(
    data=str(pathlib.Path("data").absolute()), epochs=1, imgsz=32, batch=4, device="cpu", workers=0, plots=False,
    amp=False, save=False, val=False, project="real",
)
