import pytest
import torch

from refineloc.training.models.bases.refineloc import RefineLoc
from refineloc.training.models.layers.changed_videos import changed_videos, write_changed

LENGTHS = torch.tensor([5, 1, 0, 8])
WIDTH = 6


def packed(seed=0, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.repeat_interleave(torch.arange(4.0) * 10, LENGTHS)
    return torch.randn(int(LENGTHS.sum()), width, generator=generator) + offsets[:, None]


def test_each_video_is_moved_as_a_whole_towards_the_mean_of_one_of_the_batch():
    features = packed()
    means = torch.stack([part.mean(0) if len(part) else torch.zeros(6) for part in features.split(LENGTHS.tolist())])
    drawn = set()
    for seed in range(40):
        torch.manual_seed(seed)
        moved = changed_videos(features, LENGTHS, exchanged_means=0.5, input_dropout=0.0) - features
        for video, part in enumerate(moved.split(LENGTHS.tolist())):
            if not len(part):
                continue
            torch.testing.assert_close(part, part[:1].expand_as(part), atol=1e-4, rtol=0)
            ways = means - means[video]
            shares = [float((part[0] @ way) / (way @ way)) if way.any() else 0.0 for way in ways]
            fits = [
                index
                for index, (way, share) in enumerate(zip(ways, shares, strict=True))
                if torch.allclose(part[0], share * way, atol=1e-3) and -1e-6 <= share <= 0.5 + 1e-6
            ]
            assert fits
            drawn.add((video, fits[0], round(max(shares), 1)))
    assert len({other for _, other, _ in drawn}) == 4
    assert len({share for *_, share in drawn}) > 3


def test_a_column_is_dropped_for_a_whole_video():
    features, width = packed(width=1000), 1000
    torch.manual_seed(0)
    changed = changed_videos(features, LENGTHS, exchanged_means=0.0, input_dropout=0.2)
    dropped = []
    for own, part in zip(features.split(LENGTHS.tolist()), changed.split(LENGTHS.tolist()), strict=True):
        if len(own):
            gone = (part == 0).all(dim=0)
            torch.testing.assert_close(part[:, ~gone], own[:, ~gone] / 0.8)
            dropped.append(gone)
    assert all(0.15 * width < gone.sum() < 0.25 * width for gone in dropped)
    assert not (dropped[0] == dropped[1]).all()
    assert not (dropped[0] == dropped[2]).all()


def test_what_is_dropped_is_0_with_exchanged_means_too():
    torch.manual_seed(0)
    changed = changed_videos(packed(), LENGTHS, exchanged_means=1.0, input_dropout=0.5)
    for part in changed.split(LENGTHS.tolist()):
        gone = part == 0
        assert (gone.all(dim=0) | ~gone.any(dim=0)).all()
    assert (changed == 0).any()


def test_rows_before_each_video_stay():
    features = packed()
    rows = torch.full((len(features) + 4, WIDTH), -7.0)
    torch.manual_seed(1)
    write_changed(rows, features, LENGTHS, exchanged_means=0.5, input_dropout=0.3, blank=1)
    torch.manual_seed(1)
    wanted = changed_videos(features, LENGTHS, exchanged_means=0.5, input_dropout=0.3)
    end = 0
    for part in wanted.split(LENGTHS.tolist()):
        assert (rows[end] == -7).all()
        torch.testing.assert_close(rows[end + 1 : end + 1 + len(part)], part, atol=0, rtol=0)
        end += 1 + len(part)
    assert end == len(rows)


def test_one_video_alone_stays_as_it_is():
    features = packed()[:5]
    changed = changed_videos(features, torch.tensor([5]), exchanged_means=1.0, input_dropout=0.0)
    torch.testing.assert_close(changed, features)


@pytest.mark.parametrize("changes", [{"exchanged_means": 1.0}, {"exchanged_means": 1.0, "input_dropout": 0.5}, {}])
def test_of_the_base_model_both_branches_miss_columns_and_the_class_branch_alone_sees_other_means(changes):
    features = packed()
    model, plain = RefineLoc(WIDTH, 3, **changes), RefineLoc(WIDTH, 3)
    plain.load_state_dict(model.state_dict())  # no weights of its own
    model.eval()
    for one, other in zip(model(features, LENGTHS)[:2], plain(features, LENGTHS)[:2], strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    model.train()
    seen = {}
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.update(classified=inputs[0]))
    model.attention.register_forward_pre_hook(lambda _, inputs: seen.update(attended=inputs[0]))
    torch.manual_seed(3)
    model(features, LENGTHS)
    if not changes:
        assert seen["classified"] is features
        assert seen["attended"] is features
        return
    assert not torch.allclose(seen["classified"], features, atol=0.1)
    if "input_dropout" not in changes:
        assert seen["attended"] is features
        return
    kept = seen["attended"] != 0
    torch.testing.assert_close(seen["attended"][kept], features[kept] / 0.5)
    assert 0 < kept.sum() < kept.numel()
    assert not ((seen["classified"] != 0) == kept).all()  # each branch draws for itself
