"""Exports of annotation tools become data folders that can be trained on.

The files are written here in the form that each tool documents:

- COCO: cocodataset.org/#format-data; masks: the description of the packing in cocoapi's `maskApi`.
- LabelMe: `shapes_to_label` and `LabelFile` of labelmeai/labelme, and genuine files.
- CVAT: docs.cvat.ai, "XML annotation format" (version 1.1) and "Segmentation mask".
- Label Studio: labelstud.io/guide/export ("Label Studio JSON format of annotated tasks") and the documented file names
  of its converter's brush export.
- Roboflow: the layout of "Semantic Segmentation Masks" (`_classes.csv` with `Pixel Value, Class`) and of its COCO.
- VOC: the development kit's folders; YOLO: docs.ultralytics.com/datasets/segment.
"""

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from data.importing.test_raster import brush_of, packed, runs_of
from PIL import Image

from depthseg.cli import main
from depthseg.data import load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.importing import ImportOptions, import_annotations

REAL = Path(os.environ.get("DEPTHSEG_DATA", "no data")) / "samples"
SIZE = (12, 8)  # width and height
SQUARE = [[2, 1], [6, 1], [6, 5], [2, 5]]
# What all exports below mean: a road of 4x4 pixels, and on it, at its lower right corner, a sign of 3x3.
EXPECTED = np.zeros((8, 12), int)
EXPECTED[1:5, 2:6] = 1
EXPECTED[3:6, 4:7] = 2


def save_image(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def sign_mask():
    return EXPECTED == 2


def flat(points):
    return [float(value) for point in points for value in point]


def coco(images, sign):
    """Categories with gaps; the sign is first in the file and painted last, as it is smaller."""
    annotations = []
    for index in range(len(images)):
        annotations.append({"id": 2 * index, "image_id": index, "category_id": 90, "segmentation": sign, "iscrowd": 0})
        road = {"id": 2 * index + 1, "image_id": index, "category_id": 7, "segmentation": [flat(SQUARE)], "iscrowd": 0}
        annotations.append(road)
    return {
        "images": [
            {"id": index, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for index, name in enumerate(images)
        ],
        "categories": [{"id": 90, "name": "sign"}, {"id": 7, "name": "road"}],
        "annotations": annotations,
    }


def write_coco_splits(root):
    runs = runs_of(sign_mask().T.ravel().tolist())
    masks = {"train": {"size": [8, 12], "counts": packed(runs)}, "val": {"size": [8, 12], "counts": runs}}
    for split, names in (("train", ("a.jpg", "b.png")), ("val", ("c.jpg",))):
        for name in names:
            save_image(root / "images" / name)
        write_json(root / "annotations" / f"instances_{split}2017.json", coco(names, masks[split]))
    return [root / "annotations"], {"train": ["a", "b"], "val": ["c"]}


def write_labelme(root):
    for name in ("a", "b", "c"):
        save_image(root / f"{name}.jpg")
        cut = io.BytesIO()
        Image.fromarray(np.ones((3, 3), bool)).save(cut, "PNG")
        mask = {"label": "sign", "shape_type": "mask", "points": [[4, 3], [6, 5]], "group_id": 3, "flags": {}}
        shapes = {
            "a": {"label": "sign", "shape_type": "rectangle", "points": [[7, 6], [4, 3]], "flags": {}},
            "b": mask | {"mask": base64.b64encode(cut.getvalue()).decode()},
            "c": {"label": "sign", "points": [[4, 3], [7, 3], [7, 6], [4, 6]]},
        }
        road = {"label": "road", "shape_type": "polygon", "points": SQUARE, "group_id": None, "flags": {}}
        point = {"label": "corner", "shape_type": "point", "points": [[1, 1]]}
        content = {"version": "5.4.1", "flags": {"night": True}, "imageData": None, "imagePath": f"{name}.jpg"}
        size = {"imageWidth": 12, "imageHeight": 8}
        write_json(root / f"{name}.json", content | size | {"shapes": [road, shapes[name], point]})
    (root / "a.jpg").unlink()  # the JSON may hold the image itself
    embedded = io.BytesIO()
    Image.new("RGB", SIZE).save(embedded, "PNG")
    content = json.loads((root / "a.json").read_text())
    content["imageData"] = base64.b64encode(embedded.getvalue()).decode()
    write_json(root / "a.json", content)
    return [root], {}


def write_cvat(root):
    shapes = [
        # z_order, not the order of the file, says what is on top.
        '<box label="sign" xtl="4" ytl="3" xbr="7" ybr="6" occluded="0" z_order="1"></box>'
        '<polygon label="road" points="2.00,1.00;6.00,1.00;6.00,5.00;2.00,5.00" occluded="0" z_order="0"></polygon>',
        '<polygon label="road" points="2,1;6,1;6,5;2,5" z_order="0"/>'
        '<mask label="sign" rle="0, 9" left="4" top="3" width="3" height="3" z_order="0"/>'
        '<points label="road" points="1,1" z_order="0"/><tag label="road"/>',
    ]
    images = "".join(
        f'<image id="{index}" name="{name}" width="12" height="8">{shapes[index]}</image>'
        for index, name in enumerate(("a.jpg", "deep/b.jpg"))
    )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("road", "sign"))
    root.mkdir()
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>'
        f"{labels}</labels></task></meta>{images}</annotations>"
    )
    save_image(root / "images" / "a.jpg")
    save_image(root / "images" / "deep" / "b.jpg")
    return [root], {}


