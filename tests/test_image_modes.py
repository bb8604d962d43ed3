"""Image files of every kind: the values that a map is fitted to, and what is refused by name."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from torchdr_cne.images.augmentation import as_floats, as_tensor
from torchdr_cne.images.sources import open_images, readable

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
"""Grey values; each mode shows the same ones."""
GREY = Image.fromarray(RAMP)


def transparent_palette():
    """Return a palette whose colour 0 is transparent, as a PNG has it."""
    image = Image.new("P", (16, 16))
    image.putpalette([channel for grey in range(256) for channel in (grey, grey, grey)])
    image.putdata(RAMP.ravel().tolist())
    image.info["transparency"] = 0
    return image


def with_alpha(mode):
    image = GREY.convert(mode)
    image.putalpha(Image.fromarray(np.where(RAMP < 128, 0, 255).astype(np.uint8)))
    return image


ON_WHITE = np.where(RAMP < 128, 255, RAMP)
MODES = {
    "1": (Image.fromarray(RAMP > 127), 1, np.where(RAMP > 127, 255, 0)),
    "L": (GREY, 1, RAMP),
    "LA": (with_alpha("L"), 1, ON_WHITE),
    "P": (transparent_palette(), 3, np.where(RAMP == 0, 255, RAMP)),
    "RGB": (GREY.convert("RGB"), 3, RAMP),
    "RGBA": (with_alpha("RGB"), 3, ON_WHITE),
    "CMYK": (GREY.convert("RGB").convert("CMYK"), 3, RAMP),
    "YCbCr": (GREY.convert("RGB").convert("YCbCr"), 3, RAMP),
    "I;16": (Image.fromarray(RAMP.astype(np.uint16) * 257), 1, RAMP),
    "I": (Image.fromarray(RAMP.astype(np.int32) * 257), 1, RAMP),
    "F": (Image.fromarray(RAMP.astype(np.float32) / 255), 1, RAMP),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_of_pillow_gives_its_values(mode):
    image, channels, expected = MODES[mode]
    assert image.mode == mode
    found, _ = open_images([image]).item(0)
    values = as_floats(as_tensor(found)).numpy()
    assert values.shape == (channels, 16, 16)
    np.testing.assert_allclose(
        values, np.broadcast_to(expected / 255, values.shape), atol=1e-6 if mode != "YCbCr" else 1.01 / 255
    )


def test_a_file_of_16_bits_is_read_as_the_same_image_of_8_bits(tmp_path):
    MODES["I;16"][0].save(tmp_path / "wide.png")
    GREY.save(tmp_path / "narrow.png")
    (wide, _), (narrow, _) = (open_images(tmp_path).item(number) for number in range(2))
    np.testing.assert_array_equal(np.asarray(wide), np.asarray(narrow))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(RAMP.astype(np.int32)), r"mode I with values from 0 to 255; scale whole numbers to 8 or 16 b"),
        (Image.fromarray(RAMP.astype(np.int32) * 65536), r"mode I with values from 0 to 1.67\d+e\+07; scale whole"),
        (Image.fromarray(RAMP.astype(np.int32) - 9), r"mode I with values from -9 to 246; scale whole numbers"),
        (Image.fromarray(RAMP.astype(np.float32)), r"mode F with values from 0 to 255; scale floats to \[0, 1\]"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), r"mode F with values from nan to nan; scale floats"),
        (Image.new("LA", (4, 4)).convert("La"), r"Pillow cannot convert its mode La to RGB; save it as RGB or grey"),
        (torch.zeros((1, 4, 4), dtype=torch.int64), r"a tensor of torch.int64; uint8, or floats, are needed"),
    ],
)
def test_what_has_no_known_scale_is_refused_by_name_and_can_be_skipped(image, message):
    images = open_images([GREY, image])
    with pytest.raises(ValueError, match=rf"^image 1 \({message}"):
        images.item(1)
    with pytest.warns(UserWarning, match=rf"1 of 2 images cannot be read and are left out: image 1 \({message}"):
        assert len(readable(images, skip=True)) == 1


def test_images_of_too_many_pixels_are_refused_by_name_and_without_a_warning_of_pillow(tmp_path, monkeypatch):
    GREY.save(tmp_path / "a.png")
    for limit in (200, 100):  # of which Pillow warns, and which it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=rf"a\.png \(more than {limit} pixels; make it smaller, or raise"):
                open_images(tmp_path).item(0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_images(tmp_path).item(0)[0].size == (16, 16)


class TestLinks:
    """A folder of images gives only what is in it."""

    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("images/cats/a.png", "images/dogs/b.png", "outside/c.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            GREY.save(tmp_path / name)
        return tmp_path / "images"

    @pytest.mark.parametrize(("link", "target"), [("cats/c.png", "outside/c.png"), ("birds", "outside")])
    def test_a_link_that_leads_out_is_refused_with_both_ends(self, folder, link, target):
        (folder / link).symlink_to(folder.parent / target)
        with pytest.raises(ValueError, match=rf"images/{link} is a link out of the folder, to .*{target}; pass the li"):
            open_images(folder)

    def test_links_within_the_folder_and_files_of_a_list_are_read(self, folder):
        (folder / "cats/again.png").symlink_to(folder / "dogs/b.png")
        (folder / "notes.txt").symlink_to(folder.parent / "nowhere.txt")
        assert len(open_images(folder)) == 3
        (folder / "cats/c.png").symlink_to(folder.parent / "outside/c.png")
        assert len(open_images([folder / "cats/c.png"])) == 1
