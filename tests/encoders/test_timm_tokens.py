"""Plain vision transformers of timm behind our contract of token encoders."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from fakes.random_weights import randomise

from segatlas.build.network import shapes_only
from segatlas.encoders.spec import create_token_encoder
from segatlas.encoders.timm_tokens import MODULES, TimmTokenEncoder, is_plain
from segatlas.errors import UsageError

# Name -> prefix tokens: a class token, registers, a distilled token, or none.
PLAIN = {
    "vit_small_patch14_dinov2": 1,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_xsmall_patch16_clip_224": 1,
    "vit_small_patch16_dinov3": 5,
    "deit_tiny_distilled_patch16_224": 2,
    "eva02_tiny_patch14_224": 1,
    "vit_medium_patch16_gap_240": 0,
    "test_vit3": 1,
}
each_plain = pytest.mark.parametrize("name", PLAIN)


def pair(name: str, depth: int = 2) -> tuple[torch.nn.Module, TimmTokenEncoder]:
    """Return timm's own network and our encoder, with the same weights."""
    theirs = randomise(timm.create_model(name, depth=depth, dynamic_img_size=True))
    ours = create_token_encoder(name, depth=depth).eval()
    own = {f"model.{key}": tensor for key, tensor in theirs.state_dict().items()}
    ours.load_state_dict({key: own[key] for key in ours.state_dict()}, strict=True)
    return theirs, ours


@each_plain
@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_tokens_equal_timms_own_intermediate_layers(name, grid):
    theirs, ours = pair(name)
    x = torch.randn(1, 3, *(ours.patch_size * count for count in grid))
    with torch.no_grad():
        for norm in (True, False):
            tokens = ours(x, at=(0, 1), norm=norm)
            expected = theirs.forward_intermediates(x, [0, 1], norm=norm, intermediates_only=True)
            torch.testing.assert_close(tokens.maps(), expected, rtol=0, atol=1e-5)
            assert tokens.grid == grid
        whole = torch.cat([ours(x).prefix[0], ours(x).patches[0]], dim=1)
        torch.testing.assert_close(whole, theirs.forward_features(x), rtol=0, atol=1e-5)
    assert whole.shape == (1, PLAIN[name] + math.prod(grid), ours.width)
    assert float(whole.std()) > 0.1


def test_tokens_equal_what_get_intermediate_layers_gives_as_in_dinov2():
    theirs, ours = pair("vit_small_patch14_reg4_dinov2")
    x = torch.randn(2, 3, 28, 70)
    with torch.no_grad():
        expected = theirs.get_intermediate_layers(x, n=2, return_prefix_tokens=True, norm=True)
        tokens = ours(x, at=(-2, -1))
    torch.testing.assert_close(list(zip(tokens.patches, tokens.prefix, strict=True)), expected, rtol=0, atol=1e-5)


def test_blocks_come_in_the_order_asked_for_and_none_after_the_last_of_them_is_run():
    encoder = randomise(create_token_encoder("test_vit", depth=3))
    run = []
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, index=index: run.append(index))
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        first, second = encoder(x, at=(0,)).patches[0], encoder(x, at=(1,)).patches[0]
        run.clear()
        tokens = encoder(x, at=(-2, 0, 1))
    assert run == [0, 1]
    torch.testing.assert_close(tokens.patches, (second, first, second), rtol=0, atol=0)
    with pytest.raises(UsageError, match="the encoder has 3 blocks, and no block 3"):
        encoder(x, at=(3,))


def test_a_map_holds_the_patches_row_by_row():
    encoder = create_token_encoder("test_vit", depth=1).eval()
    with torch.no_grad():
        tokens = encoder(torch.randn(2, 3, 32, 48))
    for row in range(2):
        for column in range(3):
            assert torch.equal(tokens.maps()[0][:, :, row, column], tokens.patches[0][:, 3 * row + column])


