"""Files in and out: external data, broken files, atomic and repeatable writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from flexc.frontend import io
from flexc.frontend.io import save
from flexc.frontend.load import load
from flexc.isa.errors import FlexcError

Build = Callable[..., onnx.ModelProto]
TEXT = "g (float[3,40] x) => (float[3,50] y) { y = MatMul(x, w) }"


@pytest.fixture
def proto(build: Build, rng: np.random.Generator) -> onnx.ModelProto:
    return build(TEXT, w=rng.standard_normal((40, 50)).astype(np.float32))


@pytest.fixture
def file(proto: onnx.ModelProto, tmp_path: Path) -> Path:
    """A model whose weight lies in w.bin beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def _relocate(file: Path, key: str, value: str) -> None:
    model = onnx.load(file, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    file.write_bytes(model.SerializeToString())


def test_external_data_is_mapped(file: Path) -> None:
    value = load(file).graph.initializers["w"]
    assert isinstance(value.const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(
        value.const_value.numpy(), onnx.numpy_helper.to_array(onnx.load(file).graph.initializer[0])
    )


@pytest.mark.parametrize("opset", [11, 20])
def test_attributes_and_small_constants_in_another_file(
    opset: int, build: Build, run: Callable[..., list[np.ndarray]], tmp_path: Path
) -> None:
    text = "g (float[3] x) => (float[3] y) <int64[1] n = {3}>"
    proto = build(text + " { f = ConstantOfShape<value = float[1] {2.5}>(n) z = Mul(x, f) y = Add(z, w) }", opset,
                  w=np.arange(3, dtype=np.float32))  # fmt: skip
    proto.graph.node[0].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array([2.5], np.float32)))
    x = np.ones(3, np.float32)
    (expected,) = run(proto, {"x": x})
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w", size_threshold=0, convert_attribute=True)
    assert onnx.load(path, load_external_data=False).graph.node[0].attribute[0].t.external_data
    save(load(path), tmp_path / "again.onnx")
    np.testing.assert_array_equal(run(tmp_path / "again.onnx", {"x": x})[0], expected)


def test_missing_data_file(file: Path) -> None:
    (file.parent / "w.bin").unlink()
    with pytest.raises(FlexcError, match=r"'w\.bin' is missing"):
        load(file)


def test_short_data_file(file: Path) -> None:
    os.truncate(file.parent / "w.bin", 100)
    with pytest.raises(FlexcError, match="has 100 bytes, tensor 'w' ends at 8000"):
        load(file)


def test_claimed_length_must_fit_the_shape(file: Path) -> None:
    _relocate(file, "length", "4")
    with pytest.raises(FlexcError, match="needs 8000 bytes, but the file claims 4"):
        load(file)


@pytest.mark.parametrize("location", ["../w.bin", "{root}/w.bin", "sub/../../w.bin"])
def test_data_outside_the_folder(file: Path, location: str) -> None:
    (file.parent / "w.bin").rename(file.parent.parent / "w.bin")
    _relocate(file, "location", location.format(root=file.parent.parent))
    with pytest.raises(FlexcError, match="outside the model's folder"):
        load(file)


def test_data_behind_a_link_out_of_the_folder(file: Path) -> None:
    (file.parent / "w.bin").rename(file.parent.parent / "w.bin")
    (file.parent / "w.bin").symlink_to(file.parent.parent / "w.bin")
    with pytest.raises(FlexcError, match="outside the model's folder"):
        load(file)


def test_data_in_a_folder_below(file: Path) -> None:
    (file.parent / "sub").mkdir()
    (file.parent / "w.bin").rename(file.parent / "sub" / "w.bin")
    _relocate(file, "location", "sub/w.bin")
    assert len(load(file).graph) == 1


def test_data_with_another_hard_link(file: Path) -> None:
    (file.parent.parent / "w.bin").hardlink_to(file.parent / "w.bin")
    with pytest.raises(FlexcError, match="hard links"):
        load(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FlexcError, match="no such file"):
        load(tmp_path / "none.onnx")


def test_a_folder(file: Path) -> None:
    with pytest.raises(FlexcError, match="is a folder") as caught:
        load(file.parent)
    assert "m.onnx" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n", b"# Model\n\n{}", b"\x08\x09"])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(content)
    with pytest.raises(FlexcError, match="not an ONNX"):
        load(path)


def test_every_truncation_is_one_clear_error(proto: onnx.ModelProto, tmp_path: Path) -> None:
    whole = proto.SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in (*range(0, 60, 7), len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FlexcError):
            load(path)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_saving_gives_the_same_bytes_and_model(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(io, "EXTERNAL_BYTES", limit)
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(load(file), tmp_path / name / "out.onnx")
        contents.append({each.name: each.read_bytes() for each in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == (["out.onnx", "out.onnx.data"] if limit == 0 else ["out.onnx"])
    again = load(tmp_path / "a" / "out.onnx")
    weights = [model.graph.initializers["w"].const_value for model in (again, load(file))]
    first, second = (tensor.numpy() for tensor in weights if tensor is not None)
    np.testing.assert_array_equal(first, second)


def test_saving_over_its_own_source(
    file: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., list[np.ndarray]]
) -> None:
    monkeypatch.setattr(io, "EXTERNAL_BYTES", 0)
    feeds = {"x": np.ones((3, 40), np.float32)}
    before = run(file, feeds)[0]
    save(load(file), file)
    save(load(file), file)
    np.testing.assert_array_equal(run(file, feeds)[0], before)


def test_saving_leaves_the_model_as_it_was(file: Path, tmp_path: Path) -> None:
    model = load(file)
    tensor = model.graph.initializers["w"].const_value
    save(model, tmp_path / "out.onnx")
    assert model.graph.initializers["w"].const_value is tensor


def test_saving_into_a_missing_folder(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FlexcError, match="cannot be written"):
        save(load(file), tmp_path / "none" / "out.onnx")


def test_a_failed_save_leaves_the_old_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.onnx"
    target.write_text("old")
    monkeypatch.setattr(ir, "save", _disk_full)
    with pytest.raises(FlexcError, match="No space left"):
        save(load(file), target)
    assert target.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def _disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_model_can_be_saved_while_its_weights_are_in_use(file: Path, tmp_path: Path) -> None:
    model = load(file)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    in_use = weight.numpy()
    save(model, tmp_path / "copy.onnx", external=True)
    saved = onnx.load(tmp_path / "copy.onnx").graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(saved), in_use)
