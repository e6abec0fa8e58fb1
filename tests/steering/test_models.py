"""Every kind of model, as a small random one of the real class: edits reach the text and leave."""

import copy

import pytest
import torch

from sae.backbones.interception import editing
from sae.backbones.vlm import VisionLanguage
from sae.backbones.vlm_generate import write
from sae.steering import Edit, Scope, Steerer
from tests.backbones.pictures import noise
from tests.steering.parts import firing, random_sae
from tests.steering.tiny_vlms import VLMS, tiny_vlm

IMAGE = noise(96, 64)
pytestmark = pytest.mark.filterwarnings(
    # PaliGemma's own processor copies a tensor into a numpy array
    "ignore:__array__ implementation:DeprecationWarning"
)


@pytest.fixture(params=list(VLMS), scope="module")
def tiny(request):
    return tiny_vlm(request.param)


@pytest.fixture
def steerer(tiny) -> Steerer:
    return Steerer(tiny.model, tiny.processor, random_sae(32, tiny.layer))


@torch.no_grad()
def plain_logits(tiny, inputs):
    """What the model says without any of our code around it."""
    return tiny.model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]


def strong(prepared, steerer, scope=None) -> Edit:
    latent = firing(steerer.sae, prepared.activations.x)[0]
    return Edit(latent, "set", 30.0, "raw", scope or Scope())


def test_the_tower_is_found_and_read_where_the_model_reads_it(tiny, steerer):
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    layout = prepared.activations.layout()
    assert steerer.vlm.reads[-1] == tiny.layer
    assert layout.has_cls == tiny.has_cls
    if tiny.rows:
        assert prepared.kept.hidden.shape == (tiny.rows, 16 + tiny.has_cls, 32)
    else:
        assert prepared.kept.hidden.shape == (6 * 8, 32)


def test_empty_edits_change_nothing_and_edits_equal_a_hook_on_the_whole_model(tiny, steerer):
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    before = plain_logits(tiny, prepared.inputs)  # recorders are in place from here on
    assert torch.equal(steerer.run(prepared, prepared.activations.edited([])), before)
    edited = prepared.activations.edited([strong(prepared, steerer)])
    with editing(steerer.vlm.layers[tiny.layer], lambda _h: edited):
        wanted = plain_logits(tiny, prepared.inputs)
    with torch.no_grad():
        assert torch.equal(steerer.run(prepared, edited), wanted)
    assert not torch.allclose(wanted, before, atol=1e-3)
    assert torch.equal(plain_logits(tiny, prepared.inputs), before), "an edit left a trace"
    assert not any("forward" in layer.__dict__ for layer in steerer.vlm.layers)


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_an_ordinary_hook_after_a_forward_does_nothing_and_ours_works(name):
    """transformers 5 records hidden_states with hooks of its own, put in at the first forward: one
    that is added later runs after them, and the language model reads what they recorded."""
    tiny = tiny_vlm(name)
    steerer = Steerer(tiny.model, tiny.processor, random_sae(32, tiny.layer))
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    before = plain_logits(tiny, prepared.inputs)
    edited = prepared.activations.edited([strong(prepared, steerer)])
    layer = steerer.vlm.layers[tiny.layer]
    hook = layer.register_forward_hook(lambda _m, _a, _h: edited)
    try:
        assert torch.equal(plain_logits(tiny, prepared.inputs), before)
    finally:
        hook.remove()
    with editing(layer, lambda _h: edited):
        wanted = plain_logits(tiny, prepared.inputs)
    assert not torch.allclose(wanted, before, atol=1e-3)
    with torch.no_grad():
        assert torch.equal(steerer.run(prepared, edited), wanted)


def test_rows_of_one_batch_hold_different_edits(tiny, steerer):
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    found, edit = prepared.activations, strong(prepared, steerer)
    other = Edit(edit.latent, "set", -30.0, "raw")
    rows = [found.edited(edits) for edits in ([], [edit], [other])]
    with torch.no_grad():
        together = steerer.run(prepared, torch.cat(rows))
        alone = torch.cat([steerer.run(prepared, row) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert not torch.allclose(together[1], together[2], atol=1e-3)


def test_generation_with_cache_writes_what_the_edited_model_writes(tiny, steerer):
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    found, edit = prepared.activations, strong(prepared, steerer)
    edited = found.edited([edit])
    rows, _ = write(steerer.writing(prepared, [prepared.kept.hidden, edited], 6))
    start = prepared.inputs["input_ids"].shape[1]
    with editing(steerer.vlm.layers[tiny.layer], lambda _h: edited):
        wanted = tiny.model.generate(**prepared.inputs, max_new_tokens=6, do_sample=False)
    plain = tiny.model.generate(**prepared.inputs, max_new_tokens=6, do_sample=False)
    for row, reference in zip(rows, (plain, wanted), strict=True):
        whole = [token for token in reference[0, start:].tolist() if token != 3]
        assert row == whole
    assert rows[0] != rows[1]


def test_a_region_of_the_picture_reaches_the_text(tiny, steerer):
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    scope = Scope("region", box=(0, 0, 0.5, 0.5))
    change = prepared.activations.change([strong(prepared, steerer, scope)])
    share = float((change.norm(dim=-1) > 0).float().mean())
    assert 0.1 < share < 0.4
    logits = steerer.run(prepared, prepared.activations.plus(change))
    assert not torch.allclose(logits[0], prepared.logits, atol=1e-4)


def test_bfloat16(tiny):
    model = copy.deepcopy(tiny.model).to(torch.bfloat16)
    steerer = Steerer(model, tiny.processor, random_sae(32, tiny.layer))
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    with torch.no_grad():
        before = model(**prepared.inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
        empty = steerer.run(prepared, prepared.activations.edited([]))
    assert prepared.kept.hidden.dtype == torch.bfloat16
    assert torch.equal(empty, before.float())
    captions = steerer.generate(prepared, edits=[strong(prepared, steerer)], max_new_tokens=5)
    assert captions.changed


def test_a_layer_after_the_last_one_read_is_refused(tiny):
    vlm = VisionLanguage(tiny.model, tiny.processor)
    if tiny.layer == vlm.n_layers - 1:
        assert vlm.resolve_layer(-1) == tiny.layer
    else:
        with pytest.raises(ValueError, match="comes after layer 1"):
            Steerer(tiny.model, tiny.processor, random_sae(32, -1))


def test_an_earlier_layer_runs_the_later_ones(tiny):
    steerer = Steerer(tiny.model, tiny.processor, random_sae(32, 0))
    prepared = steerer.prepare(IMAGE, tiny.prompt)
    edited = prepared.activations.edited([strong(prepared, steerer)])
    with editing(steerer.vlm.layers[0], lambda _h: edited):
        wanted = plain_logits(tiny, prepared.inputs)
    with torch.no_grad():
        assert torch.equal(steerer.run(prepared, edited), wanted)
