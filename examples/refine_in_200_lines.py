"""RefineLoc (WACV 2021) in one file: find actions in untrimmed videos, learning from the labels of whole videos alone.

    refineloc-synth data && python examples/refine_in_200_lines.py data

Read it from top to bottom. It computes what `refineloc-train --preset sample` computes, and has nothing that a program
needs beside the method. A video is T snippets of 16 frames with D features each. There are N classes.
"""

import copy
import csv
import sys
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import nn

FRAMES = 16  # a snippet
TOP_K, ALPHA_A, ALPHA_C, WIDEN = 2, 0.5, 0.05, 1  # detection: classes a video, thresholds, snippets added at both ends
LABEL_ALPHA_A, LABEL_ALPHA_C, LABEL_WIDEN = 0.1, 0.05, 0  # of pseudo labels: stricter, so that they err less
BETA, SAMPLED = 4.0, 0.8  # weight of the pseudo loss; S, the share of snippets whose pseudo label is seen
ITERATIONS, EPOCHS, BATCH_VIDEOS, LEARNING_RATE, DECAY, PATIENCE = 4, 50, 8, 1e-3, 0.9, 1


# --- 1. Data. The times of actions are for evaluation: nothing learns from them. -------------------------------------
class Video(NamedTuple):
    name: str
    features: torch.Tensor  # [T, D]
    target: torch.Tensor  # [N]: the video's labels share a sum of 1
    fps: float
    duration: float  # seconds
    actions: list  # (class, start, end), seconds


def read(folder):
    """The videos of the splits train and val."""
    tables = [list(csv.DictReader((folder / f"{split}.csv").read_text().splitlines())) for split in ("train", "val")]
    classes = sorted({row["label"] for row in tables[0]})
    for split, table in zip(("train", "val"), tables, strict=True):
        videos = []
        with h5py.File(folder / f"{split}.h5") as file:
            for name in sorted(file):
                rows = [row for row in table if row["video-name"] == name]
                actions = [(classes.index(row["label"]), float(row["t-start"]), float(row["t-end"])) for row in rows]
                labels = {n for n, _, _ in actions}
                target = torch.tensor([(n in labels) / len(labels) for n in range(len(classes))])
                fps, duration = float(rows[0]["fps"]), float(rows[0]["video-duration"])
                videos.append(Video(name, torch.from_numpy(file[name][:]).float(), target, fps, duration, actions))
        yield videos


# --- 2. The base model and its losses (section 3.1) ------------------------------------------------------------------
class BaseModel(nn.Module):
    """Two perceptrons look at each snippet: what action it would be, and whether it is one at all."""

    def __init__(self, width, classes):
        super().__init__()
        hidden = max(width // 2, classes)
        self.classifier = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        self.attention = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, 2))

    def forward(self, videos):
        """The scores of V videos with S snippets, the attention logits, and which snippet is of which video."""
        features = torch.cat([video.features for video in videos])
        index, lengths = torch.arange(len(videos)), torch.tensor([len(video.features) for video in videos])
        # A product with `member` adds over the time of each video. One from the other side repeats a video's value.
        member = (torch.repeat_interleave(index, lengths) == index[:, None]).float()  # [V, S]
        class_scores = torch.softmax(self.classifier(features), dim=1)  # C̄ [S, N]
        attention_logits = self.attention(features)  # A [S, 2]: background, foreground
        foreground = torch.softmax(attention_logits, dim=1)[:, 1]  # Ā^bf_fg [S]
        weight = torch.exp(foreground)
        attention = weight / ((member @ weight) @ member)  # Ā^time [S]: a softmax over each video's time
        video_scores = member @ (attention[:, None] * class_scores)  # ŷ [V, N]
        return (class_scores, foreground, attention, video_scores), attention_logits, member


def loss_of(model, videos, pseudo):
    """The mean loss of videos: of their labels, and of pseudo labels where there are some (section 3.2)."""
    (*_, video_scores), attention_logits, member = model(videos)
    loss = -(torch.stack([video.target for video in videos]) * video_scores.log()).sum(dim=1).mean()
    if pseudo is not None:
        by_video, weights = pseudo
        labels = torch.cat([by_video[video.name] for video in videos])  # 1 foreground, 0 background, -1 not seen
        losses = nn.functional.cross_entropy(attention_logits, labels.clamp_min(0), reduction="none")
        weight = weights[labels.clamp_min(0)] * (labels >= 0)
        loss = loss + BETA * ((member @ (weight * losses)) / (member @ weight)).mean()
    return loss


def scores_of(model, videos):
    """C̄, Ā^bf_fg, Ā^time and ŷ of each video."""
    with torch.inference_mode():
        (*rest, video_scores), _, _ = model(videos)
    lengths = [len(video.features) for video in videos]
    return zip(*([part.numpy() for part in each.split(lengths)] for each in rest), video_scores.numpy(), strict=True)


