"""Published CoOp and MaPLe files: read without running them, equal to the original's forward."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel

from sae.adaptation.__main__ import main
from sae.adaptation.classifier import classify
from sae.adaptation.files import load_head
from sae.adaptation.published import clip_weights, read_coop, read_maple, read_tensors
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.backbones.prompting_openai import load_openai_weights, transformers_state
from sae.errors import ArtifactError
from tests.adaptation.small import small_parts
from tests.tiny_models import tiny, tiny_tokenizer

CLASSES = ("cat", "dog", "red animal")
N_CTX, DEPTH = 2, 9
VISION, TEXT, PROJ, LAYERS, PATCHES = 768, 512, 512, 12, 196


def block(prefix: str, width: int) -> dict[str, torch.Tensor]:
    """A residual attention block of OpenAI's CLIP, fused, random."""
    shapes = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    made = {prefix + name: torch.randn(shape) * 0.03 for name, shape in shapes.items()}
    for norm in ("ln_1", "ln_2"):
        made[f"{prefix}{norm}.weight"] = 1 + torch.randn(width) * 0.1
        made[f"{prefix}{norm}.bias"] = torch.randn(width) * 0.1
    return made


def original_state() -> dict[str, torch.Tensor]:
    """A MaPLe state dict of the real shapes, in fp16, without its token_prefix and suffix."""
    torch.manual_seed(0)
    state = {
        "image_encoder.class_embedding": torch.randn(VISION) * 0.1,
        "image_encoder.positional_embedding": torch.randn(PATCHES + 1, VISION) * 0.1,
        "image_encoder.proj": torch.randn(VISION, PROJ) * 0.05,
        "image_encoder.conv1.weight": torch.randn(VISION, 3, 16, 16) * 0.02,
        "text_encoder.positional_embedding": torch.randn(77, TEXT) * 0.05,
        "text_encoder.text_projection": torch.randn(TEXT, PROJ) * 0.05,
        "logit_scale": torch.tensor(math.log(100.0)),
    }
    for name, width in (
        ("image_encoder.ln_pre", VISION),
        ("image_encoder.ln_post", VISION),
        ("text_encoder.ln_final", TEXT),
    ):
        state[f"{name}.weight"] = 1 + torch.randn(width) * 0.1
        state[f"{name}.bias"] = torch.randn(width) * 0.1
    for tower, width in (("image_encoder", VISION), ("text_encoder", TEXT)):
        for number in range(LAYERS):
            state |= block(f"{tower}.transformer.resblocks.{number}.", width)
    learner = "prompt_learner."
    state[f"{learner}ctx"] = torch.randn(N_CTX, TEXT) * 0.1
    state[f"{learner}proj.weight"] = torch.randn(VISION, TEXT) * 0.05
    state[f"{learner}proj.bias"] = torch.randn(VISION) * 0.1
    for number in range(DEPTH - 1):
        state[f"{learner}compound_prompts_text.{number}"] = torch.randn(N_CTX, TEXT) * 0.1
        layer = f"{learner}compound_prompt_projections.{number}."
        state[f"{layer}weight"] = torch.randn(VISION, TEXT) * 0.05
        state[f"{layer}bias"] = torch.randn(VISION) * 0.1
    return {name: value.half() for name, value in state.items()}


