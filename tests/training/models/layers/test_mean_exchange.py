import torch

from refineloc.training.models.bases.refineloc import RefineLoc
from refineloc.training.models.layers.mean_exchange import with_exchanged_means

LENGTHS = torch.tensor([5, 1, 0, 8])


def packed(seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.repeat_interleave(torch.arange(4.0) * 10, LENGTHS)
    return torch.randn(int(LENGTHS.sum()), width, generator=generator) + offsets[:, None]


def test_each_video_is_moved_as_a_whole_towards_the_mean_of_one_of_the_batch():
    features = packed()
    means = torch.stack([part.mean(0) if len(part) else torch.zeros(6) for part in features.split(LENGTHS.tolist())])
    drawn = set()
    for seed in range(40):
        torch.manual_seed(seed)
        moved = with_exchanged_means(features, LENGTHS, 0.5) - features
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


def test_in_training_the_class_branch_alone_sees_them():
    features = packed()
    model = RefineLoc(6, 3, exchanged_means=1.0)
    plain = RefineLoc(6, 3)
    plain.load_state_dict(model.state_dict())  # no weights of its own
    model.eval()
    for one, other in zip(model(features, LENGTHS)[:2], plain(features, LENGTHS)[:2], strict=True):
        torch.testing.assert_close(one, other)
    model.train()
    torch.manual_seed(3)
    outputs = model(features, LENGTHS)
    torch.testing.assert_close(outputs.attention_logits, plain(features, LENGTHS).attention_logits)
    assert not torch.allclose(outputs.class_logits, plain(features, LENGTHS).class_logits, atol=0.1)


def test_one_video_alone_stays_as_it_is():
    features = packed()[:5]
    torch.testing.assert_close(with_exchanged_means(features, torch.tensor([5]), 1.0), features)