def write_masks(root, colours):
    """The VOC form of CVAT's "Segmentation mask 1.1": palette PNGs for training, colours for validation."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:3] = colours
    for name in ("a", "b", "c"):
        save_image(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(EXPECTED.astype(np.uint8))
        mask.putpalette(palette.tobytes())
        (root / "SegmentationClass").mkdir(exist_ok=True)
        (mask.convert("RGB") if name == "c" else mask).save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("c\n")
    return [root], {"train": ["a", "b"], "val": ["c"]}


def write_cvat_masks(root):
    colours = [(0, 0, 0), (128, 64, 128), (220, 220, 0)]
    written = write_masks(root, colours)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(NAMES, colours, strict=True)]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
    return written


NAMES = ("background", "road", "sign")


def write_voc(root):
    written = write_masks(root, [(0, 0, 0), (128, 0, 0), (0, 128, 0)])
    Image.open(root / "SegmentationClass" / "a.png").save(root / "SegmentationClass" / "c.png")
    (root / "class_names.txt").write_text("__ignore__\n_background_\nroad\nsign\n")
    return written


def region(kind, value, label="road"):
    origin = {"original_width": 12, "original_height": 8, "image_rotation": 0}
    return origin | {"type": kind, "from_name": "tag", "to_name": "image", "value": value | {kind: [label]}}


def write_label_studio(root):
    road = region("polygonlabels", {"points": [[100 * x / 12, 100 * y / 8] for x, y in SQUARE], "closed": True})
    box = {"x": 400 / 12, "y": 300 / 8, "width": 300 / 12, "height": 300 / 8, "rotation": 0}
    pixels = np.zeros((8, 12, 4), int)
    pixels[sign_mask()] = 255
    brush = {"format": "rle", "rle": brush_of(pixels.ravel().tolist(), 8, (3, 4, 8, 16), np.random.default_rng(0))}
    tasks = [
        ("/data/upload/1/0a1b2c3d-a.jpg", [road, region("rectanglelabels", box, "sign")]),
        ("/data/local-files/?d=photos/b%20c.jpg", [road, region("brushlabels", brush, "sign")]),
    ]
    content = [
        {
            "id": number,
            "data": {"image": image},
            "annotations": [{"was_cancelled": True, "result": []}, {"was_cancelled": False, "result": result}],
        }
        for number, (image, result) in enumerate(tasks)
    ]
    write_json(root / "project.json", content)
    save_image(root / "images" / "a.jpg")
    save_image(root / "images" / "b c.jpg")
    return [root / "project.json"], {}


def write_label_studio_png(root):
    content = [{"id": 7, "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": []}]
    write_json(root / "project.json", content)
    save_image(root / "a.jpg")
    for number, index in enumerate((1, 2)):
        name = f"task-7-annotation-3-by-me@x.org-tag-{NAMES[index]}-{number}.png"
        square = np.zeros((8, 12), np.uint8)
        square[1:5, 2:6] = 255
        Image.fromarray(square if index == 1 else sign_mask().astype(np.uint8) * 255).save(root / name)
    return [root], {}


def write_roboflow(root):
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        save_image(root / split / f"{name}.jpg")
        Image.fromarray(EXPECTED.astype(np.uint8)).save(root / split / f"{name}_mask.png")
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, road\n2, sign\n")
    return [root], {"train": ["a"], "val": ["b"], "test": ["c"]}


def write_roboflow_coco(root):
    for split, name in (("train", "a.jpg"), ("valid", "b.jpg")):
        save_image(root / split / name)
        content = coco([name], [flat([[4, 3], [7, 3], [7, 6], [4, 6]])])
        content["categories"].insert(0, {"id": 0, "name": "streets", "supercategory": "none"})
        write_json(root / split / "_annotations.coco.json", content)
    return [root], {"train": ["a"], "val": ["b"]}


def write_yolo(root):
    for split, name in (("train", "a"), ("val", "b")):
        save_image(root / "images" / split / f"{name}.jpg")
        (root / "labels" / split).mkdir(parents=True)
        shapes = ((1, [[4, 3], [7, 3], [7, 6], [4, 6]]), (0, SQUARE))
        lines = [f"{index} " + " ".join(f"{x / 12} {y / 8}" for x, y in points) for index, points in shapes]
        (root / "labels" / split / f"{name}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: road\n  1: sign\n")
    return [root], {"train": ["a"], "val": ["b"]}


EXPORTS = {
    "coco": write_coco_splits,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "cvat masks": write_cvat_masks,
    "voc": write_voc,
    "label-studio": write_label_studio,
    "label-studio png": write_label_studio_png,
    "roboflow": write_roboflow,
    "roboflow coco": write_roboflow_coco,
    "yolo": write_yolo,
}


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_becomes_a_data_folder(tmp_path, export):
    sources, splits = EXPORTS[export](tmp_path / "export")
    out = tmp_path / "new" / "data"
    result = import_annotations(sources, out)
    assert json.loads((out / "IMPORTED.json").read_text())["tool"] == export.split()[0]
    assert result.classes == list(NAMES) == (out / "classes.txt").read_text().split()
    data = load_dataset("folder", out, "all")
    assert len(data) == result.images >= 1
    for sample in data:
        assert sample.labels.tolist() == EXPECTED.tolist(), sample.name
    for split, names in splits.items():
        assert load_dataset("folder", out, split).names == names
    if result.images > 1:
        assert len(load_dataset("folder", out, "train")) >= 1
    assert check_dataset("folder", out).problems == []
    assert [path.name for path in out.parent.iterdir()] == ["data"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_path_upwards_is_followed_inside_the_export_alone(tmp_path, monkeypatch):
    sources, _ = write_labelme(tmp_path / "flat")
    content = json.loads(next(sources[0].rglob("*.json")).read_text())
    content |= {"imagePath": "..\\images\\a.jpg", "imageData": None}
    export = tmp_path / "export"
    write_json(export / "json" / "a.json", content)
    save_image(tmp_path / "images" / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg' is missing: .* leaves these folders"):
        import_annotations([export / "json"], tmp_path / "out")
    save_image(export / "images" / "a.jpg")
    save_image(export / "small" / "a.jpg", (3, 2))  # of the same name, but not meant
    monkeypatch.chdir(export)
    import_annotations(["."], tmp_path / "out")
    assert load_dataset("folder", tmp_path / "out", "all")[0].labels.tolist() == EXPECTED.tolist()
    monkeypatch.chdir(export / "json")
    with pytest.raises(ValueError, match="leaves these folders"):
        import_annotations(["."], tmp_path / "other")


@pytest.mark.skipif(not (REAL / "labelme").is_dir(), reason="DEPTHSEG_DATA names no folder that holds samples/labelme")
def test_genuine_labelme_files_give_the_official_masks(tmp_path):
    result = import_annotations(
        [REAL / "labelme"], tmp_path / "out", images=[REAL / "voc/JPEGImages"], options=ImportOptions()
    )
    names = ["background", "bottle", "chair", "person", "sofa"]
    assert result.classes == names
    voc = {0: 0, 5: 1, 9: 2, 15: 3, 18: 4}
    for sample in load_dataset("folder", tmp_path / "out", "all"):
        official = np.array(Image.open(REAL / "voc/SegmentationClass" / f"{sample.name}.png"))
        translated = np.vectorize(lambda value: voc.get(value, 255))(official)
        # The official masks draw the outline of polygons as well, so borders of one pixel differ.
        assert (translated == sample.labels).mean() > AGREEMENT


AGREEMENT = 0.994


def test_the_order_of_painting_is_an_option(tmp_path):
    sources, _ = write_coco_splits(tmp_path / "export")
    import_annotations(sources, tmp_path / "out", options=ImportOptions(order="file"))
    sample = load_dataset("folder", tmp_path / "out", "all")[0]
    assert sample.labels[4, 5] == 1 and sample.labels[5, 6] == 2  # the road, which comes last, is on top


def test_background_and_labels_can_be_ignored(tmp_path):
    sources, _ = write_cvat(tmp_path / "export")
    with pytest.raises(ValueError, match="make 1 classes .road., and a network needs two"):
        import_annotations(sources, tmp_path / "out", options=ImportOptions(background="ignore", ignore=["sign"]))
    import_annotations(sources, tmp_path / "one", options=ImportOptions(background="ignore"))
    expected = np.where(EXPECTED == 0, 255, EXPECTED - 1)
    assert load_dataset("folder", tmp_path / "one", "all")[0].labels.tolist() == expected.tolist()
    import_annotations(sources, tmp_path / "two", options=ImportOptions(ignore=["sign"]))
    expected = np.where(EXPECTED == 2, 255, EXPECTED)
    assert load_dataset("folder", tmp_path / "two", "all")[0].labels.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="--ignore sing: no such label. Did you mean 'sign'"):
        import_annotations(sources, tmp_path / "three", options=ImportOptions(ignore=["sing"]))


@pytest.mark.parametrize("name", ["background", "_background_", "__background__"])
def test_the_background_is_ignored_by_each_of_its_names(tmp_path, name):
    sources, _ = write_coco_splits(tmp_path / "export")
    for path in sources[0].rglob("*.json"):
        path.write_text(path.read_text().replace('"sign"', '"_background_"'))
    import_annotations(sources, tmp_path / "out", options=ImportOptions(ignore=[name]))
    expected = np.where(EXPECTED == 2, 255, EXPECTED)
    assert load_dataset("folder", tmp_path / "out", "all")[0].labels.tolist() == expected.tolist()


def test_classes_may_be_given_in_order(tmp_path):
    sources, _ = write_cvat(tmp_path / "export")
    options = ImportOptions(classes=["sign", "road", "background"])
    import_annotations(sources, tmp_path / "out", options=options)
    expected = np.array([2, 1, 0])[EXPECTED]
    assert load_dataset("folder", tmp_path / "out", "all")[0].labels.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="--classes does not name sign, which the annotations have"):
        import_annotations(sources, tmp_path / "two", options=ImportOptions(classes=["background", "road"]))


def test_crowds_can_be_ignored(tmp_path):
    save_image(tmp_path / "a.jpg")
    content = coco(["a.jpg"], [flat([[4, 3], [7, 3], [7, 6], [4, 6]])])
    content["annotations"][0]["iscrowd"] = 1
    write_json(tmp_path / "coco.json", content)
    for crowd, index in (("class", 2), ("ignore", 255)):
        import_annotations([tmp_path / "coco.json"], tmp_path / crowd, crowd=crowd)
        labels = load_dataset("folder", tmp_path / crowd, "all")[0].labels
        assert labels.tolist() == np.where(EXPECTED == 2, index, EXPECTED).tolist()


@pytest.mark.parametrize("transfer", ["copy", "hardlink", "symlink"])
def test_images_are_copied_or_linked_as_asked(tmp_path, transfer, capsys):
    write_cvat(tmp_path / "export")
    words = ["datasets", "import", str(tmp_path / "export"), "--out", str(tmp_path / "out"), "--transfer", transfer]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    image, original = tmp_path / "out" / "images" / "a.jpg", tmp_path / "export" / "images" / "a.jpg"
    assert image.is_symlink() == (transfer == "symlink")
    assert image.samefile(original) == (transfer != "copy")
    assert image.read_bytes() == original.read_bytes()
    said = {"copy": "copied", "hardlink": "hard links", "symlink": "symbolic links"}
    printed = capsys.readouterr().out
    assert said[transfer] in printed and "road: 2 objects" in printed and "1 shapes of type points" in printed


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_of_stored_pixels_are_turned_with_their_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[1:5, 2:6] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    content = coco(["a.png"], [flat([[4, 3], [7, 3], [7, 6], [4, 6]])])
    del content["annotations"][0]
    write_json(tmp_path / "coco.json", content)
    import_annotations([tmp_path / "coco.json"], tmp_path / "out")
    sample = load_dataset("folder", tmp_path / "out", "all")[0]
    assert sample.labels.shape == (12, 8)
    assert ((sample.image[..., 0] == 255) == (sample.labels == 1)).all()
