import numpy as np
import onnx
import pytest
import torch
from torch import nn

from refineloc.export.backbone import export_backbone, export_sound_backbone
from refineloc.runtime.errors import ConfigError, ModelError, VideoError
from refineloc.runtime.video.backbone import Backbone, BackboneMetadata


class Network(nn.Module):
    """Frames -> 5 values, by a convolution over time and place."""

    def __init__(self, dimensions=3):
        super().__init__()
        torch.manual_seed(0)
        self.layer = (nn.Conv3d if dimensions == 3 else nn.Conv2d)(3, 5, 3, padding=1)
        self.norm = (nn.BatchNorm3d if dimensions == 3 else nn.BatchNorm2d)(5)

    def forward(self, x):
        return torch.relu(self.norm(self.layer(x)))  # [B, 5, ...]: its mean is taken


def by_definition(module, windows, crop, mean, std, layout):
    height, width = crop
    top, left = (windows.shape[2] - height) // 2, (windows.shape[3] - width) // 2
    cut = windows[:, :, top : top + height, left : left + width].astype(np.float32) / 255
    values = torch.from_numpy(((cut - np.float32(mean)) / np.float32(std)).astype(np.float32))
    module = module.eval()
    with torch.no_grad():
        if layout == "BCFHW":
            return module(values.permute(0, 4, 1, 2, 3)).mean((2, 3, 4)).numpy()
        each = [module(snippet.permute(0, 3, 1, 2)).mean((2, 3)).mean(0) for snippet in values]
        return torch.stack(each).numpy()


@pytest.mark.parametrize(("layout", "dimensions"), [("BCFHW", 3), ("images", 2)])
@pytest.mark.parametrize("short_side", [None, 24, (20, 32)])
def test_the_file_computes_what_the_module_does(tmp_path, layout, dimensions, short_side):
    module = Network(dimensions)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    path = tmp_path / "b.onnx"
    written = export_backbone(
        module,
        path,
        frames=4,
        stride=2,
        fps=12.5,
        size=16,
        short_side=short_side,
        mean=mean,
        std=std,
        layout=layout,
        source="a test",
        licence="none",
    )
    assert written.difference < 1e-4
    backbone = Backbone(path, provider="cpu")
    metadata = backbone.metadata
    assert metadata == written.metadata
    assert (metadata.snippet_frames, metadata.stride_frames, metadata.fps, metadata.width) == (4, 2, 12.5, 5)
    shapes = [(16, 16), (16, 29), (40, 16)] if short_side is None else [(24, 24), (24, 37)]
    for height, width in [(20, 32)] if isinstance(short_side, tuple) else shapes:
        windows = np.random.default_rng(1).integers(0, 256, (3, 4, height, width, 3), dtype=np.uint8)
        got = backbone.features(windows)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, by_definition(module, windows, (16, 16), mean, std, layout), atol=1e-4)


def test_what_was_trained_is_left_as_it_is(tmp_path):
    module = Network().train()
    export_backbone(module, tmp_path / "b.onnx", frames=2, size=8)
    assert module.training


@pytest.mark.long
def test_identity(tmp_path):
    module = Network()
    first = export_backbone(module, tmp_path / "a.onnx", frames=2, size=8, source="x").metadata
    again = export_backbone(module, tmp_path / "b.onnx", frames=2, size=8, licence="MIT").metadata
    assert first.identity == again.identity  # the same features
    for options in ({"frames": 4}, {"stride": 1}, {"fps": 10.0}, {"mean": (0.1, 0, 0)}, {"short_side": 9}):
        other = export_backbone(module, tmp_path / "c.onnx", **{"frames": 2, "size": 8} | options).metadata
        assert other.identity != first.identity, options
    crops = [export_backbone(module, tmp_path / "c.onnx", frames=2, size=size, short_side=9) for size in (8, 7)]
    assert crops[0].metadata.identity != crops[1].metadata.identity
    with torch.no_grad():
        module.layer.weight[0, 0, 0, 0, 0] += 1e-3
    assert export_backbone(module, tmp_path / "d.onnx", frames=2, size=8).metadata.identity != first.identity


def test_sound(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 6, 40, 20), nn.ReLU())
    written = export_sound_backbone(module, tmp_path / "b.onnx", samples=400, rate=16_000, stride=160)
    backbone = Backbone(tmp_path / "b.onnx", provider="cpu")
    samples = np.random.default_rng(0).uniform(-1, 1, (3, 400)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(samples)).mean(2).numpy()
    np.testing.assert_allclose(backbone.features(samples), expected, atol=1e-5)
    assert written.metadata.kind == "audio"
    with pytest.raises(VideoError, match=r"F = 400, got \[3, 399\]"):
        backbone.features(samples[:, 1:])


def test_metadata_read_back(tmp_path):
    metadata = export_backbone(Network(), tmp_path / "b.onnx", frames=2, size=8, source="é", licence="MIT").metadata
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "b.onnx").metadata_props}
    assert BackboneMetadata.from_props(props) == metadata
    for key, value, words in (
        ("snippet_frames", "0", "snippet_frames: expected a number from 1"),
        ("snippet_frames", "100000000", "snippet_frames: expected"),
        ("fps", "nan", "fps: expected a number"),
        ("size", "[8, 8, 8]", "size: expected one or two"),
        ("size", "[true]", "size: expected one or two"),
        ("kind", "text", "kind: expected video or audio"),
        ("version", "2", "update refineloc"),
    ):
        with pytest.raises(ModelError, match=words):
            BackboneMetadata.from_props(props | {f"refineloc.backbone.{key}": value})
    with pytest.raises(ModelError, match=r"refineloc\.backbone\.stride_frames is missing"):
        BackboneMetadata.from_props({key: value for key, value in props.items() if "stride" not in key})


