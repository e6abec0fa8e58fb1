"""What the server answers to the lens, without Gradio."""

import base64
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sae.ui.analysis import Analyst, check_match
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch
from sae.ui.examples import EXAMPLES, drawing_box, picture_of
from sae.ui.frame import facts
from sae.ui.uploads import uploaded_file
from sae.views.code import to_dense, unpack
from sae.views.ranking import N_LEADING
from sae.world.scenes import Scene, SceneObject, scene_to_json
from tests.small_page import D_SAE, small_backbone, small_sae, small_world


@pytest.fixture(scope="module")
def desk() -> ConceptsDesk:
    backbone, sae, index = small_world()
    analyst = Analyst(backbone, sae)
    return ConceptsDesk(analyst, Catalogue(index, D_SAE, analyst.grid))


def ask(desk: ConceptsDesk, way: str = "open", **asked: object) -> dict:
    """What the browser hears of the desk."""
    dispatch = Dispatch()
    desk.offer(dispatch)
    return dispatch.ask({"way": way, **asked})


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def test_start_is_a_whole_example_and_plain_json(desk):
    answer = desk.start()
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["view"]["patches"] == []
    assert answer["view"]["concept"] is None
    assert answer["source"]["link"] == f"ex:{EXAMPLES[0].name}"
    assert len(json.dumps(answer)) < 400_000


@pytest.mark.parametrize("architecture", ["topk", "relu"])
def test_the_code_that_is_sent_is_the_sae_of_the_patches(architecture):
    backbone = small_backbone()
    sae = small_sae(backbone, 256, architecture)
    analyst = Analyst(backbone, sae)
    image = picture_of(EXAMPLES[1].scene)
    desk = ConceptsDesk(analyst, Catalogue(None, 256, analyst.grid))
    answer = ask(desk, ticket=4, kind="example", data=EXAMPLES[1].name)
    assert answer["ticket"] == 4
    tokens = backbone.activations([image], -2)[0]
    with torch.no_grad():
        dense = sae.encode(torch.cat([tokens[1:], tokens[:1]]))
        x_hat = sae(torch.cat([tokens[1:], tokens[:1]]))
    kept = dense.topk(64).values[:, -1:] if architecture == "relu" else 0
    expected = torch.where(dense >= kept, dense, 0).numpy()
    sent = to_dense(unpack(answer["code"]), 256)
    assert np.abs(sent - expected).max() <= expected.max() / 500
    errors = np.frombuffer(base64.b64decode(answer["error"]), np.float32)
    assert np.allclose(
        errors,
        (torch.cat([tokens[1:], tokens[:1]]) - x_hat).square().sum(-1).detach().numpy(),
        rtol=1e-3,
    )


def test_what_leads_is_never_always_on_and_of_three_names(desk):
    for example in EXAMPLES:
        answer = ask(desk, ticket=1, kind="example", data=example.name)
        slots, known = answer["leading"], answer["concepts"]
        assert 1 <= len(slots) <= N_LEADING
        assert not set(slots) & set(known["dense"])
        names = [known["names"][slot] for slot in slots]
        assert len({name for name in names if name}) == sum(map(bool, names))


def test_every_example_composes_and_has_its_own_name(desk):
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES)
    for example in EXAMPLES:
        assert "problem" not in ask(desk, ticket=1, kind="example", data=example.name)


def test_a_scene_is_opened_and_a_broken_one_is_one_sentence(desk):
    scene = Scene("sand", (SceneObject("camel"),), 3)
    answer = ask(desk, ticket=2, kind="scene", data=scene_to_json(scene))
    assert answer["source"]["link"] == "sc:sand.3~camel.noto.48.48.large.0"
    for broken in ("", "{}", '{"background": "moon"}', None, 7, "[" * 1000):
        problem = ask(desk, ticket=3, kind="scene", data=broken)
        assert problem["ticket"] == 3
        assert problem["problem"].count(".") >= 1


@pytest.mark.parametrize(
    "request_",
    [{}, {"kind": "shell", "data": "x"}, {"ticket": "${1}"}, {"kind": ["x"], "data": {}}],
)
def test_nonsense_requests_are_answered(desk, request_):
    assert set(ask(desk, **{"ticket": 1, **request_})) == {"ticket", "problem"}


def test_an_upload_is_read_only_from_the_upload_folder(desk, folder, tmp_path):
    Image.new("RGB", (200, 100), (250, 10, 10)).save(folder / "a.png")
    answer = ask(desk, ticket=1, kind="upload", data={"path": str(folder / "a.png")})
    assert answer["source"] == {"kind": "upload"}
    assert answer["box"] == pytest.approx([0.25, 0, 0.75, 1], abs=0.01)
    outside = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(outside)
    (folder / "link.png").symlink_to(outside)
    for claimed in (
        str(outside),
        str(folder / ".." / "secret.png"),
        str(folder / "link.png"),
        str(folder),
        "a.png",
        "http://127.0.0.1/a.png",
        "/etc/passwd",
        "",
        "\0",
        None,
        7,
        {"path": "/etc/passwd"},
    ):
        assert uploaded_file(claimed) is None
        problem = ask(desk, ticket=1, kind="upload", data={"path": claimed})
        assert "did not arrive" in problem["problem"]


def test_a_text_file_named_png_is_one_sentence(desk, folder):
    (folder / "notes.png").write_text("hello")
    problem = ask(desk, ticket=1, kind="upload", data={"path": str(folder / "notes.png")})
    assert "picture" in problem["problem"]
    assert str(folder) not in problem["problem"]


