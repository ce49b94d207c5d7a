"""Drawing tokens."""

import math

import pytest
import torch

from actors.engines.sampling import distribution, draw, likeliest, uniforms
from configs.schema.plm import Sampling, SelfDebias

P = torch.tensor([[0.1, 0.5, 0.25, 0.15]], dtype=torch.float64)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    assert likeliest(P, 0, 0.5).tolist() == [[0, 0.5, 0, 0]]
    assert likeliest(P, 0, 0.51).tolist() == [[0, 0.5, 0.25, 0]]
    assert likeliest(P, 0, 0.9).tolist() == [[0, 0.5, 0.25, 0.15]]
    assert likeliest(P, 0, 1).tolist() == P.tolist()


def test_top_k_comes_first_and_top_p_sees_what_it_left():
    assert likeliest(P, 2, 1).tolist()[0] == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert likeliest(P, 2, 0.66).tolist()[0] == pytest.approx([0, 2 / 3, 0, 0])
    assert likeliest(P, 9, 1).tolist() == P.tolist()


@pytest.mark.parametrize("n", [100, 128, 129, 1000, 5000])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_wide_nuclei_are_found_beyond_the_first_ranks(n, top_p):
    p = torch.randn(9, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64).softmax(-1)
    for row, kept in zip(p, likeliest(p, 0, top_p), strict=True):
        ranked = row.sort(descending=True).values
        size = int((ranked.cumsum(0) < top_p).sum()) + 1
        assert kept.count_nonzero() == size
        assert kept.sum() >= top_p > kept.sum() - ranked[size - 1]


def test_rows_are_cut_apart_from_each_other():
    rows = torch.cat([P, torch.tensor([[0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)])
    both = likeliest(rows, 0, 0.9)
    assert both[0].equal(likeliest(rows[:1], 0, 0.9)[0])
    assert both[1].equal(likeliest(rows[1:], 0, 0.9)[0])


def test_draw_inverts_the_distribution_function():
    p = likeliest(P, 0, 0.9).repeat(6, 1)
    last = math.nextafter(1, 0)
    u = torch.tensor([0.0, 0.5, 0.56, 0.8, 0.84, last], dtype=torch.float64)
    tokens, sound = draw(p, u)
    assert tokens.tolist() == [1, 1, 2, 2, 3, 3]
    assert sound.all()


def test_draw_frequencies_are_the_probabilities():
    n = 20_000
    tokens, _ = draw(P.expand(n, -1).contiguous(), uniforms(7, n))
    shares = torch.bincount(tokens, minlength=4) / n
    assert torch.allclose(shares, P[0].float(), atol=0.015)


@pytest.mark.parametrize("row", [[math.nan, 0.5], [0.0, 0.0], [math.inf, 1.0]])
def test_rows_without_a_distribution_are_told(row):
    tokens, sound = draw(
        torch.tensor([row, [0.5, 0.5]], dtype=torch.float64), torch.tensor([0.3, 0.3]).double()
    )
    assert sound.tolist() == [False, True]
    assert 0 <= tokens.min() <= tokens.max() <= 1


def test_numbers_depend_on_the_seed_only():
    assert uniforms(3, 10).equal(uniforms(3, 10))
    assert not uniforms(3, 10).equal(uniforms(4, 10))
    assert uniforms(3, 50)[:10].equal(uniforms(3, 10))
    assert uniforms(2**63 - 1, 2).dtype == torch.float64


def test_temperature_sharpens_and_forbidden_tokens_go():
    logp = P.log()[:, None]
    plain = Sampling(top_p=1)
    assert torch.allclose(distribution(logp, plain, None), P)
    cold = distribution(logp, Sampling(top_p=1, temperature=0.5), None)
    assert torch.allclose(cold, P**2 / (P**2).sum())
    without = distribution(logp, plain, torch.tensor([1]))
    assert without[0].tolist() == pytest.approx([0.2, 0, 0.5, 0.3])


def test_self_debiasing_damps_what_other_prompts_prefer():
    logp = torch.tensor([[[0.7, 0.3], [0.705, 0.295]]], dtype=torch.float64).log()
    damped = Sampling(top_p=1, self_debias=SelfDebias())
    assert distribution(logp, damped, None)[0].tolist() == pytest.approx([0.461898, 0.538102], abs=1e-6)
    assert distribution(logp, Sampling(top_p=1), None)[0].tolist() == pytest.approx([0.7, 0.3])