def test_other_files(tmp_path, model_path):
    with pytest.raises(ModelError, match=r"is no backbone \(a detection model\)"):
        Backbone(model_path, provider="cpu")
    from refineloc.runtime import Detector

    export_backbone(Network(), tmp_path / "b.onnx", frames=2, size=8)
    with pytest.raises(ModelError, match="is a backbone, which makes features of films"):
        Detector(tmp_path / "b.onnx", provider="cpu")


def test_modules_that_cannot_be_backbones(tmp_path):
    with pytest.raises(ModelError, match="cannot be run on frames of shape"):
        export_backbone(nn.Linear(3, 3), tmp_path / "b.onnx", frames=2, size=8)
    with pytest.raises(ModelError, match=r"features of shape \[2\]"):
        export_backbone(Summed(), tmp_path / "b.onnx", frames=2, size=8)
    with pytest.raises(ConfigError, match="smaller than the crop"):
        export_backbone(Network(), tmp_path / "b.onnx", frames=2, size=8, short_side=7)
    assert not list(tmp_path.iterdir())


class Summed(nn.Module):
    def forward(self, x):
        return x.sum((1, 2, 3, 4))


MINE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 2), nn.ReLU())

def sound():
    return nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 6, 40, 20))

def number():
    return 3

def broken():
    raise KeyError("here")
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return "mine.py"


def test_the_program(call_program, mine, tmp_path):
    from refineloc.export.cli.export import main

    done = call_program(
        main,
        "--backbone",
        f"{mine}:make",
        "--set",
        "frames=4",
        "--set",
        "size=16",
        "--set",
        "short_side=20",
        "--set",
        "mean=0.4,0.4,0.5",
        "--set",
        "fps=10",
        "--set",
        "licence=MIT",
        "-o",
        "b.onnx",
    )
    assert done.returncode == 0, done.stderr
    assert "takes 4 frames every 4, at 10 frames a second, 20 pixels on the shorter side" in done.stdout
    metadata = Backbone(tmp_path / "b.onnx", provider="cpu").metadata
    assert (metadata.source, metadata.licence, metadata.width, metadata.size) == ("mine.py:make", "MIT", 4, (20,))
    done = call_program(
        main, "--backbone", f"{mine}:sound", "--set", "samples=400", "--set", "rate=8000", "-o", "s.onnx"
    )
    assert "takes 400 samples every 400, at 8000 samples a second\n" in done.stdout


def test_weights(call_program, mine, tmp_path):
    from refineloc.export.cli.export import main

    network = nn.Sequential(nn.Conv3d(3, 4, 2), nn.ReLU())
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    options = ["--backbone", f"{mine}:make", "--set", "frames=2", "--set", "size=8", "-o", "b.onnx"]
    assert call_program(main, *options, "--weights", "w.pth").returncode == 0
    windows = np.random.default_rng(1).integers(0, 256, (2, 2, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(windows).float().permute(0, 4, 1, 2, 3) / 255).mean((2, 3, 4))
    got = Backbone(tmp_path / "b.onnx", provider="cpu").features(windows)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backbone", "mine.py"], "expected torchvision:NETWORK"),
        (["--backbone", "none.py:make"], "no such file: none.py"),
        (["--backbone", "mine.py:other"], "has no function 'other'"),
        (["--backbone", "mine.py:number"], "gives a int, expected a torch module"),
        (["--backbone", "mine.py:broken"], "KeyError: here"),
        (["--backbone", "torchvision:vgg"], "expected one of r2plus1d_18"),
        (["--backbone", "mine.py:make", "--set", "frame=2"], "expected KEY=VALUE with one of frames, stride"),
        (["--backbone", "mine.py:make", "--set", "frames=two"], "expected a number"),
        (["--backbone", "mine.py:make", "--set", "rate=2"], "rate: not for frames"),
        (["--backbone", "mine.py:make", "--set", "samples=2"], "samples: needs rate=N"),
        (["--backbone", "mine.py:make", "--weights", "none.pth"], "none.pth: no such file"),
        (["--backbone", "mine.py:make", "--weights", "mine.py"], "cannot be read as weights"),
        (["--backbone", "mine.py:make", "--iter", "1"], "goes without RUN"),
        (["--set", "frames=2"], "--set goes with --backbone"),
    ],
)
def test_what_the_program_refuses(call_program, mine, tmp_path, arguments, words):
    from refineloc.export.cli.export import main

    done = call_program(main, *arguments, "-o", "b.onnx")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize("network", ["r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"])
def test_torchvision(tmp_path, network):
    try:
        from torchvision.models import get_model
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision does not import here: {error}")
    from refineloc.export.named_backbones import find_backbone

    torch.save(get_model(network).state_dict(), tmp_path / "w.pth")
    named = find_backbone(f"torchvision:{network}", tmp_path / "w.pth")
    written = export_backbone(named.module, tmp_path / "b.onnx", **named.options)
    assert written.metadata.width == {"r2plus1d_18": 512, "s3d": 1024}.get(network, 768)
