"""From what a person asks to the text that a vision-language model expects.

Knows processors' chat templates and image slots; knows no models. The wording is never changed.
"""

from typing import Any


def image_slot(processor: Any) -> str:
    """The text that stands for a picture in this processor's prompts, such as "<image>"."""
    slot = getattr(processor, "image_token", None)
    return str(slot) if slot is not None else "<image>"


def prompt_text(processor: Any, prompt: str, model_type: str, answer_start: str = "") -> str:
    """The whole text for one picture: `prompt` as it stands if it has the image slot, else inside
    the chat template; then `answer_start`, with which the answer begins.

    Raises ValueError for a prompt with several slots, or with none where there is no template.
    """
    slot = image_slot(processor)
    n_slots = prompt.count(slot)
    if n_slots > 1:
        raise ValueError(
            f"the prompt has {n_slots} image slots ({slot}), expected one picture; remove the others"
        )
    if n_slots == 1:
        text = prompt
    elif getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
    elif model_type == "paligemma":
        text = slot + prompt  # PaliGemma's prompts are the picture and then plain words
    else:
        raise ValueError(
            f"the prompt has no image slot and this model's processor no chat template; write {slot} "
            f"where the picture belongs, as in 'USER: {slot} {prompt[:40]} ASSISTANT:'"
        )
    if answer_start:
        text += answer_start if text[-1:].isspace() else f" {answer_start}"
    return text
