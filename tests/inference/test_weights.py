from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from proxmo_rllib.inference.weight_parts import write_parts
from proxmo_rllib.inference.weights import (
    WeightsMismatchError,
    check_manifest,
    deserialise,
    manifest_of_blob,
    manifest_of_checkpoint,
    manifest_of_file,
    serialise,
)
from proxmo_rllib.policies.model_folder import local_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.tuples(st.lists(st.integers(0, 5), max_size=3), st.sampled_from(DTYPES)),
    max_size=6,
)


@given(TENSORS)
@settings(max_examples=60, deadline=None)
def test_what_is_packed_comes_back_in_every_type_and_shape(shapes: dict[str, tuple[list[int], torch.dtype]]) -> None:
    state = {name: torch.randint(0, 2, shape).to(dtype) for name, (shape, dtype) in shapes.items()}
    blob = serialise(state)
    back = deserialise(blob)
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    assert manifest_of_blob(blob) == {name: tuple(tensor.shape) for name, tensor in state.items()}


@given(TENSORS, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_parts_are_written_as_the_whole(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[list[int], torch.dtype]], number: int
) -> None:
    state = {name: torch.randint(0, 2, shape).to(dtype) for name, (shape, dtype) in shapes.items()}
    path = tmp_path_factory.mktemp("parts") / "joined.safetensors"
    write_parts([serialise(dict(list(state.items())[part::number])) for part in range(number)], path)
    assert path.read_bytes() == serialise(state).tobytes()


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    part = serialise({"a": torch.zeros(2)})
    with pytest.raises(WeightsMismatchError, match="a is in two parts of 2"):
        write_parts([part, part], tmp_path / "joined.safetensors")


def test_a_written_blob_is_a_safetensors_file_that_others_can_read(tmp_path: Path) -> None:
    state = {"b": torch.randn(3, 5).T, "a": torch.arange(4), "empty": torch.zeros(0, 2)}  # b is not contiguous
    path = tmp_path / "state.safetensors"
    blob = serialise(state)
    blob.tofile(path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(path).items())
    assert manifest_of_file(path) == manifest_of_blob(blob)


def test_casting_on_the_way_leaves_integers_alone() -> None:
    back = deserialise(serialise({"w": torch.tensor([1.25]), "n": torch.tensor([7])}, torch.bfloat16))
    assert (back["w"].dtype, back["n"].dtype) == (torch.bfloat16, torch.int64)


@pytest.mark.parametrize("tied", [True, False])
def test_a_models_state_dict_fits_its_own_checkpoint(tmp_path: Path, make_model: Any, tied: bool) -> None:
    model = make_model(tmp_path, tied=tied)
    manifest = manifest_of_blob(serialise(model.state_dict()))
    check_manifest(manifest, manifest_of_checkpoint(tmp_path))
    assert ("lm_head.weight" in manifest) is not tied


@pytest.mark.parametrize(
    ("given_manifest", "message"),
    [
        ({"a": (2,)}, r"b is missing"),
        ({"a": (2,), "b": (3, 4), "c": (1,)}, r"c \[1\] is not in the model"),
        ({"a": (2,), "b": (4, 3)}, r"b has shape \[4, 3\], the model has \[3, 4\]"),
        ({}, r"a is missing \(and 1 more\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_shapes(
    given_manifest: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(WeightsMismatchError, match=message):
        check_manifest(given_manifest, {"a": (2,), "b": (3, 4)})


def test_bytes_that_are_no_safetensors_are_refused() -> None:
    blob = serialise({"a": torch.zeros(4)})
    for broken in (blob[:4], blob[8:], blob[:12]):
        with pytest.raises(WeightsMismatchError, match="safetensors"):
            manifest_of_blob(broken)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        manifest_of_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="save_pretrained"):
        manifest_of_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        local_model(str(tmp_path / "none"))
