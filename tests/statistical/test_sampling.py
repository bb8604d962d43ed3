"""Samplers: exhaustive enumeration of small cases, chi-square of larger ones, and a wrong rule that must fail."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from torchdr_cne.hashing import bounded, bounded_int, hash_counters, mix, mix_tensor, stream_key
from torchdr_cne.sampling import BLOCK_SIZE, BlockLayout, NegativeSampler, draw_shifts, sample_negatives
from torchdr_cne.sampling import exclusion as exclusion_module


def naive_draw(sampler, r):
    """The often copied rule: searchsorted in the excluded ids themselves instead of in their gaps."""
    n = sampler._n
    starts = sampler._starts
    owner = torch.div(sampler._gap_keys, n, rounding_mode="floor")
    rank = torch.arange(len(owner)) - starts[owner]
    passed = torch.searchsorted(sampler._gap_keys + rank, r + sampler._offsets.unsqueeze(1), right=False)
    return r + passed - starts.unsqueeze(1)


def correct_draw(sampler, r):
    """Run the sampler's own rule on given r."""
    words = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exclusion_module, "hash_grid", lambda *_: words)
        patch.setattr(exclusion_module, "bounded", lambda *_: r)
        return sampler.draw(0, 0)


def enumerate_allowed(draw):
    """Return whether every r of every small case gives every allowed id exactly once, over all cases."""
    for n in range(2, 9):
        for mask in range(2 ** (n - 1)):
            row = mask % n
            excluded = [k for k in range(n) if mask >> k & 1 and k != row]
            allowed = sorted(set(range(n)) - set(excluded) - {row})
            if not allowed:
                continue
            ragged = (torch.tensor([0, len(excluded)]), torch.tensor(excluded, dtype=torch.int64))
            sampler = NegativeSampler(n, torch.tensor([row]), 1, ragged)
            ids = draw(sampler, torch.arange(len(allowed)).unsqueeze(0))
            if sorted(ids[0].tolist()) != allowed:
                return False
    return True


def test_every_allowed_id_is_reached_exactly_once_and_no_other():
    assert enumerate_allowed(correct_draw)


def test_the_naive_rule_fails_the_same_enumeration():
    assert not enumerate_allowed(naive_draw)