@each_plain
def test_stages_are_the_patch_embedding_and_each_block_and_hold_all_but_tokens_and_positions(name):
    with shapes_only():
        encoder = create_token_encoder(name, depth=3)
    stages = encoder.stages()
    staged = [id(p) for stage in stages for module in stage for p in module.parameters()]
    loose = {key for key, p in encoder.named_parameters() if id(p) not in staged}
    assert len(stages) == 1 + 3
    assert len(staged) == len(set(staged))
    assert loose <= {f"model.{part}" for part in ("cls_token", "reg_token", "dist_token", "pos_embed")}
    for block, stage in zip(encoder.blocks, stages[1:], strict=True):
        assert stage[0] is block


@each_plain
def test_every_parameter_gets_a_gradient_through_the_patches_of_the_last_block(name):
    encoder = randomise(create_token_encoder(name, depth=2)).train()
    size = 2 * encoder.patch_size
    encoder(torch.randn(1, 3, size, size)).maps()[0].square().mean().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def step(name: str, *, checkpointing: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Return gradients of a step with stochastic depth, and how many bytes it keeps for them."""
    encoder = randomise(create_token_encoder(name, depth=3, drop_path=0.5)).train()
    encoder.gradient_checkpointing = checkpointing
    kept: dict[int, int] = {}

    def remember(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x = torch.randn(4, 3, 4 * encoder.patch_size, 4 * encoder.patch_size)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        tokens = encoder(x, at=(-2, -1))
    sum(x.square().mean() for x in tokens.maps()).backward()
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    return (
        {key: p.grad for key, p in encoder.named_parameters() if p.grad is not None},
        sum(size for pointer, size in kept.items() if pointer not in weights),
    )


@pytest.mark.parametrize("name", ["test_vit", "eva02_tiny_patch14_224"])
def test_gradient_checkpointing_changes_no_gradient_and_keeps_fewer_numbers(name):
    plain, checkpointed = step(name, checkpointing=False), step(name, checkpointing=True)
    torch.testing.assert_close(checkpointed[0], plain[0], rtol=0, atol=0)
    assert checkpointed[1] < plain[1] / 2


def test_evaluation_after_training_with_checkpointing_runs_without_it():
    encoder = create_token_encoder("test_vit", depth=1).train()
    encoder.gradient_checkpointing = True
    encoder(torch.randn(1, 3, 16, 16))
    encoder.eval()(torch.randn(1, 3, 16, 16))
    assert not encoder.model.grad_checkpointing


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("vit_base_patch16_224.mae", True),
        ("timm/vit_small_patch14_dinov2", True),
        ("deit3_small_patch16_224", True),
        ("vit_small_patch16_dinov3", True),
        ("vit_base_r50_s16_224", False),  # patches of a ResNet's map
        ("samvit_base_patch16", False),  # attention in windows, a neck of convolutions
        ("swin_tiny_patch4_window7_224", False),
        ("resnet50", False),
        ("no_such_network", False),
    ],
)
def test_a_plain_transformer_is_known_by_its_name(name, plain):
    assert is_plain(name) == plain


@pytest.mark.parametrize("module", MODULES)
def test_the_modules_of_timm_that_are_taken_hold_transformers_of_one_stride(module):
    names = [name for name in timm.list_models(module=module) if "sapiens2" not in name]
    for name in names[:: max(len(names) // 6, 1)]:
        with shapes_only():
            encoder = create_token_encoder(name, depth=1)
        assert (len(encoder.blocks), encoder.size_divisibility) == (1, encoder.patch_size)
        assert 8 <= encoder.patch_size <= 32


def test_settings_that_timm_cannot_take_are_refused_by_name():
    with (
        pytest.raises(UsageError, match="timm cannot make 'vit_base_patch16_sapiens2' with depth=2"),
        torch.device("meta"),
    ):
        create_token_encoder("vit_base_patch16_sapiens2", depth=2)
    with pytest.raises(UsageError, match=r"no such weights: expected no tag, or one of test_vit\.r160_in1k"):
        create_token_encoder("test_vit.no_such_tag")
