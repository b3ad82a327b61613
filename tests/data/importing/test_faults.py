"""Exports that cannot be used: a sentence with the file and what to do, and nothing is written."""

import json
import re

import pytest
from data.importing.test_tools import (
    coco,
    flat,
    save_image,
    write_coco_splits,
    write_cvat,
    write_cvat_masks,
    write_json,
    write_label_studio,
    write_labelme,
    write_roboflow,
    write_yolo,
)
from PIL import Image

from depthseg.cli import main
from depthseg.data.check import check_dataset
from depthseg.data.importing import TOOLS, import_annotations


def faulty_coco(root, change):
    save_image(root / "a.jpg")
    content = coco(["a.jpg"], [flat([[4, 3], [7, 3], [7, 6]])])
    change(content)
    write_json(root / "coco.json", content)
    return [root / "coco.json"]


def changed(write, file, old, new, root):
    sources, _ = write(root)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    return sources


def segmentation(value):
    return lambda root: faulty_coco(root, lambda content: content["annotations"][0].update(segmentation=value))


def image(**values):
    return lambda root: faulty_coco(root, lambda content: content["images"][0].update(values))


def truncated(root):
    sources, _ = write_labelme(root)
    (root / "b.json").write_text((root / "b.json").read_text()[:60])
    return sources


def with_entity(root):
    return changed(
        write_cvat,
        "annotations.xml",
        "<annotations>",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]><annotations>',
        root,
    )


def two_of_one_stem(root):
    save_image(root / "a.jpg")
    save_image(root / "a.png")
    write_json(root / "coco.json", coco(["a.jpg", "a.png"], [flat([[4, 3], [7, 3], [7, 6]])]))
    return [root / "coco.json"]


def unknown_colour(root):
    sources, _ = write_cvat_masks(root)
    mask = Image.open(root / "SegmentationClass" / "c.png")
    mask.putpixel((0, 0), (1, 2, 3))
    mask.save(root / "SegmentationClass" / "c.png")
    return sources


def unknown_value(root):
    sources, _ = write_roboflow(root)
    mask = Image.open(root / "train" / "a_mask.png")
    mask.putpixel((0, 0), 9)
    mask.save(root / "train" / "a_mask.png")
    return sources


def many_classes(root):
    def change(content):
        content["categories"] += [{"id": 100 + index, "name": f"class {index}"} for index in range(253)]

    return faulty_coco(root, change)


def image_gone(root):
    sources, _ = write_coco_splits(root)
    (root / "images" / "a.jpg").unlink()
    return sources


def broken_image(root):
    sources, _ = write_coco_splits(root)
    (root / "images" / "a.jpg").write_bytes(b"no image")
    return sources


def archive(root):
    root.mkdir()
    (root / "export.zip").write_bytes(b"PK")
    return [root / "export.zip"]


