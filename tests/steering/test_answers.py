"""Dose ladders and candidates: what they say is what running each edit says."""

import json

import pytest
import torch

from sae.steering import Edit, Scope, SteerRequest
from sae.steering.candidates import candidates, predicted_changes
from sae.steering.doses import distinct_pairs, dose_response, has_word
from sae.steering.edits import python_for
from tests.steering.parts import CAT, PROMPT


def test_a_ladder_is_what_each_dose_says_alone(steerer, prepared):
    request = SteerRequest(PROMPT, (Edit(CAT, "set", 1.0),), max_new_tokens=12)
    ladder = dose_response(steerer, prepared, request, (0, 0.5, 1, 2, 4), word="cat", refine=True)
    for row in ladder.doses:
        edits = {CAT: row.dose} if row.dose else {}
        alone = steerer.generate(prepared, edits=edits, max_new_tokens=12)
        assert row.caption == alone.steered
        assert row.names_word == has_word(row.caption, "cat")
        assert 0 <= row.p_word <= 1
        assert 0 < row.fluency <= 1
    assert ladder.original == ladder.doses[0].caption == "a zebra on grass"
    assert ladder.monotonic
    assert 1 < ladder.flip <= 2
    assert ladder.doses[-1].similarity > ladder.doses[0].similarity
    assert ladder.doses[-1].fluency < ladder.doses[0].fluency, "it loops at four times the maximum"
    json.dumps(ladder.to_json())


def test_words_in_captions():
    assert has_word("Two Hot-dogs, and a cat", "hot dog")
    assert not has_word("a catamaran", "cat")
    assert distinct_pairs([1, 2, 1, 2, 1]) == 0.5
    assert distinct_pairs([1]) == 1


def test_candidates_find_the_latent_and_tell_what_it_does(steerer, prepared):
    found = candidates(steerer, prepared, "cat", answer_start="a", dose=2.0, n=6)
    assert found[0].edit.latent == CAT
    assert found[0].actual == max(row.actual for row in found)
    answer = steerer.next_tokens(prepared, edits=[found[0].edit], answer_start="a", words=["cat"])
    assert found[0].after == pytest.approx(answer.words[0].after, rel=1e-3)
    assert found[0].before == pytest.approx(answer.words[0].before, rel=1e-3)
    lower = candidates(steerer, prepared, "zebra", answer_start="a", less=True, n=4)
    assert lower[0].actual < -1
    only = candidates(steerer, prepared, "cat", answer_start="a", latents=[5, 6])
    assert {row.edit.latent for row in only} == {5, 6}


def test_the_guess_is_the_first_order_change(steerer, prepared):
    """For a small step the predicted change equals what running it gives."""
    p = steerer.prepare(prepared, None, "a")
    token = steerer.word_tokens("cat")
    z = p.activations.code
    firing = int(z.indices[0, 40, 0])
    up, off = predicted_changes(steerer, p, token, 1.0, Scope())
    step = 1e-3
    some = [CAT, firing]
    for latent in some:
        now = p.activations.latents([latent])[..., 0]
        target = float(steerer.max_activation[latent])
        moved = (step * (target - now))[..., None] * steerer.sae.W_dec[latent]
        with torch.no_grad():
            logits = steerer.run(p, p.activations.plus(moved))[0]
        actual = float(logits[token[0]] - p.logits[token[0]]) / step
        assert actual == pytest.approx(float(up[latent]), rel=0.05, abs=0.05)
    assert float(off[firing]) != 0
    quiet = int((steerer.max_activation > 0).nonzero()[0])
    if quiet not in z.indices:
        assert float(off[quiet]) == 0


def test_the_python_says_the_same(steerer, picture, tmp_path, capsys):
    picture.save(tmp_path / "picture.png")
    region = Scope("region", patches=(100, 101), above=0.0)
    edits = (Edit(CAT, "set", 2.0), Edit(7, "clamp", 0.5, "raw", region), Edit(9, "ablate"))
    request = SteerRequest(PROMPT, edits, error_term=False, max_new_tokens=9, answer_start="a")
    code = python_for(request, image=str(tmp_path / "picture.png"))
    exec(compile(code, "snippet", "exec"), {})
    *_, last = steerer.stream(picture, request, control=False)
    assert capsys.readouterr().out.splitlines() == [last.original, last.steered]