class Original:
    """The published forward written down once more: sequence first, fused attention, QuickGELU."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.w = {name: value.float() for name, value in state.items()}

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def block(self, x: torch.Tensor, p: str, heads: int, mask: torch.Tensor | None) -> torch.Tensor:
        y, w = self.norm(x, f"{p}ln_1"), self.w
        attended, _ = F.multi_head_attention_forward(
            y, y, y, x.shape[-1], heads, w[f"{p}attn.in_proj_weight"], w[f"{p}attn.in_proj_bias"],
            None, None, False, 0.0, w[f"{p}attn.out_proj.weight"], w[f"{p}attn.out_proj.bias"],
            training=False, need_weights=False, attn_mask=mask,
        )  # fmt: skip
        x = x + attended
        y = F.linear(self.norm(x, f"{p}ln_2"), w[f"{p}mlp.c_fc.weight"], w[f"{p}mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y)
        return x + F.linear(y, w[f"{p}mlp.c_proj.weight"], w[f"{p}mlp.c_proj.bias"])

    def image(self, pixels: torch.Tensor) -> torch.Tensor:
        w, p = self.w, "image_encoder."
        x = F.conv2d(pixels, w[f"{p}conv1.weight"], stride=16).flatten(2).transpose(1, 2)
        cls = w[f"{p}class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1) + w[f"{p}positional_embedding"]
        ctx = F.linear(
            w["prompt_learner.ctx"], w["prompt_learner.proj.weight"], w["prompt_learner.proj.bias"]
        )
        x = torch.cat([x, ctx.expand(len(x), -1, -1)], dim=1)
        x = self.norm(x, f"{p}ln_pre").transpose(0, 1)
        for number in range(LAYERS):
            if 0 < number < DEPTH:
                name = f"prompt_learner.compound_prompt_projections.{number - 1}."
                text = w[f"prompt_learner.compound_prompts_text.{number - 1}"]
                deep = F.linear(text, w[f"{name}weight"], w[f"{name}bias"])
                x = torch.cat([x[:-N_CTX], deep[:, None].expand(-1, x.shape[1], -1)])
            x = self.block(x, f"{p}transformer.resblocks.{number}.", VISION // 64, None)
        return self.norm(x[0], f"{p}ln_post") @ w[f"{p}proj"]

    def text(self, embedded: torch.Tensor, ends: list[int]) -> torch.Tensor:
        """From embeddings of "a photo of a NAME." whose first two words are replaced."""
        w, p = self.w, "text_encoder."
        length = embedded.shape[1]
        ctx = w["prompt_learner.ctx"].expand(len(embedded), -1, -1)
        x = torch.cat([embedded[:, :1], ctx, embedded[:, 1 + N_CTX :]], dim=1)
        x = (x + w[f"{p}positional_embedding"][:length]).transpose(0, 1)
        mask = torch.full((length, length), float("-inf")).triu(1)
        for number in range(LAYERS):
            if 0 < number < DEPTH:
                deep = w[f"prompt_learner.compound_prompts_text.{number - 1}"]
                deep = deep[:, None].expand(-1, x.shape[1], -1)
                x = torch.cat([x[:1], deep, x[1 + N_CTX :]])
            x = self.block(x, f"{p}transformer.resblocks.{number}.", TEXT // 64, mask)
        x = self.norm(x.transpose(0, 1), f"{p}ln_final")
        return x[torch.arange(len(x)), ends] @ w[f"{p}text_projection"]


def test_a_maple_file_of_the_real_shapes_gives_the_originals_logits(tmp_path):
    state = original_state()
    words = len(tiny_tokenizer())
    vision = {"hidden_size": VISION, "intermediate_size": 4 * VISION, "num_hidden_layers": LAYERS}
    vision |= {"num_attention_heads": VISION // 64, "image_size": 224, "patch_size": 16}
    special = {"vocab_size": words, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    config = CLIPConfig(vision_config=vision, text_config=special, projection_dim=PROJ)
    with torch.device("meta"):
        model = CLIPModel(config)
    model = model.to_empty(device="cpu")
    for name, buffer in model.named_buffers():
        buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
        assert name.endswith("position_ids")
    tokenizer = tiny_tokenizer()
    embedding = torch.randn(words, TEXT) * 0.2
    # as torch saves it: with the class names' embeddings, an optimiser and a schedule beside it
    texts = [
        [2, *tokenizer(f"a photo of a {n}", add_special_tokens=False)["input_ids"], 3]
        for n in CLASSES
    ]
    rows = torch.tensor([row + [0] * (8 - len(row)) for row in texts])
    embedded = embedding[rows]
    prefix = {
        "prompt_learner.token_prefix": embedded[:, :1],
        "prompt_learner.token_suffix": embedded[:, 3:],
    }
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    schedule = {"successor": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)}
    folder = tmp_path / "MultiModalPromptLearner"
    folder.mkdir()
    saved = {"state_dict": state | prefix, "epoch": 5, "scheduler": schedule, "val_result": 71.5}
    torch.save(saved | {"optimizer": optimizer.state_dict()}, folder / "model.pth.tar-5")

    tensors = read_tensors(tmp_path)
    assert tensors.keys() == saved["state_dict"].keys()
    missing = load_openai_weights(model, clip_weights(tensors))
    assert missing == ["text_model.embeddings.token_embedding.weight"]
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.copy_(embedding)
    parts = ClipParts(Backbone.from_model(model.requires_grad_(False), tokenizer=tokenizer))
    head = read_maple(tmp_path, parts, CLASSES, tail="")
    assert head.settings["n_ctx"] == N_CTX
    assert head.settings["depth"] == DEPTH
    pixels = torch.randn(1, 3, 224, 224)
    ours = classify(parts, head.classifier(parts), {"pixel_values": pixels})

    original = Original(state)
    with torch.no_grad():
        image = F.normalize(original.image(pixels), dim=-1)
        text = F.normalize(original.text(embedded, [len(row) - 1 for row in texts]), dim=-1)
        expected = original.w["logit_scale"].exp() * image @ text.T
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-3)  # logits of up to 100, fp32

    with torch.no_grad():
        model.visual_projection.weight.mul_(1.1)
    with pytest.raises(ValueError, match="another CLIP"):
        read_maple(tmp_path, parts, CLASSES)


def test_coop_files_with_shared_and_class_specific_context(tmp_path):
    parts = small_parts()
    names = ("cat", "dog")
    for number, shape in enumerate([(3, 32), (2, 3, 32)]):
        ctx = torch.randn(shape).half()
        path = tmp_path / f"model.pth.tar-{number}"
        state = {
            "ctx": ctx,
            "token_prefix": torch.zeros(2, 1, 32),
            "token_suffix": torch.zeros(2, 9, 32),
        }
        torch.save({"state_dict": state, "epoch": 1}, path)
        head = read_coop(path, parts, names, tail="")
        ids = [[2, *parts.words(name), 3] for name in names]
        for row, name in enumerate(names):
            own = ctx.float() if ctx.dim() == 2 else ctx.float()[row]
            embedded = parts.embed(torch.tensor([ids[row]]))
            whole = torch.cat([embedded[:, :1], own[None], embedded[:, 1:]], dim=1)
            end = torch.tensor([whole.shape[1] - 1])
            expected = F.normalize(parts.text_features(whole, end), dim=-1)[0]
            found = head.classifier(parts, names).weights[names.index(name)]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert read_tensors(tmp_path)["ctx"].shape == (2, 3, 32)  # the last epoch of a folder
    with pytest.raises(ValueError, match="contexts of 2 classes"):
        read_coop(path, parts, ("cat", "dog", "two"))


def test_the_command_makes_a_head_folder(tmp_path, capsys):
    clip, classes = tiny("clip").save(tmp_path / "clip"), tmp_path / "classes.txt"
    parts = ClipParts(Backbone.from_pretrained(clip))
    classes.write_text("cat\nred_animal\n\n", encoding="utf-8")
    torch.save({"state_dict": {"ctx": torch.ones(2, 32)}, "epoch": 1}, tmp_path / "model.pth.tar-1")
    words = [str(tmp_path), "--backbone", str(clip), "--classes", str(classes), "--tail", ""]
    words += ["--to", str(tmp_path / "head"), "--method"]
    assert main([*words, "coop"]) == 0
    assert "2 classes" in capsys.readouterr().out
    stored = load_head(tmp_path / "head", parts)
    assert stored.head.class_names == ("cat", "red animal")
    assert torch.equal(stored.head.ctx, torch.ones(2, 32))
    with pytest.raises(SystemExit, match="error: .*expected MaPLe's prompt_learner.ctx"):
        main([*words, "maple"])


def test_files_that_are_something_else_are_refused(tmp_path):
    parts = small_parts()
    path = tmp_path / "model.pth.tar-1"
    torch.save({"weights": 3}, path)
    with pytest.raises(ArtifactError, match="state_dict"):
        read_coop(path, parts, ("cat", "dog"))
    torch.save({"state_dict": {"ctx": torch.zeros(3, 512)}}, path)
    with pytest.raises(ArtifactError, match="for local"):
        read_coop(path, parts, ("cat", "dog"))
    with pytest.raises(ArtifactError, match="MaPLe"):
        read_maple(path, parts, ("cat", "dog"))
    with pytest.raises(ArtifactError, match="no model.pth.tar-N"):
        read_tensors(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no CLIP vision transformer"):
        transformers_state({"visual.layer1.0.conv1.weight": torch.zeros(1)})


class Evil:
    def __reduce__(self):
        return print, ("ran",)


def test_code_in_a_file_is_never_run(tmp_path, capsys):
    path = tmp_path / "model.pth.tar-1"
    torch.save({"state_dict": {"ctx": torch.zeros(1)}, "extra": Evil()}, path)
    with pytest.raises(ArtifactError):
        read_tensors(path)
    assert capsys.readouterr().out == ""