FAULTS = {
    "image missing": (image_gone, r"train2017.json: the image 'a.jpg' is missing: it is not in .*--images"),
    "image broken": (broken_image, "images/a.jpg is not an image that can be read"),
    "other size": (image(width=13), "a.jpg is 12x8 pixels, but its annotations are for 13x8"),
    "path outside": (image(file_name="../../x.png"), r"'../../x.png' is missing: .*Its path leaves these folders"),
    "name with line break": (image(file_name="a\nb.jpg"), "cannot be used; rename the image"),
    "no category": (
        lambda root: faulty_coco(root, lambda content: content["annotations"][0].update(category_id=5)),
        r"coco.json: annotation 0 has the category 5, which is not in its list of categories \(7, 90\)",
    ),
    "no image": (
        lambda root: faulty_coco(root, lambda content: content["annotations"][0].update(image_id=5)),
        "annotation 0 belongs to the image 5, of which the file says nothing",
    ),
    "two points": (segmentation([[1, 2, 3, 4]]), "coco.json: annotation 0: a polygon has 2 points"),
    "odd number": (
        segmentation([[1, 2, 3, 4, 5, 6, 7]]),
        "annotation 0: a polygon has an odd number of coordinates, 7",
    ),
    "short mask": (
        segmentation({"size": [8, 12], "counts": [90, 5]}),
        "annotation 0: a run-length encoded mask has 95 pixels, but its size is 96",
    ),
    "mask of other size": (
        segmentation({"size": [9, 12], "counts": [108]}),
        r"the size \[9, 12\], the image \[8, 12\]",
    ),
    "box only": (segmentation([]), "annotation 0: it has no segmentation, only a box"),
    "truncated JSON": (truncated, "b.json is no JSON, or is truncated: .* Export it again"),
    "another JSON": (
        lambda root: faulty_coco(root, lambda content: content.pop("categories")),
        "Which tool has written .*coco.json cannot be told; say it with --from",
    ),
    "entities": (with_entity, "annotations.xml has a document type .* may define entities and is not read"),
    "truncated XML": (
        lambda root: changed(write_cvat, "annotations.xml", "</annotations>", "", root),
        "annotations.xml is no XML, or is truncated",
    ),
    "mask beyond": (
        lambda root: changed(write_cvat, "annotations.xml", 'left="4"', 'left="10"', root),
        "a mask of 'sign': its mask reaches beyond the image",
    ),
    "wrong runs": (
        lambda root: changed(write_cvat, "annotations.xml", 'rle="0, 9"', 'rle="0, 8"', root),
        "a mask of 'sign': a run-length encoded mask has 8 pixels, but its size is 9",
    ),
    "embedded image": (
        lambda root: changed(write_labelme, "a.json", '"imageData": "', '"imageData": "*', root),
        "a.json: its imageData is no base64 text",
    ),
    "unknown shape": (
        lambda root: changed(write_labelme, "c.json", '"shape_type": "polygon"', '"shape_type": "star"', root),
        r"shape 0 \('road'\): a star with 4 points is not known",
    ),
    "turned in the tool": (
        lambda root: changed(write_label_studio, "project.json", '"image_rotation": 0', '"image_rotation": 90', root),
        "the image of task 0 was turned in Label Studio",
    ),
    "unknown colour": (
        unknown_colour,
        r"c.png holds colours that labelmap.txt .*: 1, 2, 3 \(1 pixel; the nearest is b",
    ),
    "unknown value": (
        unknown_value,
        r"a_mask.png: the mask of a.jpg has the value 9 \(1 pixels\), which no label has",
    ),
    "unknown class": (
        lambda root: changed(write_yolo, "labels/train/a.txt", "0 0.16", "5 0.16", root),
        "Line 2 of .*a.txt has the class 5, which data.yaml does not name",
    ),
    "one stem": (two_of_one_stem, "a.jpg and a.png have the same stem, so that their label maps would have one name"),
    "many classes": (many_classes, "have 256 classes, but a label map of 8 bits holds 255"),
    "archive": (archive, "export.zip is an archive; unpack it first, such as with: unzip"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_sentence_and_nothing_is_written(tmp_path, fault):
    make, message = FAULTS[fault]
    sources = make(tmp_path / "export")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_annotations(sources, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    sources, _ = write_cvat(tmp_path / "export")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(
        FileExistsError, match="out is not empty, and nothing in it is overwritten; choose another --out"
    ):
        import_annotations(sources, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    assert import_annotations(sources, tmp_path / "out").images == 2  # an empty one will do


def test_all_faults_are_said_at_once(tmp_path):
    sources, _ = write_coco_splits(tmp_path / "export")
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / "export" / "images" / name).unlink()
    with pytest.raises(ValueError, match="(?s)'a.jpg' is missing.*'c.jpg' is missing.*Nothing was written"):
        import_annotations(sources, tmp_path / "out")


def test_the_command_says_what_is_wrong(tmp_path):
    save_image(tmp_path / "a.jpg")
    write_json(tmp_path / "x.json", [])
    words = ["datasets", "import", str(tmp_path / "x.json"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="error: Which tool has written .*x.json cannot be told; say it with --from"):
        main(words)
    with pytest.raises(SystemExit, match="error: --from cococ is not known. Did you mean 'coco'"):
        main([*words, "--from", "cococ"])
    with pytest.raises(SystemExit, match="error: There is no .*nowhere"):
        main(["datasets", "import", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="x.json is not as coco writes it: TypeError"):
        main([*words, "--from", "coco"])
    assert json.loads((tmp_path / "x.json").read_text()) == []


def test_the_command_knows_every_tool(capsys):
    with pytest.raises(SystemExit):
        main(["datasets", "import", "--help"])
    assert ", ".join(TOOLS) in " ".join(capsys.readouterr().out.split())


def test_the_check_of_an_export_says_that_it_is_to_be_imported(tmp_path):
    export = tmp_path / "export"
    write_coco_splits(export)
    problem = check_dataset("folder", export).problems[0]
    assert f"{export} holds what coco exports, which is not read here" in problem
    command = re.search(r"`depthseg (.*)`", problem)[1].replace("FOLDER", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as exit_info:
        main(command.split())
    assert exit_info.value.code is None
    assert check_dataset("folder", tmp_path / "data").problems == []
    (export / "annotations" / "instances_train2017.json").write_text("{")
    (export / "annotations" / "instances_val2017.json").unlink()
    (export / "annotations" / "a.json").symlink_to("nowhere.json")
    report = check_dataset("folder", export)
    assert "exports" not in str(report) and "prediction only" in str(report)
