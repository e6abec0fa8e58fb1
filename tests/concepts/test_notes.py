"""People's own names, notes and pins: read strictly, applied, kept with an index, and shared by a command."""

import copy
import json

import pytest

from patchlens.__main__ import main as patchlens
from sae.concepts.build.assembly import build_index
from sae.concepts.build.naming import name_by_labels
from sae.concepts.index import ConceptIndex
from sae.concepts.notes import MAX_CONCEPTS, MAX_NAME, MAX_NOTE, Note
from sae.errors import ArtifactError
from sae.storage import sha256, write_json
from tests.concepts.concept_parts import FakeBackbone, Reds, make_sae

HOSTILE = "<img src=x onerror=alert(1)> \"quoted\", 'x' =1+1 ${x} \u202egnp.exe"


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    built = build_index(
        Reds([0, 10, 20, 30] * 10), FakeBackbone(), make_sae(), sae_sha256="ab" * 32
    )
    return name_by_labels(built)


def notes(*rows: dict, **changed: object) -> dict:
    owner = {"id": "mine", "sha256": "ab" * 32, "d_sae": 3}
    head = {"kind": "patchlens notes", "format": 1, "sae": owner, "saved": "2026-11-29"}
    return {**head, "concepts": list(rows), **changed}


OWN = notes(
    {"latent": 0, "name": "bright red", "note": "two lines,\nof a note", "pinned": True},
    {"latent": 2, "name": HOSTILE},
    {"latent": 1, "note": "only a note"},
)


def test_own_names_stand_in_names_searches_and_tables_and_the_models_stay_beside(index):
    own = index.with_notes(OWN)
    assert own.names == ["bright red", index.names[1], HOSTILE]
    assert own.model_names == index.names == index.model_names
    assert own.name_sources[0] == own.name_sources[2] == "notes"
    assert own.name_sources[1] == index.name_sources[1]
    assert own.name_confidences.tolist()[::2] == [1, 1]
    concept = own.concept(0)
    assert (concept.name, concept.model_name) == ("bright red", index.names[0])
    assert (concept.note, concept.pinned) == ("two lines,\nof a note", True)
    assert own.search("bright", 1)[0].latent == 0
    assert own.searcher.by_name("<img", 1)[0].latent == 2
    table = own.to_pandas()
    assert table.name.tolist() == own.names
    assert table.model_name.tolist() == index.names
    assert table.note.tolist() == ["two lines,\nof a note", "only a note", ""]
    assert table.pinned.tolist() == [True, False, False]
    html = name_by_labels(own)._repr_html_()
    assert "<img src=x" not in html  # of what is hostile, nothing is run
    assert index.notes == {}
    assert index.to_pandas().note.tolist() == [""] * 3


def test_notes_go_round_through_an_index_on_disk_and_through_their_own_file(index, tmp_path):
    own = index.with_notes(OWN)
    own.save_pretrained(tmp_path)
    read = ConceptIndex.from_pretrained(tmp_path)
    assert read.notes == own.notes == {
        0: Note("bright red", "two lines,\nof a note", True),
        1: Note("", "only a note"),
        2: Note(HOSTILE),
    }  # fmt: skip
    assert read.names == own.names
    read.save_notes(tmp_path / "notes.json")
    assert index.with_notes(tmp_path / "notes.json").notes == own.notes
    assert index.with_notes(str(tmp_path / "notes.json")).notes == own.notes
    renamed = name_by_labels(read)  # the model's names are made anew; people's stay
    assert renamed.names == own.names
    assert renamed.model_names == index.names


def test_later_notes_are_added_and_say_what_both_say(index):
    more = notes({"latent": 0, "name": "red"}, {"latent": 1, "name": "token four"})
    both = index.with_notes(OWN).with_notes(more)
    assert both.notes[0] == Note("red", "two lines,\nof a note", True)
    assert both.notes[1] == Note("token four", "only a note")
    assert both.notes[2].name == HOSTILE


