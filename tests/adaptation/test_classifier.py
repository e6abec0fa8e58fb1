"""The first picture on which two heads disagree, against asking one picture at a time."""

import numpy as np
import pytest
from PIL import Image

from sae.adaptation.classifier import classify, first_disagreement
from sae.adaptation.heads import ZeroShotHead
from tests.adaptation.small import small_parts

CLASSES = ("cat", "dog", "red animal", "blue grass")


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(20)]


def heads(parts):
    return tuple(
        ZeroShotHead(CLASSES, templates=(template,)).classifier(parts)
        for template in ("a photo of {}", "{} red grass")
    )


def says(parts, head, picture):
    return int(classify(parts, head, parts.backbone.preprocess([picture])).argmax())


def test_it_is_the_first_and_no_picture_beyond_its_batch_is_drawn(parts, pictures):
    pair = heads(parts)
    differ = [says(parts, pair[0], one) != says(parts, pair[1], one) for one in pictures]
    assert any(differ), "choose other templates: these heads never disagree"
    expected, drawn = differ.index(True), []
    lazy = (drawn.append(n) or one for n, one in enumerate(pictures))
    assert first_disagreement(parts, lazy, pair, at_once=3) == expected
    assert len(drawn) == min(len(pictures), 3 * (expected // 3 + 1))


def test_with_truths_the_second_head_is_right(parts, pictures):
    pair = heads(parts)
    first, second = ([says(parts, head, one) for one in pictures] for head in pair)
    places = [n for n in range(len(pictures)) if first[n] != second[n]]
    truths = list(first)  # the first head is right everywhere but at the last disagreement
    truths[places[-1]] = second[places[-1]]
    assert first_disagreement(parts, pictures, pair, 3, truths=truths) == places[-1]
    assert first_disagreement(parts, pictures, pair, 3, truths=first) is None


def test_a_head_agrees_with_itself(parts, pictures):
    head = heads(parts)[0]
    assert first_disagreement(parts, pictures, (head, head)) is None
    assert first_disagreement(parts, [], (head, head)) is None