def test_a_failing_model_is_one_sentence(desk, monkeypatch):
    def broken(_image: object) -> None:
        raise RuntimeError("out of memory at 0x1")

    monkeypatch.setattr(desk.analyst, "analyse", broken)
    problem = ask(desk, ticket=1, kind="scene", data=scene_to_json(Scene("sky")))
    assert "try another" in problem["problem"]
    assert "0x1" not in problem["problem"]


def test_link_answers_carry_view_and_misfits(desk):
    answer = desk.link({"v": "1", "img": "ex:bus", "p": "3-5", "z": "9", "rank": "mean"})
    assert answer["view"] == {
        "patches": [3, 4, 5],
        "concept": 9,
        "rank": "mean",
        "scale": "dataset",
        "card": None,
    }
    assert answer["misfits"] == []
    stale = desk.link({"img": "ex:gone"})
    assert stale["source"]["name"] == EXAMPLES[0].name
    assert stale["view"]["patches"] == []
    assert len(stale["misfits"]) == 1


def test_a_link_with_switches_alone_opens_the_first_example_with_them(desk):
    start = desk.link({})["view"]
    view = desk.link({"v": "1", "rank": "mean", "scale": "image"})["view"]
    assert view == {**start, "rank": "mean", "scale": "image"}


def test_cards_and_icons_take_only_latents(desk):
    card = desk.catalogue.card(5)
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert set(card["exemplars"]) == {"top", *(f"tenth{i}" for i in range(10))}
    assert all(e["image"] in card["images"] for rows in card["exemplars"].values() for e in rows)
    for nonsense in (-1, D_SAE, 1e9, True, "5", None, [5], {}):
        assert set(ask(desk, "card", latent=nonsense)) == {"problem"}
    assert set(ask(desk, "icons", latents=[1, 2])["icons"]) == {"1", "2"}
    assert set(desk.catalogue.icons([1, 2, -4, "x", 9999])) == {"1", "2"}


def test_without_an_index_cards_still_open():
    bare = Catalogue(None, D_SAE, (12, 12))
    assert bare.card(3)["figures"] is None
    assert bare.icons([3]) == {}


def test_mismatched_models_are_named():
    backbone = small_backbone()
    sae = small_sae(backbone)
    with pytest.raises(ValueError, match=rf"index describes {D_SAE} latents, the SAE has 99"):
        Catalogue(small_world()[2], 99, (12, 12))
    narrow = type("Narrow", (), {"d_model": 16, "id": "small", "family": "clip"})()
    with pytest.raises(
        ValueError, match=r"width 32 .* gives width 16; start with --backbone small"
    ):
        check_match(narrow, sae)


def test_the_drawing_box_has_every_kind_and_background():
    box = drawing_box()
    assert len(box["kinds"]) <= box["columns"] * box["rows_per_style"]
    assert json.dumps(box)
    assert all(one["picture"].startswith("data:image/webp") for one in box["backgrounds"])


def test_an_sae_of_the_summary_token_opens_on_it_and_says_so():
    backbone = small_backbone()
    sae = small_sae(backbone)
    ref = dataclasses.replace(sae.cfg.backbone, tokens="cls")
    sae.cfg = dataclasses.replace(sae.cfg, backbone=ref)
    analyst = Analyst(backbone, sae)
    desk = ConceptsDesk(analyst, Catalogue(None, D_SAE, analyst.grid))
    start = desk.start()
    assert start["code"]["places"] == analyst.n_patches + 1
    assert start["view"]["rank"] == "cls"
    assert desk.link({"img": "ex:tiger"})["view"]["rank"] == "cls"
    assert desk.link({"img": "ex:tiger", "rank": "max"})["view"]["rank"] == "max"
    assert "trained on the summary token" in facts(backbone, sae, None)["warning"]


def test_an_exemplar_opens_as_a_picture_and_by_its_link(desk):
    latent = int(np.argmax(desk.catalogue.index.max_activation))
    shown = desk.catalogue.card(latent)["exemplars"]["top"][0]
    assert shown["kept"] is True
    number = int(shown["image"])
    answer = ask(desk, ticket=4, kind="exemplar", data=number)
    assert answer["source"]["link"] == f"ix:{number}"
    assert answer["picture"]["alt"] == shown["label"]
    assert latent in unpack(answer["code"]).latents
    by_link = desk.link({"v": "1", "img": f"ix:{number}", "z": str(latent)})
    assert by_link["code"] == answer["code"]
    assert by_link["view"]["concept"] == latent
    assert by_link["misfits"] == []
    copy = desk.picture({"kind": "exemplar", "data": number})
    assert copy.mode == "RGB"
    for nonsense in (-1, 10**9, "0", None, True, [number], 1.5):
        assert set(ask(desk, ticket=5, kind="exemplar", data=nonsense)) == {"ticket", "problem"}
    for unknown in ("ix:", "ix:-1", "ix:1e3", "ix:999999999", "ix:1234567890", "ix:x", "IX:1"):
        stale = desk.link({"img": unknown})
        assert stale["source"]["kind"] == "example"
        assert len(stale["misfits"]) == 1


def test_an_index_without_pictures_offers_none_of_them(desk, monkeypatch):
    monkeypatch.setattr(type(desk.catalogue.index), "has_thumbnail", lambda *_: False)
    card = desk.catalogue.card(5)
    assert not any(one["kept"] for row in card["exemplars"].values() for one in row)
    image = next(one["image"] for row in card["exemplars"].values() for one in row)
    problem = ask(desk, ticket=1, kind="exemplar", data=int(image))
    assert "keeps no copy" in problem["problem"]
