"""What is found out by trial is right, on models that do not do the usual thing."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn

from hpcfed.errors import DivergedError
from hpcfed.probe.trial import bound_probe, close
from hpcfed.weights import Weights
from tests.support.probes import MU, check, forward_of, moved, real_tokens
from tests.support.small import tiny_batch, tiny_model


def test_padding_is_multiplied_where_the_model_reads_it():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.fc, self.out = nn.Embedding(512, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.eval().requires_grad_(False)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.out(self.fc(self.embedding(input_ids)).tanh().mean(1))

    model, inputs = Mean(), tiny_batch("opt", rows=6, length=9)
    probe = bound_probe(inputs, model, lambda i: model(**i), Weights(model), "gaussian")
    plus, _ = probe.logits(inputs, 7, MU, real_tokens(inputs))
    assert probe.mode == "dual" and not probe.packs
    torch.testing.assert_close(plus, moved(model, 7, MU)(**inputs), rtol=1e-4, atol=1e-5)


class ReadsItsChild(nn.Module):
    """Reads its child's weight, as torch's MultiheadAttention does; transposed: the batch comes second."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=not transposed)
        self.embedding, self.out, self.unused = nn.Embedding(20, 8), nn.Linear(8, 3), nn.Linear(4, 4)
        self.scale, self.transposed = nn.Parameter(torch.ones(8)), transposed
        self.eval().requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * self.scale
        x = x.transpose(0, 1) if self.transposed else x
        x = self.out(self.attention(x, x, x, need_weights=False)[0])
        return (x.transpose(0, 1) if self.transposed else x) @ self.embedding.weight[:3]


@pytest.mark.parametrize("transposed", [False, True])
def test_parameters_read_by_a_parent_and_batches_that_are_not_first(transposed):
    model = ReadsItsChild(transposed)
    weights = Weights(model)
    inputs = {"ids": torch.arange(30).reshape(5, 6) % 20}
    probe = bound_probe(inputs, model, lambda i: model(**i), weights, "gaussian")
    plus, minus = probe.logits(inputs, 7, MU)
    for got, mu in ((plus, MU), (minus, -MU)):
        torch.testing.assert_close(got, moved(model, 7, mu)(**inputs), rtol=1e-4, atol=1e-5)
    assert weights.fingerprint() == Weights(model).fingerprint()


def test_a_transposed_layer_alone_is_run_in_two_passes():
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
            self.eval().requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x.transpose(0, 1)).tanh().mean(0))

    model = Transposed()
    inputs = {"x": torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))}
    probe = bound_probe(inputs, model, lambda i: model(**i), Weights(model), "gaussian")
    plus, _ = probe.logits(inputs, 7, MU)
    assert probe.mode == "two-pass"
    torch.testing.assert_close(plus, moved(model, 7, MU)(**inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_position_tables_and_layers_that_run_twice(kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.AutoConfig.for_model(kind, **sizes, vocab_size=64, max_position_embeddings=16)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.data.add_(0.2 * torch.randn(p.shape))
    ids = torch.randint(3, 60, (5, 7))
    assert check(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}).mode == "dual"


def test_many_parameters_read_by_their_parents_are_found_quickly():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(24, 2))
    model.eval().requires_grad_(False)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    inputs = {"x": torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))}
    probe = bound_probe(inputs, model, lambda i: model(i["x"]), Weights(model), "gaussian")
    plus, _ = probe.logits(inputs, 7, MU)
    torch.testing.assert_close(plus, moved(model, 7, MU)(inputs["x"]), rtol=1e-4, atol=1e-5)
    assert len(calls) < 4 * len(list(model.parameters()))


def test_a_base_model_that_is_not_finite_is_refused():
    model = tiny_model("vit")
    model.classifier.bias[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        bound_probe(tiny_batch("vit"), model, forward_of(model), Weights(model), "gaussian")


@pytest.mark.parametrize(("kind", "packs"), [("opt", True), ("vit", False)])
def test_binding_is_a_function_of_the_batch_and_leaves_no_trace(kind, packs):
    model, inputs = tiny_model(kind), tiny_batch(kind)
    before, weights = Weights(model).fingerprint(), Weights(model)
    first, second = (bound_probe(inputs, model, forward_of(model), weights, "gaussian") for _ in range(2))
    assert [(o.module, o.scales, o.single) for o in first.owners] == [
        (o.module, o.scales, o.single) for o in second.owners
    ]
    assert (first.mode, first.late, first.packs) == (second.mode, second.late, second.packs) == ("dual", False, packs)
    assert Weights(model).fingerprint() == before
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in model.modules())


def test_a_batch_without_padding_does_not_tell_whether_padding_is_read():
    model, inputs = tiny_model("opt"), tiny_batch("opt")
    inputs["attention_mask"][:] = 1
    assert not bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian").packs


def test_close_is_equal_up_to_rounding():
    x = torch.tensor([[1.0, -100.0]])
    assert close([x, x + 0.01], [x, x])
    assert not close([x, x + 0.011], [x, x]) and not close([x + 0.011, x], [x, x])
    assert not close([x[0]], [x]) and not close([x * torch.nan], [x])
    half = x.to(torch.bfloat16)
    assert close([half + 1], [half]) and not close([half + 2], [half])
