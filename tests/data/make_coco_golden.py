"""Makes coco_golden.json: random boxes and COCO's own numbers for them (pip install pycocotools; not needed to test).

Run: python tests/data/make_coco_golden.py
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium",
    "AR_large",
)  # fmt: skip


def case(seed: int, images: int, classes: int) -> dict:
    rng = np.random.default_rng(seed)
    true, found = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 9)):
            side = np.exp(rng.uniform(np.log(8), np.log(200), 2)).round(1)
            corner = rng.uniform(0, 300, 2).round(1)
            label, crowd = int(rng.integers(classes)), bool(rng.random() < 0.1)
            area = round(float(side.prod() * rng.uniform(0.5, 1)), 1)
            true.append([image, label, *corner.tolist(), *side.tolist(), area, crowd])
            for _ in range(rng.integers(0, 3)):
                moved = corner + rng.normal(0, 0.12, 2) * side
                sides = side * np.exp(rng.normal(0, 0.15, 2))
                said = label if rng.random() < 0.85 else int(rng.integers(classes))
                score = round(float(rng.random()), 4)
                found.append([image, said, *moved.round(2).tolist(), *sides.round(2).tolist(), score])
        for _ in range(rng.integers(0, 4)):
            box = [*rng.uniform(0, 300, 2).round(2).tolist(), *rng.uniform(5, 120, 2).round(2).tolist()]
            found.append([image, int(rng.integers(classes)), *box, round(float(rng.random() * 0.7), 4)])
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
        "annotations": [
            {"id": n + 1, "image_id": i, "category_id": k, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for n, (i, k, *box, area, crowd) in enumerate(true)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(
            [{"image_id": i, "category_id": k, "bbox": box, "score": s} for i, k, *box, s in found]
        )
        judge = COCOeval(truth, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {
        "images": images, "classes": classes, "true": true, "found": found,
        "scores": dict(zip(NAMES, [round(float(one), 8) for one in judge.stats], strict=True)),
    }  # fmt: skip


if __name__ == "__main__":
    cases = [case(1, 12, 3), case(2, 30, 2), case(3, 5, 5)]
    Path(__file__).with_name("coco_golden.json").write_text(json.dumps(cases))
