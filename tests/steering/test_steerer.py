"""The Steerer on the bundled models: what it answers, what it refuses, how it stops."""

import contextvars
import json
import threading
from dataclasses import replace

import pytest
import torch

from sae.steering import Edit, Scope, SteerRequest
from sae.steering.doses import has_word
from tests.steering.parts import CAT, PROMPT


def test_both_texts_come_from_one_call(steerer, picture):
    captions = steerer.generate(picture, PROMPT, edits={CAT: 2.0}, mode="set", error_term=True)
    assert captions.original == "a zebra on grass"
    assert has_word(captions.steered, "cat")
    assert captions.control is None
    assert captions.changed
    original, steered = captions
    assert (original, steered) == (captions.original, captions.steered)
    assert json.loads(json.dumps(captions.to_json()))["original"] == captions.original


def test_all_texts_come_from_one_batch_and_keep_to_the_limit(steerer, prepared, monkeypatch):
    model, batches = steerer.vlm.model, []
    generate = model.generate

    def counted(**inputs):
        output = generate(**inputs)
        new = output.sequences[:, inputs["input_ids"].shape[1] :]
        batches.append(tuple(new.shape))
        return output

    monkeypatch.setattr(model, "generate", counted)
    steerer.generate(prepared, edits={CAT: 4.0}, control=True, max_new_tokens=7)
    assert batches == [(3, 7)]


def test_strengths_are_multiples_of_the_maximum_unless_raw(steerer, prepared):
    limit = float(steerer.max_activation[CAT])
    by_max = steerer.generate(prepared, edits={CAT: 2.0})
    raw = steerer.generate(prepared, edits={CAT: 2.0 * limit}, units="raw")
    assert by_max == raw
    assert steerer.raw_strength(Edit(CAT, "set", 2.0)) == pytest.approx(2 * limit)
    assert steerer.raw_strength(Edit(CAT, "scale", 2.0)) == 2.0


def test_no_edit_gives_the_same_text_and_no_change_of_the_next_token(steerer, prepared):
    captions = steerer.generate(prepared)
    assert captions.original == captions.steered
    assert captions.relative_change == 0
    answer = steerer.next_tokens(prepared)
    assert (answer.gained, answer.lost, answer.kl) == ([], [], 0.0)


def test_the_plain_replacement_of_the_paper_changes_even_without_edits(steerer, prepared):
    found = prepared.activations
    replaced = found.edited([], error_term=False)
    torch.testing.assert_close(replaced, steerer.sae(found.x).detach())
    assert 0.5 < prepared.explained < 1


def test_the_paper_counts_every_token_and_a_region_only_its_own(steerer, prepared):
    region = Scope("region", box=(0.5, 0.5, 1, 1))
    edits = [Edit(CAT, "set", 4.0, scope=region), Edit(CAT, "only", scope=region)]
    captions = steerer.generate(prepared, edits=edits, control=True)
    assert has_word(captions.steered, "cat")
    assert has_word(captions.steered, "zebra")
    assert captions.control == captions.original
    assert captions.control_latent != CAT


def test_next_tokens_gained_and_lost(steerer, prepared):
    answer = steerer.next_tokens(
        prepared, edits={CAT: 4.0}, answer_start="a", words=["cat", "zebra"]
    )
    assert answer.gained[0].text == "cat"
    assert answer.lost[0].text == "zebra"
    cat, zebra = answer.words
    assert cat.change == pytest.approx(answer.gained[0].change)
    assert zebra.before > 0.9 > zebra.after
    assert answer.kl > 1
    assert [row.after for row in answer.top] == sorted((r.after for r in answer.top), reverse=True)


def test_the_tower_before_the_layer_is_not_run_again(steerer, prepared, monkeypatch):
    ran = []
    for number in range(3):
        layer = steerer.vlm.layers[number]
        attention = layer.self_attn
        monkeypatch.setattr(
            attention,
            "forward",
            lambda *a, n=number, f=attention.forward, **k: ran.append(n) or f(*a, **k),
        )
    steerer.next_tokens(prepared, edits={CAT: 1.0})
    steerer.generate(prepared, edits={CAT: 1.0}, max_new_tokens=3)
    other = prepared.with_prompt("how many objects ?")
    steerer.generate(other, edits={CAT: 1.0}, max_new_tokens=3)
    assert ran == []
    assert other.kept is prepared.kept


def test_a_stream_grows_to_what_generate_says(steerer, prepared):
    request = SteerRequest(PROMPT, (Edit(CAT, "set", 2.0),), max_new_tokens=12)
    seen = list(steerer.stream(prepared, request))
    whole = steerer.generate(prepared, edits=request.edits, max_new_tokens=12, control=True)
    assert seen[-1] == whole
    assert len(seen) > 3
    for before, after in zip(seen, seen[1:], strict=False):
        assert after.steered.startswith(before.steered)
        assert not before.done


def test_a_stopped_stream_keeps_its_text_and_writes_no_more(steerer, prepared):
    request = SteerRequest(PROMPT, (Edit(CAT, "set", 4.0),), max_new_tokens=256)
    stream = steerer.stream(prepared, request)
    seen = []
    for captions in stream:
        seen.append(captions)
        if len(seen) == 3:
            stream.stop()
    assert 3 <= len(seen) < 20
    assert not seen[-1].done
    assert seen[-1].steered.startswith(seen[2].steered)
    assert threading.active_count() == len(threading.enumerate())


def test_leaving_the_loop_ends_the_writing(steerer, prepared):
    request = SteerRequest(PROMPT, (Edit(CAT, "set", 4.0),), max_new_tokens=256)
    before = threading.active_count()
    iterator = iter(steerer.stream(prepared, request))
    next(iterator)
    iterator.close()
    assert threading.active_count() == before


def test_threads_do_not_see_each_others_edits(steerer, prepared):
    said: dict[int, str] = {}

    def work(number: int) -> None:
        edits = {CAT: 2.0} if number % 2 else {}
        said[number] = steerer.generate(prepared, edits=edits, max_new_tokens=10).steered

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, n)) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {said[n] for n in (0, 2, 4)} == {"a zebra on grass"}
    assert all(has_word(said[n], "cat") for n in (1, 3, 5))
    assert not any("forward" in layer.__dict__ for layer in steerer.vlm.layers)


def test_a_request_decides_the_control(steerer, prepared):
    request = SteerRequest(PROMPT, (Edit(CAT, "set", 1.0),), max_new_tokens=2)
    latents = set()
    for seed in (0, 0, 1):
        *_, last = steerer.stream(prepared, replace(request, control_seed=seed))
        latents.add(last.control_latent)
    assert len(latents) == 2
