"""The bytes of artifacts: whole or not at all, and never outside their folder."""

from __future__ import annotations

import pytest

from mnist_deploy.local.core.blobs import Blobs


@pytest.fixture
def blobs(tmp_path) -> Blobs:
    return Blobs(tmp_path / "store")


def test_a_blob_is_what_was_written(blobs):
    name = blobs.new_name()
    blobs.write(name, [b"one", b"", b"two"])
    assert blobs.file(name).read_bytes() == b"onetwo"


def test_a_blob_that_was_cut_off_does_not_appear(blobs, tmp_path):
    def cut_off():
        yield b"half"
        raise ConnectionError("the sender is gone")

    name = blobs.new_name()
    with pytest.raises(ConnectionError):
        blobs.write(name, cut_off())
    assert not blobs.file(name).exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_overwritten_blob_keeps_its_bytes_if_the_new_ones_are_cut_off(blobs):
    name = blobs.new_name()
    blobs.write(name, [b"old"])
    with pytest.raises(TypeError):
        blobs.write(name, [b"new", "no bytes"])
    assert blobs.file(name).read_bytes() == b"old"


def test_blocks_are_joined_in_the_order_of_their_list(blobs, tmp_path):
    name = blobs.new_name()
    for block, content in {"b": b"world", "a": b"hello ", "c": b"never named"}.items():
        blobs.stage(name, block, [content])
    blobs.commit(name, ["a", "b"])
    assert blobs.file(name).read_bytes() == b"hello world"
    assert len(list((tmp_path / "store" / "staged").iterdir())) == 1  # c


def test_blocks_of_different_blobs_do_not_mix(blobs):
    first, second = blobs.new_name(), blobs.new_name()
    blobs.stage(first, "1", [b"first"])
    blobs.stage(second, "1", [b"second"])
    blobs.commit(first, ["1"])
    assert blobs.file(first).read_bytes() == b"first"


def test_a_block_that_was_never_staged_is_missed(blobs):
    name = blobs.new_name()
    with pytest.raises(FileNotFoundError):
        blobs.commit(name, ["nowhere"])
    assert not blobs.file(name).exists()


def test_what_an_earlier_process_staged_is_swept_away(blobs, tmp_path):
    blobs.stage(blobs.new_name(), "1", [b"left over"])
    Blobs(tmp_path / "store")
    assert not list((tmp_path / "store" / "staged").iterdir())


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "a" * 31, "g" * 32, "..", "a/" * 16])
def test_no_name_leads_out_of_the_folder(blobs, name):
    with pytest.raises(ValueError, match=r"hexadecimal|base 16"):
        blobs.file(name)


def test_keep_only_removes_the_others(blobs):
    kept, gone = blobs.new_name(), blobs.new_name()
    for name in (kept, gone):
        blobs.write(name, [b"x"])
    blobs.keep_only({kept})
    assert blobs.file(kept).exists()
    assert not blobs.file(gone).exists()
    blobs.remove(kept)
    blobs.remove(kept)
    assert not blobs.file(kept).exists()
