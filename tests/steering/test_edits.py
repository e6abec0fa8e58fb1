"""Edits of latents against latents written out densely, and requests that are refused."""

import json
from dataclasses import replace

import pytest
import torch

from sae.backbones.vlm_layout import PatchLayout
from sae.steering.activations import Activations, control_change
from sae.steering.edits import (
    MAX_PROMPT,
    MODES,
    Edit,
    Scope,
    SteerRequest,
    as_edits,
    insert,
    suppress,
)
from tests.steering.parts import dense_edit, firing, random_sae

ARCHITECTURES = ("relu", "topk", "batch_topk", "jumprelu")


def square_layout(rows: int = 1) -> PatchLayout:
    """CLS and 2 × 2 patches; further rows are tiles of the lower right quarter."""
    centres = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    tile = 0.5 + centres / 2
    return PatchLayout(torch.stack([centres, *[tile] * (rows - 1)]), (2, 2), 1, True)


def activations(sae, hidden, *, layout=square_layout, maximum=None):
    return Activations(hidden, sae, layout, maximum)


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("error_term", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_what_the_formula_says(hidden, mode, architecture, error_term):
    sae = random_sae(16, 0, architecture=architecture)
    latent = firing(sae, hidden)[0]
    strength = 0.0 if mode in ("ablate", "only") else 1.5
    scope = Scope("region", patches=(1, 2))
    reach = torch.tensor([[False, False, True, True, False]])
    edit = Edit(latent, mode, strength, "raw", scope)
    got = activations(sae, hidden).edited([edit], error_term=error_term)
    wanted = dense_edit(sae, hidden, latent, mode, strength, reach, error_term=error_term)
    torch.testing.assert_close(got, wanted)
    assert (got[~reach] == hidden[~reach]).all() or not error_term
    assert not torch.allclose(got[reach], hidden[reach])


def test_an_empty_edit_is_the_same_tensor_and_an_idle_one_the_same_bits(hidden):
    sae = random_sae(16, 0)
    found = activations(sae, hidden)
    assert found.edited([]) is hidden
    idle = int((sae.encode(hidden).sum((0, 1)) == 0).nonzero()[0])
    assert torch.equal(found.edited([Edit(idle, "ablate")]), hidden)
    assert torch.equal(found.edited([Edit(firing(sae, hidden)[0], "scale", 1.0)]), hidden)


def test_several_edits_apply_in_order(hidden):
    sae = random_sae(16, 0)
    a, b = firing(sae, hidden)[:2]
    edits = [Edit(a, "set", 2.0, "raw"), Edit(b, "ablate"), Edit(a, "add", 1.0, "raw")]
    z = sae.encode(hidden)
    new = z.clone()
    new[..., a], new[..., b] = 3.0, 0.0
    wanted = hidden + (new - z) @ sae.W_dec
    torch.testing.assert_close(activations(sae, hidden).edited(edits), wanted)


def test_only_keeps_what_other_edits_name(hidden):
    sae = random_sae(16, 0)
    a, b = firing(sae, hidden)[:2]
    got = activations(sae, hidden).edited(
        [Edit(a, "only"), Edit(b, "set", 4.0, "raw")], error_term=False
    )
    new = torch.zeros(1, 5, sae.cfg.d_sae)
    new[..., a], new[..., b] = sae.encode(hidden)[..., a], 4.0
    torch.testing.assert_close(got, sae.decode(new))


def test_units_are_multiples_of_the_latents_own_maximum(hidden):
    sae = random_sae(16, 0)
    maximum = torch.arange(48.0)
    found = activations(sae, hidden, maximum=maximum)
    assert torch.equal(
        found.edited([Edit(7, "set", 0.5)]), found.edited([Edit(7, "set", 3.5, "raw")])
    )
    with pytest.raises(ValueError, match="units='raw'"):
        activations(sae, hidden).edited([Edit(7, "set", 0.5)])


@pytest.mark.parametrize(
    ("scope", "reached"),
    [
        (Scope(), [1, 1, 1, 1, 1]),
        (Scope("patches"), [0, 1, 1, 1, 1]),
        (Scope("cls"), [1, 0, 0, 0, 0]),
        (Scope("region", box=(0.5, 0, 1, 1)), [0, 0, 1, 0, 1]),
        (Scope("region", box=(0.8, 0.8, 0.85, 0.85)), [0, 0, 0, 0, 1]),
        (Scope("region", patches=(0, 3)), [0, 1, 0, 0, 1]),
    ],
)
def test_scopes_reach_their_tokens_only(hidden, scope, reached):
    change = activations(random_sae(16, 0), hidden).change([Edit(3, "set", 9.0, "raw", scope)])
    assert (change[0].norm(dim=-1) > 0).tolist() == [bool(r) for r in reached]


def test_a_threshold_reaches_tokens_on_which_the_latent_fires(hidden):
    sae = random_sae(16, 0)
    latent = firing(sae, hidden)[0]
    z = sae.encode(hidden)[0, :, latent]
    bound = float(z.median())
    edit = Edit(latent, "set", -2.0, "raw", Scope(above=bound))
    change = activations(sae, hidden).change([edit])
    assert torch.equal(change[0].norm(dim=-1) > 0, z > bound)


def test_tokens_that_the_sae_never_saw_are_left_alone(hidden):
    sae = random_sae(16, 0, tokens="patches")
    change = activations(sae, hidden).change([Edit(3, "set", 9.0, "raw")], error_term=False)
    assert not change[0, 0].any()
    assert change[0, 1:].any()


def test_a_region_reaches_the_same_place_in_every_tile():
    layout = square_layout(rows=2)
    assert layout.overview == 0
    assert layout.tokens_of_patches([3]).int().tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1]]
    assert not layout.tokens_of_patches([0])[1].any()