def chi_square_p(n, n_excluded, n_draws):
    """p-value of uniformity over the allowed ids, all rows together; asserts that no id is excluded or missing."""
    rows = np.arange(n)
    rng = np.random.default_rng(5)
    exclude = None
    if n_excluded:
        others = [rng.choice(np.delete(rows, i), n_excluded, replace=False) for i in rows]
        exclude = np.sort(others, axis=1)
    # n_negatives is at most the number of allowed ids, so the draws come from many steps.
    per_step = n - 1 - n_excluded
    steps = -(-n_draws // per_step)
    drawn = torch.cat(
        [sample_negatives(n, rows, per_step, seed=3, step=step, exclude=exclude) for step in range(steps)], dim=1
    )[:, :n_draws]
    statistic = 0.0
    for i in rows:
        counts = np.bincount(drawn[i], minlength=n)
        forbidden = np.append(exclude[i], i) if n_excluded else np.array([i])
        assert counts[forbidden].sum() == 0
        allowed = np.setdiff1d(rows, forbidden)
        assert (counts[allowed] > 0).all()
        expected = n_draws / len(allowed)
        statistic += ((counts[allowed] - expected) ** 2 / expected).sum()
    return chi2.sf(statistic, n * (n - 2 - n_excluded))


@pytest.mark.parametrize("n_excluded", [0, 15])
def test_draws_are_uniform_over_the_allowed_ids(n_excluded):
    p = chi_square_p(64, n_excluded, 2000)
    assert 1e-4 < p < 1 - 1e-4


def test_ragged_and_rectangular_exclusions_agree_and_ignore_order_padding_and_repeats():
    rows = torch.tensor([4, 0, 7])
    table = torch.tensor([[1, 2, 9], [3, 5, 6], [0, 1, 8]])
    indptr = torch.tensor([0, 5, 8, 12])
    ids = torch.tensor([9, 2, 1, 2, 4, 3, 5, 6, 8, 0, 1, -1])
    options = {"seed": 1, "step": 2}
    by_table = sample_negatives(10, rows, 4, exclude=table, **options)
    by_ragged = sample_negatives(10, rows, 4, exclude=(indptr, ids), **options)
    assert torch.equal(by_table, by_ragged)


def test_draws_of_a_row_do_not_depend_on_the_other_rows():
    together = sample_negatives(100, torch.arange(100), 6, seed=9, step=4)
    alone = sample_negatives(100, torch.tensor([17, 80]), 6, seed=9, step=4)
    assert torch.equal(together[[17, 80]], alone)
    assert not torch.equal(together, sample_negatives(100, torch.arange(100), 6, seed=9, step=5))
    assert not torch.equal(together, sample_negatives(100, torch.arange(100), 6, seed=10, step=4))


def test_more_negatives_than_allowed_ids_is_an_error():
    with pytest.raises(ValueError, match="5 negatives asked for, but a row has only 4"):
        sample_negatives(5, torch.arange(5), 5, seed=0, step=0)


def test_exclusions_must_match_the_rows():
    with pytest.raises(ValueError, match="one row of ids for each of the 2 rows"):
        sample_negatives(5, [0, 1], 2, seed=0, step=0, exclude=[[2]])


def test_the_hash_gives_the_same_bits_on_tensors_and_python_integers():
    counters = torch.tensor([0, 1, 2, 12345, 2**40])
    expected = [mix(int(c) * 0x9E3779B97F4A7C15 + 99) for c in counters]
    assert [value % 2**64 for value in hash_counters(99, counters).tolist()] == expected
    words = mix_tensor(counters)
    assert bounded(words, 1000).tolist() == [bounded_int(word % 2**64, 1000) for word in words.tolist()]


def test_bounded_draws_are_uniform_for_a_bound_near_2_to_31():
    bound = 2**31 - 1
    draws = bounded(hash_counters(stream_key(0, 0), torch.arange(200_000)), bound)
    counts = np.histogram(draws.numpy(), bins=50, range=(0, bound))[0]
    assert chi2.sf(((counts - 4000) ** 2 / 4000).sum(), 49) > 1e-4


@pytest.mark.parametrize("n", [2, 63, 64, 65, 130, 200, 449])
def test_reciprocal_blocks_meet_every_pair_once_over_all_shifts_and_both_ways(n):
    layout = BlockLayout.random(n, seed=3)
    block_of = torch.div(layout.slot_of, BLOCK_SIZE, rounding_mode="floor")
    meetings = torch.zeros(n, n, dtype=torch.int64)
    for shift in range(layout.n_blocks):
        partner = (shift - block_of) % layout.n_blocks
        meets = partner.unsqueeze(1) == block_of.unsqueeze(0)
        assert torch.equal(meets, meets.T)
        meetings += meets
    assert (meetings == 1).all()


@pytest.mark.parametrize("n", [2, 64, 65, 1000])
def test_every_point_has_its_own_slot_and_blocks_are_filled_evenly(n):
    layout = BlockLayout.random(n, seed=0)
    assert len(torch.unique(layout.slot_of)) == n
    filled = layout.occupied.view(-1, BLOCK_SIZE)
    sizes = filled.sum(dim=1)
    assert int(sizes.max() - sizes.min()) <= 1
    # Padding comes last in every block.
    assert torch.equal(filled, torch.arange(BLOCK_SIZE) < sizes.unsqueeze(1))
    values = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layout.gather(layout.scatter(values)), values)


def test_shifts_of_a_step_are_distinct_and_uniform():
    counts = np.zeros(20)
    pairs = np.zeros((20, 20))
    for step in range(6000):
        shifts = draw_shifts(20, 3, seed=1, step=step)
        assert len(set(shifts)) == 3
        counts[shifts] += 1
        pairs[np.ix_(shifts, shifts)] += 1
    assert chi2.sf(((counts - 900) ** 2 / 900).sum(), 19) > 1e-4
    together = pairs[np.triu_indices(20, 1)]
    expected = 6000 * 3 / 190
    assert chi2.sf(((together - expected) ** 2 / expected).sum(), 189) > 1e-4


def test_all_shifts_are_drawn_when_as_many_are_asked_for():
    assert sorted(draw_shifts(7, 7, seed=0, step=0)) == list(range(7))


def test_arranging_a_graph_keeps_every_edge():
    import scipy.sparse

    from torchdr_cne.affinity import graph_from_user

    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random_array((150, 150), density=0.05, rng=rng)
    matrix = (matrix + matrix.T).tocsr()
    matrix.setdiag(0)
    matrix.eliminate_zeros()
    layout = BlockLayout.random(150, seed=2)
    arranged = layout.arrange(graph_from_user(matrix), layout.slot_of, slice(0, layout.n_slots)).to_scipy().toarray()
    slots = layout.slot_of.numpy()
    np.testing.assert_allclose(arranged[np.ix_(slots, slots)], matrix.toarray())
    assert arranged.sum() == pytest.approx(matrix.sum())
