"""ConceptIndex: hand-made statistics, exemplars where the latent fires, strict files."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sae.concepts import content
from sae.concepts.build.assembly import build_index
from sae.concepts.build.naming import best_words, name_by_labels, name_by_text, read_words
from sae.concepts.content import FILES
from sae.concepts.index import ConceptIndex, histogram_edges
from sae.errors import ArtifactError
from sae.storage import SEAL, sealed
from tests.concepts.concept_parts import FakeBackbone, Reds, make_sae


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    return build_index(
        Reds([0, 10, 20, 30] * 10), FakeBackbone(), make_sae(), batch=7, sae_sha256="ab"
    )


def test_statistics_are_the_hand_computed_ones(index):
    assert index.n_images == 40
    assert index.n_tokens == 200
    assert index.frequency.tolist() == [0.75, 1.0, 0.0]
    assert index.token_frequency.tolist() == pytest.approx([0.75, 0.2, 0.0])
    assert index.max_activation.tolist() == [3.0, 1.0, 0.0]
    assert index.mean_activation.tolist() == pytest.approx([2.0, 0.2, 0.0])
    assert index.dead.tolist() == [False, False, True]
    assert index.dense.tolist() == [True, True, False]


def test_histogram_counts_images_by_maximum(index):
    counts = np.array(index.concept(0).histogram)
    edges = histogram_edges()
    expected = np.histogram([1.0] * 10 + [2.0] * 10 + [3.0] * 10, edges)[0]
    assert counts.tolist() == expected.tolist()


def test_entropy_of_labels(index):
    """Latent 0's ten best all have red 30, whose numbers 3, 7 … are odd; latent 1 fires alike on all, so its
    first ten images, half of them odd, count equally."""
    assert index.entropy[0] == pytest.approx(0.0, abs=1e-6)
    assert index.entropy[1] == pytest.approx(np.log(2), abs=1e-6)
    assert index.entropy[2] == -1


def test_exemplars_fall_from_top_to_low_and_never_repeat(index):
    levels = index.concept(0).exemplars
    assert [e.label for e in levels["top"]] == ["red 30"] * 9
    assert [e.image_id for e in levels["top"]] == [3, 7, 11, 15, 19, 23, 27, 31, 35]
    shown = [e.image_id for rows in levels.values() for e in rows]
    assert len(shown) == len(set(shown))
    values = [e.activation for name in ("top", "middle", "low") for e in levels[name]]
    assert values == sorted(values, reverse=True)
    assert {e.activation for e in levels["middle"]} == {2.0}
    assert {e.activation for e in levels["low"]} == {1.0}
    assert index.exemplars(0) == levels["top"]


def test_deciles_hold_every_firing_image_of_a_small_data_set(index):
    deciles = index.deciles(0)
    assert [len(rows) for rows in deciles] == [3] * 10
    values = [e.activation for rows in deciles for e in rows]
    assert values == [3.0] * 10 + [2.0] * 10 + [1.0] * 10
    assert len({e.image_id for rows in deciles for e in rows}) == 30
    assert index.deciles(2) == [[]] * 10


def test_classes_count_tokens_above_tau(index):
    """Red 10 and 30 are odd numbers: 5 tokens each of 10 images; red 20 is even."""
    assert index.classes(0) == [("odd", 100, 2 / 3), ("even", 50, 1 / 3)]
    assert index.class_table.counts().tolist() == [[50, 20, 0], [100, 20, 0]]
    assert index.class_table.shares().tolist() == [0.5, 0.5]


def test_neighbours_by_decoder_and_by_firing_together(index):
    near = index.neighbours(0)
    assert (near[0].latent, near[0].score) == (1, pytest.approx(2**-0.5, abs=1e-3))
    together = index.neighbours(0, by="cofiring")
    assert [row.latent for row in together] == [1]
    assert together[0].score == pytest.approx(30 / np.sqrt(30 * 40), abs=1e-3)
    assert index.neighbours(2, by="cofiring") == []


def test_means_over_all_tokens_and_over_patches_alone(index):
    assert index.concept(1).mean_activation == pytest.approx(1 / 5)
    assert index.concept(1).patch_mean_activation == pytest.approx(1 / 4)
    assert index.statistics["patch_frequency"].tolist() == pytest.approx([0.75, 0.25, 0])
    assert index.statistics["decoder_norm"].tolist() == pytest.approx([2, 2**0.5, 0])
    assert index.statistics["label_std"].tolist() == pytest.approx([0, 0.5, -1])


def test_firing_patches_are_the_patches_where_it_fires(index):
    first = index.concept(1).exemplars["top"][0]
    assert first.patches == [3]
    assert first.values == pytest.approx([1.0], abs=1e-3)
    assert sorted(index.concept(0).exemplars["top"][0].patches) == [0, 1, 2, 3]


def test_thumbnails_are_pictures_of_the_exemplars(index):
    exemplar = index.concept(0).exemplars["top"][0]
    with Image.open(io.BytesIO(index.thumbnail(exemplar.image_id))) as picture:
        assert picture.format == "WEBP"
        assert abs(picture.convert("RGB").getpixel((4, 4))[0] - 30) < 8


def test_save_and_load_give_equal_arrays(index, tmp_path):
    index.save_pretrained(tmp_path)
    again = ConceptIndex.from_pretrained(tmp_path)
    assert index.statistics.keys() == again.statistics.keys()
    for name, array in index.statistics.items():
        assert np.array_equal(array, again.statistics[name])
    for latent in range(3):
        assert index.concept(latent) == again.concept(latent)


def test_further_statistics_are_kept(index, tmp_path):
    scores = np.array([0.5, np.nan, -0.25])
    index.with_statistics({"steerability": scores}).save_pretrained(tmp_path)
    again = ConceptIndex.from_pretrained(tmp_path)
    assert np.array_equal(again.statistics["steerability"], scores.astype(np.float32), True)
    assert again.concept(2).statistics["steerability"] == -0.25
    assert "steerability" not in index.statistics
    for wrong in ({"x": np.zeros(2)}, {"frequency": np.zeros(3)}):
        with pytest.raises(ValueError, match="Statistic"):
            index.with_statistics(wrong)


def test_names_by_text_say_more_than_saying_nothing(index):
    named = name_by_text(index, FakeBackbone(), ["red", "green"])
    assert named.names == ["red", "red", ""]
    assert named.name_sources == ["text tower", "text tower", ""]
    assert 0.9 < named.name_scores[0] < 1
    assert named.name_confidences[0] > 0.99
    assert index.names == ["", "", ""]
    assert name_by_text(index, FakeBackbone(), ["red"], minimum=2.0).names == ["", "", ""]
    # two words for one thing share the confidence, so neither has more than half of it
    assert name_by_text(index, FakeBackbone(), ["red", "red thing"]).names == ["", "", ""]
    both = name_by_text(index, FakeBackbone(), ["red", "red thing"], sure=0.0)
    assert both.names[0] in ("red", "red thing")
    assert 0.4 < both.name_confidences[0] <= 0.5
    best = best_words(index, FakeBackbone(), {"green": ["green"], "red": ["red"]}, k=5)
    assert best.words == [["red", "green"], ["red", "green"], []]


def test_names_by_labels_need_most_of_the_exemplars(index):
    named = name_by_labels(index)
    assert named.names == ["odd", "even", ""]
    assert named.name_sources[0] == "labels"
    assert named.name_confidences[0] == 1.0
    assert named.name_scores[0] == 0.5
    assert named.name_confidences[1] < 0.6
    bare = build_index(Reds([9] * 20, classes=()), FakeBackbone(), make_sae())
    assert name_by_labels(bare).names == ["", "", ""]
    assert bare.entropy.tolist() == [-1, -1, -1]


def test_one_class_only_names_nothing_because_it_says_nothing():
    one = build_index(Reds([9] * 20, classes=("all",)), FakeBackbone(), make_sae())
    assert name_by_labels(one).names == ["", "", ""]
    assert one.entropy[0] == 0.0


def test_words_of_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\nчайка\n\n縞模様 \nчайка\n", encoding="utf-8")
    assert read_words(path) == ["чайка", "縞模様"]
    assert 3000 < len(read_words()) < 6000
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_words(path)
    path.write_text("# none")
    with pytest.raises(ValueError, match="0 words"):
        read_words(path)


def test_table_and_html(index):
    named = index.with_names(["<b>", "", ""], ["labels", "", ""], [1.0, 0, 0], [0.9, 0, 0])
    frame = named.to_pandas()
    assert frame.loc[0, "name"] == "<b>"
    assert frame["dead"].tolist() == [False, False, True]
    assert set(index.statistics) <= set(frame.columns)
    html = named._repr_html_()
    assert "&lt;b&gt;" in html
    assert '<b>"' not in html
    assert "data:image/webp" in html
    assert repr(named) == "ConceptIndex(3 latents, 1 named, over reds)"


@pytest.mark.parametrize("levels", [[30], [0], [5, 5]])
def test_a_few_images_are_enough(levels, tmp_path):
    small = build_index(Reds(levels, size=(1, 1)), FakeBackbone(), make_sae())
    small.save_pretrained(tmp_path)
    again = ConceptIndex.from_pretrained(tmp_path)
    assert again.n_images == len(levels)
    assert again.frequency[0] == float(levels[0] > 0)
    assert again.concept(0).exemplars["middle"] == []


def test_unreadable_images_are_counted_and_too_many_stop():
    data = Reds([10, -1, 20, -1, 30])
    found = build_index(data, FakeBackbone(), make_sae(), batch=2)
    assert (found.n_images, found.n_unreadable) == (3, 2)
    assert found.frequency[0] == 1.0
    with pytest.raises(ValueError, match="30 of 30 images could not be read"):
        build_index(Reds([-1] * 30), FakeBackbone(), make_sae())
    with pytest.raises(ValueError, match="no image could be opened"):
        build_index(Reds([-1] * 3), FakeBackbone(), make_sae())
    with pytest.raises(ValueError, match="no images"):
        build_index(Reds([]), FakeBackbone(), make_sae())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_stop_the_pass_with_layer_and_image(number):
    class Broken(FakeBackbone):
        def activations(self, images, layer):
            x = super().activations(images, layer)
            x[images["red"] == 20, 2, 0] = number
            return x

    class Files(Reds):
        def image_name(self, number):
            return f"cats/{number}.png"

    said = "layer 0 of fake gives NaN or infinity for "
    with pytest.raises(ValueError, match=f"{said}image 1 of reds"):
        build_index(Reds([10, 20, 30]), Broken(), make_sae())
    with pytest.raises(ValueError, match=rf"{said}cats/3\.png"):
        build_index(Files([10, 0, 30, 20]), Broken(), make_sae(), batch=2)


def test_an_index_without_thumbnails_shows_grey_tiles(tmp_path):
    bare = build_index(Reds([10, 20]), FakeBackbone(), make_sae(), thumbnails=False)
    bare.save_pretrained(tmp_path)
    again = ConceptIndex.from_pretrained(tmp_path)
    with Image.open(io.BytesIO(again.thumbnail(0))) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(KeyError):
        again.thumbnail(7)


def test_the_index_of_another_sae_is_refused(index, tmp_path):
    make_sae().save_pretrained(tmp_path)
    index.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="describes SAE weights ab"):
        ConceptIndex.from_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="Build the index again"):
        index.check_sae("cd" * 32)
    index.check_sae("ab")


def test_no_such_latent(index):
    with pytest.raises(IndexError, match="0 to 2"):
        index.concept(3)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("index.json", lambda d: d | {"format": 9}, "format 9"),
        ("index.json", lambda d: d | {"format": 1}, "found format 1; expected format 2"),
        ("index.json", lambda d: d | {"n_top": 8}, "exemplars"),
        ("index.json", lambda d: d | {"text_tower": {"id": 3}}, "text_tower.id"),
        ("index.json", lambda d: d | {"extra": 1}, "unknown key"),
        ("index.json", lambda d: d | {"grid": [0, 2]}, "grid"),
        ("index.json", lambda d: {k: v for k, v in d.items() if k != "d_sae"}, "d_sae"),
        ("index.json", lambda d: d | {"d_sae": 4}, "frequency"),
        ("names.json", lambda d: d | {"names": ["x"]}, "names"),
        ("captions.json", lambda d: d[:-1], "entries"),
        ("class_names.json", lambda d: d[:-1], "class_names.json|outside its range"),
    ],
)
def test_damage_is_refused(index, tmp_path, file, change, message):
    index.save_pretrained(tmp_path)
    path = tmp_path / "concepts" / file
    changed = change(json.loads(path.read_text()))
    if file == "index.json":
        changed = sealed({key: value for key, value in changed.items() if key != SEAL})
    path.write_text(json.dumps(changed))
    with pytest.raises(ArtifactError, match=message):
        ConceptIndex.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("index.json", b'"tau": 0.2', b'"tau": 0.3'),
        ("index.json", b'"n_unreadable": 0', b'"n_unreadable": 1'),
        ("names.json", b'"odd"', b'"even"'),
        ("names.json", b"0.5", b"0.9"),
        ("captions.json", b"[", b"[ "),
        ("class_names.json", b'"odd"', b'"cat"'),
    ],
)
def test_no_altered_text_of_an_index_loads(index, tmp_path, file, old, new):
    name_by_labels(index).save_pretrained(tmp_path)
    path = tmp_path / "concepts" / file
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ArtifactError, match=rf"{file}: found .*sha256"):
        ConceptIndex.from_pretrained(tmp_path)


@pytest.mark.parametrize("file", [name for name in FILES if name.endswith(".safetensors")])
def test_no_altered_table_of_an_index_loads(index, tmp_path, file):
    index.save_pretrained(tmp_path)
    path = tmp_path / "concepts" / file
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in range(start, len(whole), max(1, (len(whole) - start) // 20)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"concepts/\w+\.safetensors: found"):
            ConceptIndex.from_pretrained(tmp_path)


def test_an_index_without_hashes_still_opens_and_says_so(index, tmp_path):
    index.save_pretrained(tmp_path)
    path = tmp_path / "concepts" / "index.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in said.items() if k not in (SEAL, "sha256")}))
    with pytest.warns(UserWarning, match=r"index\.json is of an older PatchLens"):
        old = ConceptIndex.from_pretrained(tmp_path)
    old.save_pretrained(tmp_path)
    assert json.loads(path.read_text()) == said


class Killed(BaseException):
    """As of a process that is gone: nothing may tidy up after it."""


class Countdown:
    """The last `left` steps of a process: the last one raises, and after it nothing happens."""

    def __init__(self, left):
        self.left = left

    def before(self, real):
        def step(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise Killed
            return real(*args, **kwargs) if self.left > 0 else None

        return step


def test_a_kill_at_any_moment_of_saving_leaves_the_old_index_or_the_new(
    index, tmp_path, monkeypatch
):
    """Steps are the file operations of saving; after each of them the process is gone."""
    renamed = index.with_names(["x", "y", "z"], ["labels"] * 3, [1.0] * 3)
    steps = [(content.shutil, "rmtree"), (Path, "rename"), (Path, "mkdir"), (Path, "write_text")]
    steps += [(content, "save_file")]
    steps += [(content, "sha256"), (content, "write_json")]
    outcomes = []
    for number in range(1, 100):
        folder = tmp_path / str(number)
        index.save_pretrained(folder)
        (folder / "concepts" / "mine.txt").write_text("kept")
        life = Countdown(number)
        with monkeypatch.context() as patch:
            for owner, name in steps:
                patch.setattr(owner, name, life.before(getattr(owner, name)))
            try:
                renamed.save_pretrained(folder)
            except Killed:
                pass
            else:
                break
        found = ConceptIndex.beside(folder)
        assert found is not None, number
        outcomes.append(found.names == renamed.names)
        assert (folder / "concepts" / "mine.txt").read_text() == "kept"
        renamed.save_pretrained(folder)  # and the next one is whole, and tidies up
        assert ConceptIndex.from_pretrained(folder).names == renamed.names
        assert [path.name for path in folder.iterdir()] == ["concepts"]
    assert outcomes == sorted(outcomes)
    assert {True, False} == set(outcomes)
    assert len(outcomes) > 12


@pytest.mark.parametrize("file", [name for name in FILES if name.endswith(".safetensors")])
def test_missing_and_truncated_tensors_are_refused(index, tmp_path, file):
    index.save_pretrained(tmp_path)
    path = tmp_path / "concepts" / file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=file):
        ConceptIndex.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        ConceptIndex.from_pretrained(tmp_path)


def test_a_folder_without_an_index_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="index.json"):
        ConceptIndex.from_pretrained(tmp_path)


def test_sheets_of_exemplars(tmp_path):
    from training.grids import main
    from training.indexing.sheets import lit

    wide = build_index(Reds(list(range(10, 130, 10))), FakeBackbone(), make_sae())
    wide.save_pretrained(tmp_path / "index")
    main(["--index", str(tmp_path / "index"), "--out", str(tmp_path / "sheets"), "--n", "5"])
    assert [path.name for path in sorted((tmp_path / "sheets").iterdir())] == [
        "00-0.png",
        "01-1.png",
    ]
    exemplar = wide.exemplars(1)[0]  # fires on the last patch alone
    shown = lit(Image.new("RGB", (8, 8), (200, 200, 200)), exemplar, wide.grid)
    assert shown.getpixel((7, 7)) == (200, 200, 200)
    assert shown.getpixel((0, 0)) == (40, 40, 40)