def test_the_control_changes_each_token_by_as_much_in_one_direction(hidden):
    sae = random_sae(16, 0)
    change = activations(sae, hidden).change([Edit(3, "set", 2.0, "raw", Scope("patches"))])
    control = control_change(sae, change, 5)
    torch.testing.assert_close(control.norm(dim=-1), change.norm(dim=-1))
    direction = sae.W_dec[5] / sae.W_dec[5].norm()
    torch.testing.assert_close(control @ direction, change.norm(dim=-1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Edit(-1),
        lambda: Edit(1.5),
        lambda: Edit(True),
        lambda: Edit(1, "boost"),
        lambda: Edit(1, "set", float("nan")),
        lambda: Edit(1, "set", 1e30),
        lambda: Edit(1, "set", "2"),
        lambda: Edit(1, units="watts"),
        lambda: Scope("sky"),
        lambda: Scope("region"),
        lambda: Scope("region", patches=(1,), box=(0, 0, 1, 1)),
        lambda: Scope("all", patches=(1,)),
        lambda: Scope("region", box=(0, 0, 2, 1)),
        lambda: Scope("region", box=(0.5, 0, 0.5, 1)),
        lambda: Scope("region", patches=(-1,)),
        lambda: Scope(above=float("inf")),
        lambda: SteerRequest(""),
        lambda: SteerRequest("x" * (MAX_PROMPT + 1)),
        lambda: SteerRequest(None),
        lambda: SteerRequest("x", max_new_tokens=0),
        lambda: SteerRequest("x", max_new_tokens=10**6),
        lambda: SteerRequest("x", error_term="no"),
        lambda: SteerRequest("x", control_seed=-1),
        lambda: SteerRequest("x", edits=(3,)),
        lambda: SteerRequest.from_json([]),
        lambda: SteerRequest.from_json({"prompt": "x", "steer": 1}),
        lambda: SteerRequest.from_json({"prompt": "x", "edits": "all"}),
        lambda: SteerRequest.from_json({"prompt": "x", "edits": [{"strength": 1}]}),
        lambda: SteerRequest.from_json({"prompt": "x", "edits": [{"latent": 1, "scope": 3}]}),
        lambda: SteerRequest.from_json(
            {"prompt": "x", "edits": [{"latent": 1, "scope": {"where": "region", "box": 3}}]}
        ),
        lambda: SteerRequest.from_json(
            {"prompt": "x", "edits": [{"latent": 1, "scope": {"patches": ["a"]}}]}
        ),
    ],
)
def test_bad_requests_are_one_clear_value_error(make):
    with pytest.raises(ValueError, match=r"\w{3}"):
        make()


def test_a_request_survives_json():
    request = SteerRequest(
        "describe the image",
        (
            Edit(624, "set", 4.0, "max", Scope("region", patches=(1, 2, 3))),
            Edit(12, "clamp", 0.5, "raw", Scope("region", box=(0, 0.25, 0.5, 1), above=0.1)),
            Edit(7, "only"),
        ),
        error_term=False,
        answer_start="a",
        control_seed=9,
    )
    assert SteerRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_edits_from_a_mapping_share_mode_units_and_scope():
    edits = as_edits({3: 2, 9: 0.5}, "add", "raw", Scope("cls"))
    assert edits == (
        Edit(3, "add", 2.0, "raw", Scope("cls")),
        Edit(9, "add", 0.5, "raw", Scope("cls")),
    )


def test_thresholds_have_units_whatever_the_mode(hidden):
    sae = random_sae(16, 0)
    latent = firing(sae, hidden)[0]
    z = sae.encode(hidden)[0, :, latent]
    bound = float(z.median())
    found = activations(sae, hidden, maximum=torch.full((48,), 2.0))
    change = found.change([Edit(latent, "ablate", scope=Scope(above=bound / 2))])
    assert torch.equal(change[0].norm(dim=-1) > 0, z > bound)


def test_edits_that_a_number_format_cannot_hold_are_refused(hidden):
    sae = random_sae(16, 0)
    found = activations(sae, hidden.half())
    with pytest.raises(ValueError, match=r"too strong for torch.float16"):
        found.edited([Edit(3, "set", 1e4, "raw"), Edit(3, "scale", 1e4)])


def test_recipes():
    assert insert(5) == (Edit(5, "set", 4.0),)
    here = Scope("region", patches=(1, 2))
    assert insert(5, [1, 2], 2.0) == (Edit(5, "set", 2.0, scope=here), Edit(5, "only", scope=here))
    fires = Scope(above=0.0)
    assert suppress(5) == suppress([5]) == (Edit(5, "set", -1.0, scope=fires),)
    assert suppress([5, 7]) == tuple(Edit(latent, "set", -1.0, scope=fires) for latent in (5, 7))
    assert suppress(range(8)) == tuple(Edit(n, "set", -0.25, scope=fires) for n in range(8))
    assert suppress([5, 7], 0.0)[1] == Edit(7, "set", 0.0, scope=fires)


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm"])
def test_saes_that_normalise_their_input_change_the_raw_activations(hidden, norm):
    sae = random_sae(16, 0)
    sae.cfg = replace(sae.cfg, input_norm=norm)
    latent = int(sae.encode(hidden).sum((0, 1)).argmax())
    got = activations(sae, hidden).edited([Edit(latent, "set", 3.0, "raw")])
    z = sae.encode(hidden)
    new = z.clone()
    new[..., latent] = 3.0
    wanted = hidden + sae.decode(new, like=hidden) - sae.decode(z, like=hidden)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