def test_notes_on_another_sae_are_refused_and_taken_by_number_if_one_says_so(index):
    other = notes({"latent": 1, "name": "x"}, sae={"id": "theirs", "sha256": "cd" * 32, "d_sae": 9})
    with pytest.raises(ArtifactError, match=r"another SAE \(theirs, 9 concepts.*by_number=True"):
        index.with_notes(other)
    assert index.with_notes(other, by_number=True).names[1] == "x"
    beyond = {**other, "concepts": [{"latent": 8, "name": "x"}]}
    with pytest.raises(
        ArtifactError, match="latent = 8: no such concept; expected once each, 0 to 2"
    ):
        index.with_notes(beyond, by_number=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"kind": "a shopping list"}, "kind 'a shopping list'; expected kind 'patchlens notes'"),
        ({"format": 2}, "format '2'"),
        ({"concepts": {}}, "list"),
        ({"concepts": None}, "list"),
        ({"sae": {"id": "x"}}, "sha256"),
        ({"more": 1}, "unknown key 'more'"),
        ({"concepts": [1]}, "an object"),
        ({"concepts": [{"name": "x"}]}, r"concepts\[0\]\.'latent'"),
        ({"concepts": [{"latent": True}]}, "latent = True"),
        ({"concepts": [{"latent": -1}]}, "0 to 2"),
        ({"concepts": [{"latent": 3}]}, "0 to 2"),
        ({"concepts": [{"latent": 1, "name": "a"}, {"latent": 1}]}, "second entry"),
        ({"concepts": [{"latent": 1, "name": 5}]}, "name = 5"),
        ({"concepts": [{"latent": 1, "pinned": 1}]}, "pinned = 1"),
        ({"concepts": [{"latent": 1, "name": "x" * (MAX_NAME + 1)}]}, f"at most {MAX_NAME}"),
        ({"concepts": [{"latent": 1, "note": "x" * (MAX_NOTE + 1)}]}, f"at most {MAX_NOTE:,}"),
        ({"concepts": [{"latent": 1, "name": "two\nlines"}]}, "plain text"),
        ({"concepts": [{"latent": 1, "note": "\ud800"}]}, "plain text"),
        ({"concepts": [{"latent": 1, "lovely": "x"}]}, "unknown key"),
        ({"concepts": [{"latent": 0}] * (MAX_CONCEPTS + 1)}, f"at most {MAX_CONCEPTS:,}"),
    ],
)
def test_damaged_notes_are_refused_in_a_sentence(index, tmp_path, damage, words):
    content = copy.deepcopy(OWN) | damage
    (tmp_path / "notes.json").write_text(json.dumps(content), encoding="utf-8")
    for source in (content, tmp_path / "notes.json"):
        with pytest.raises(ArtifactError, match=words):
            index.with_notes(source)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"kind": "patchlens notes"', "\x00", "[" * 10_000]
)
def test_what_is_no_json_object_is_refused(index, tmp_path, text):
    (tmp_path / "notes.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"notes\.json"):
        index.with_notes(tmp_path / "notes.json")
    with pytest.raises(ArtifactError, match="no such file"):
        index.with_notes(tmp_path / "none.json")


def test_notes_inside_an_index_are_checked_like_a_file(index, tmp_path):
    index.with_notes(OWN).save_pretrained(tmp_path)
    file = tmp_path / "concepts" / "names.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for bad in ([{"latent": 9}], {}, "x", [{"latent": 1, "name": 1}]):
        file.write_text(json.dumps(content | {"notes": bad}), encoding="utf-8")
        with pytest.raises(ArtifactError, match=r"names\.json"):
            ConceptIndex.from_pretrained(tmp_path)


def test_a_command_writes_an_index_with_them_and_gives_them_back(index, tmp_path, capsys):
    folder = tmp_path / "sae"
    make_sae().save_pretrained(folder)
    own = {**OWN["sae"], "sha256": sha256(folder / "sae_weights.safetensors")}
    built = build_index(
        Reds([0, 10, 20, 30] * 10), FakeBackbone(), make_sae(), sae_sha256=own["sha256"]
    )
    built.save_pretrained(folder)
    write_json(tmp_path / "anna.json", OWN | {"sae": own})
    write_json(tmp_path / "ben.json", notes({"latent": 0, "name": "red"}, sae=own))
    files = [str(tmp_path / "anna.json"), str(tmp_path / "ben.json")]
    assert patchlens(["notes", *files, "--sae", str(folder), "--out", str(tmp_path / "team")]) == 0
    assert "3 concepts with notes (2 with a name of people's own)" in capsys.readouterr().out
    assert ConceptIndex.from_pretrained(folder).notes == {}
    team = ConceptIndex.beside(tmp_path / "team")  # with a copy of the SAE, whose hash it names
    assert team.names[0] == "red"
    assert team.notes[0].note == "two lines,\nof a note"
    saved = str(tmp_path / "team.json")
    assert patchlens(["notes", "--sae", str(tmp_path / "team"), "--save", saved]) == 0
    assert index.with_notes(saved, by_number=True).notes == team.notes
    assert patchlens(["notes", files[0], "--sae", str(folder)]) == 0
    assert ConceptIndex.beside(folder).names[0] == "bright red"


def test_the_command_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="nothing to do"):
        patchlens(["notes", "--sae", "bundled"])
    write_json(tmp_path / "a.json", OWN)
    with pytest.raises(SystemExit, match=r"another SAE.*--by-number"):
        patchlens(["notes", str(tmp_path / "a.json")])