# --- 3. From scores to segments (section 3.1), and to the pseudo labels of the next iteration (section 3.2) -----------
def segments(scores, alpha_a, alpha_c, widen):
    """Segments of a video: class, first snippet, the snippet past the last, score."""
    class_scores, foreground, attention, video_scores = scores
    for n in np.argsort(-video_scores, kind="stable")[:TOP_K]:
        kept = np.flatnonzero((foreground >= np.float32(1 - alpha_a)) & (class_scores[:, n] >= np.float32(alpha_c)))
        for run in np.split(kept, np.flatnonzero(np.diff(kept) > 2) + 1):  # one removed snippet is bridged
            if len(run):
                first, past = run[0], run[-1] + 1
                means = [values[first:past].mean(dtype=np.float64) for values in (class_scores[:, n], attention)]
                yield n, max(first - widen, 0), min(past + widen, len(foreground)), sum(means) + float(video_scores[n])


def detect(model, videos):
    """The segments of videos in seconds: video, class, start, end, score."""
    for video, own in zip(videos, scores_of(model, videos), strict=True):
        for n, first, past, score in segments(own, ALPHA_A, ALPHA_C, WIDEN):
            start, end = first * FRAMES / video.fps, min(past * FRAMES / video.fps, video.duration)
            if start < end:
                yield video.name, n, start, end, score


def pseudo_labels(model, videos, seed):
    """Labels of a random share of each video's snippets, by video, and the weights of background and foreground."""
    labels = {video.name: torch.zeros(len(video.features), dtype=torch.int64) for video in videos}
    for of_video, own in zip(labels.values(), scores_of(model, videos), strict=True):
        for _, first, past, _ in segments(own, LABEL_ALPHA_A, LABEL_ALPHA_C, LABEL_WIDEN):
            of_video[first:past] = 1
    background = (torch.cat([*labels.values()]) == 0).double().mean().item()
    rng = np.random.default_rng(seed)
    for name, of_video in labels.items():
        rank = torch.from_numpy(rng.random(len(of_video)).argsort().argsort())
        labels[name] = torch.where(rank < round(SAMPLED * len(of_video)), of_video, -1)
    return labels, torch.tensor([1 - background, background]) if 0 < background < 1 else torch.ones(2)


# --- 4. Training: a fresh network learns, and its scores teach the next (sections 3.2 and 4.1) ------------------------
def seed(iteration, use):
    """Of one random draw, as refineloc-train has it."""
    return int(np.random.SeedSequence([0, iteration, use]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def fit(train, val, iteration, pseudo):
    """A network, as it was after the epoch of the lowest validation loss, and the losses of all epochs."""
    torch.manual_seed(seed(iteration, 2))
    model = BaseModel(train[0].features.shape[1], len(train[0].target))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=DECAY, patience=PATIENCE)
    shuffle = torch.Generator().manual_seed(seed(iteration, 3))
    best, lowest, losses = None, np.inf, []
    for _ in range(EPOCHS):
        train_loss = 0.0
        for batch in torch.randperm(len(train), generator=shuffle).split(BATCH_VIDEOS):
            optimizer.zero_grad()
            loss = loss_of(model, [train[video] for video in batch], pseudo[0])
            loss.backward()
            optimizer.step()
            train_loss += loss.item() * len(batch) / len(train)
        with torch.inference_mode():
            val_loss = loss_of(model, val, pseudo[1]).item()
        scheduler.step(val_loss)
        if val_loss < lowest:
            best, lowest = copy.deepcopy(model), val_loss
        losses.append((train_loss, val_loss))
    return best, losses


def refine(train, val):
    """M_0 learns from video labels, M_1 also from M_0's pseudo labels, and so on: losses, detections, pseudo labels."""
    pseudo = None, None
    for iteration in range(ITERATIONS):
        model, losses = fit(train, val, iteration, pseudo)
        yield losses, list(detect(model, val)), pseudo
        pseudo = [pseudo_labels(model, split, seed(iteration + 1, use)) for split, use in ((train, 6), (val, 7))]


# --- 5. Evaluation: mAP, as ActivityNet defines it -------------------------------------------------------------------
def average_precision(detections, videos, n, tiou):
    """Of class n: the area under the interpolated precision over recall."""
    free = {video.name: [action[1:] for action in video.actions if action[0] == n] for video in videos}
    actions, hits = sum(map(len, free.values())), []
    for name, _, start, end, _ in sorted((row for row in detections[::-1] if row[1] == n), key=lambda row: -row[4]):
        tious = [(both := max(min(end, e) - max(start, s), 0)) / (e - s + end - start - both) for s, e in free[name]]
        hits.append(max(tious, default=0) >= tiou)
        if hits[-1]:
            del free[name][np.argmax(tious)]  # an action is found once
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return (np.maximum.accumulate(precision[::-1])[::-1] * hits).sum() / actions


def mean_average_precision(detections, videos, tious):
    """The mean over classes and thresholds of tIoU."""
    classes = {n for video in videos for n, _, _ in video.actions}
    return float(np.mean([average_precision(detections, videos, n, tiou) for tiou in tious for n in classes]))


if __name__ == "__main__":
    train, val = read(Path(sys.argv[1]))
    for iteration, (_, detections, _) in enumerate(refine(train, val)):
        values = [mean_average_precision(detections, val, tious) for tious in ([0.5], np.linspace(0.5, 0.95, 10))]
        print(f"M_{iteration}: mAP {values[0]:.1%} at tIoU 0.5, {values[1]:.1%} on average over 0.5 to 0.95")
