"""Any bytes in: a FundusSegError or a right answer, never another exception."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fundus_seg import yaml_lines
from fundus_seg.config import RunConfig, load_config
from fundus_seg.data.coding import BY_DOFE
from fundus_seg.data.io import read_image, read_mask, read_photograph
from fundus_seg.data.recognise import coding_text
from fundus_seg.data.shown import recognised
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, FundusSegError
from fundus_seg.evaluation.records import Evaluation, read_evaluation
from fundus_seg.models.checkpoint import read_checkpoint

SHORT = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = settings(SHORT, max_examples=3000, derandomize=False)

keys = st.sampled_from(["preset", "holdout", "seed", "data", "model", "optim", "train", "scoring", "lr", "op", "x"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("A") | st.just("tiny")
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def mutated(content: bytes):
    """The content with a few bytes changed, cut or repeated."""
    edits = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
    return st.tuples(edits, st.integers(0, len(content))).map(lambda both: _edit(content, *both))


def _edit(content, edits, length):
    changed = bytearray(content)
    for position, value in edits:
        changed[position] = value
    return bytes(changed[:length])


GREYS = np.kron(np.array([[0, 128], [128, 255]], dtype=np.uint8), np.ones((6, 6), dtype=np.uint8))


def check_image_bytes(tmp_path, content):
    path = tmp_path / "any.png"
    path.write_bytes(content)
    for read, rank in ((read_image, 3), (read_mask, 3)):
        try:
            assert read(path).ndim == rank
        except FundusSegError as error:
            assert "any.png" in str(error)
            assert "\n" not in str(error)


def check_mask_array(tmp_path, pixels):
    path = tmp_path / "mask.png"
    path.write_bytes(png(pixels))
    far = np.abs(pixels.astype(int)[..., None] - [0, 128, 255]).min(axis=-1) > 8
    if far.mean() > 0.005:
        with pytest.raises(FundusSegError, match=r"mask\.png"):
            read_mask(path)
    else:
        np.testing.assert_array_equal(read_mask(path), [pixels <= 200, pixels <= 50])


def check_config_text(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_bytes(text)
    try:
        config = load_config(str(path), arguments={"holdout": "A"})
    except FundusSegError as error:
        heading, *faults = str(error).split("\n")
        assert bool(faults) == heading.endswith(" faults in the settings:")
        assert all(fault.startswith("  ") for fault in faults)
    else:
        assert isinstance(config, RunConfig)
        assert RunConfig.model_validate(config.model_dump()) == config


def check_evaluation_bytes(tmp_path, table, meta):
    path = tmp_path / "any.csv"
    path.write_bytes(table)
    path.with_suffix(".json").write_bytes(meta)
    try:
        assert isinstance(read_evaluation(path), Evaluation)
    except FundusSegError as error:
        assert "any.csv" in str(error)


def check_checkpoint_bytes(tmp_path, content):
    path = tmp_path / "any.ckpt"
    path.write_bytes(content)
    with pytest.raises(FundusSegError, match=r"any\.ckpt"):
        read_checkpoint(path)


def check_coding(tmp_path, colours, shape):
    """Masks in three colours are read in the coding that they show, or it is said that they show none."""
    rows, columns = np.mgrid[:48, :48] - 23.5
    far = np.hypot(rows - shape[0], columns - shape[1])
    labels = np.select([far < 7, far < 16], [2, 1], 0)
    path = tmp_path / "coded.png"
    path.write_bytes(png(np.array(colours, np.uint8)[labels]))
    coding = recognised(read_image(path))
    assert coding is not None
    assert coding.colours == tuple(map(tuple, colours))
    np.testing.assert_array_equal(read_mask(path, coding), [labels > 0, labels > 1])
    witness = Witness()
    masks = None
    try:
        seen = masks = read_mask(path)
    except DataError as error:
        seen = error
    witness.see("A/test", (path,), BY_DOFE, seen)
    assert [problem.text for problem in witness.suspicion().problems if coding_text(coding) in problem.text] or (
        masks is not None and masks.any() and (masks == [labels > 0, labels > 1]).all()
    )


def check_exif(tmp_path, exif):
    path = tmp_path / "any.jpg"
    path.write_bytes(png(np.zeros((6, 9, 3), np.uint8), format="JPEG", exif=b"Exif\0\0" + exif))
    try:
        photograph = read_photograph(path)
    except FundusSegError as error:
        assert "any.jpg" in str(error)
    else:
        turned = photograph.orientation in (5, 6, 7, 8)
        assert photograph.pixels.shape == ((9, 6, 3) if turned else (6, 9, 3))


def check_damaged_yaml(_, content):
    """libyaml, which reads what it can, gives what PyYAML gives."""
    text = content.decode("utf8", "replace")
    try:
        expected = yaml_lines.value(yaml.compose(text, Loader=yaml_lines._Loader) or yaml.compose("~"))
    except (yaml.YAMLError, yaml_lines.YamlError) as error:
        expected = type(error)
    try:
        assert repr(yaml_lines.read(text)) == repr(expected)
    except yaml_lines.YamlError:
        assert isinstance(expected, type)


def check_yaml_number(tmp_path, text):
    """A number is the same in a file, in `--set` and in a coding, and what Python reads; or it is a text everywhere."""
    value = yaml_lines.read(text)
    assert yaml_lines.read(f"a: {text}") == {"a": value} or value != value
    path = tmp_path / "any.yaml"
    path.write_text(f"preset: tiny\nholdout: A\nseed: {text}\n")
    try:
        from_file = load_config(str(path)).seed
    except FundusSegError:
        from_file = None
    try:
        from_set = load_config("tiny", overrides=[f"seed={text}"], arguments={"holdout": "A"}).seed
    except FundusSegError:
        from_set = None
    assert from_file == from_set
    if text.isdecimal() and text.isascii():
        assert value == from_file == int(text)


def check_affine(tmp_path, affine):
    """Any affine: the greys are those that were written, in some orientation, or the file is refused by name."""
    path = tmp_path / "any.nii"
    greys = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    with np.errstate(all="ignore"):
        image = nibabel.Nifti1Image(greys, None)
        image.header["sform_code"] = 1
        for row, values in zip(("srow_x", "srow_y", "srow_z"), affine, strict=True):
            image.header[row] = values
        path.write_bytes(image.to_bytes())
        try:
            read = read_image(path)
        except FundusSegError as error:
            assert "any.nii" in str(error)
            assert "\n" not in str(error)
        else:
            assert sorted(read[..., 0].ravel().tolist()) == list(range(12))


mask_arrays = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.sampled_from([0, 1, 2, 8]).map(lambda odd: _mask_array(seed, odd))
)


def _mask_array(seed, odd):
    """Coded greys with some noise, and `odd` pixels of any grey."""
    rng = np.random.default_rng(seed)
    pixels = rng.choice([0, 128, 255], size=(20, 20)) + rng.integers(-8, 9, size=(20, 20))
    pixels.flat[rng.integers(400, size=odd)] = rng.integers(256, size=odd)
    return np.clip(pixels, 0, 255).astype(np.uint8)


colours = st.lists(
    st.tuples(*[st.integers(0, 255)] * 3) | st.integers(0, 255).map(lambda g: (g, g, g)),
    min_size=3,
    max_size=3,
    unique=True,
)
offsets = st.tuples(st.integers(-4, 4), st.integers(-4, 4))
tiffs = st.tuples(
    st.integers(0, 70000),
    st.sampled_from([0x0112, 0x011A, 0x8769]),
    st.integers(0, 13),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
).map(lambda entry: b"II*\0\x08\0\0\0" + struct.pack("<HHHII", entry[0] % 65536, *entry[1:]) + bytes(4))
numbers = st.from_regex(r"[-+]?[0-9_]{1,6}", fullmatch=True) | st.from_regex(
    r"[-+]?(0[ox])?[0-9a-f]{1,4}(\.[0-9]{0,3})?(e[-+]?[0-9])?(:[0-5][0-9])?", fullmatch=True
)
RECORD = Path(__file__).with_name("config-0.1.0.yaml").read_bytes() + "a: 'x'\nb: \"é\\n\"\n? c\n: - d\n".encode()

affines = st.lists(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0]), min_size=4, max_size=4), min_size=3, max_size=3
)

CASES = {
    "coding": (check_coding, st.tuples(colours, offsets)),
    "exif": (check_exif, st.tuples(tiffs | st.binary(max_size=80))),
    "damaged yaml": (check_damaged_yaml, st.tuples(mutated(RECORD))),
    "yaml number": (check_yaml_number, st.tuples(numbers)),
    "affine": (check_affine, st.tuples(affines)),
    "random image": (check_image_bytes, st.tuples(st.binary(max_size=200))),
    "damaged png": (check_image_bytes, st.tuples(mutated(png(GREYS)))),
    "damaged jpeg": (check_image_bytes, st.tuples(mutated(png(GREYS, format="JPEG")))),
    "damaged tiff": (check_image_bytes, st.tuples(mutated(png(GREYS, format="TIFF")))),
    "mask": (check_mask_array, st.tuples(mask_arrays)),
    "config bytes": (check_config_text, st.tuples(st.binary(max_size=100))),
    "config text": (
        check_config_text,
        st.tuples(st.text(max_size=100).map(lambda text: text.encode("utf8", "replace"))),
    ),
    "config tree": (check_config_text, st.tuples(trees.map(lambda tree: yaml.safe_dump(tree).encode()))),
    "evaluation": (check_evaluation_bytes, st.tuples(st.binary(max_size=100), st.binary(max_size=100))),
    "evaluation meta": (
        check_evaluation_bytes,
        st.tuples(st.just(b"case,dsc\n"), trees.map(lambda tree: json.dumps(tree).encode())),
    ),
    "evaluation table": (check_evaluation_bytes, st.tuples(st.binary(max_size=100), st.just(b'{"format": 3}'))),
    "checkpoint": (check_checkpoint_bytes, st.tuples(st.binary(max_size=200))),
}


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of odd TIFF tags


@pytest.mark.parametrize("name", CASES)
def test_short(tmp_path, name):
    check, inputs = CASES[name]
    SHORT(given(inputs)(lambda values: check(tmp_path, *values)))()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_long(tmp_path, name):
    check, inputs = CASES[name]
    LONG(given(inputs)(lambda values: check(tmp_path, *values)))()
