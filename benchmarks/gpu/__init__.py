"""What a GPU gives: is it used, are its results those of the CPU, how fast against what the card can do.

    make gpu                                                  on a machine with an NVIDIA GPU, in minutes
    .venv/bin/python -m benchmarks.gpu [--out FILE]           the same, where onnxruntime-gpu[cuda,cudnn] is installed
    .venv/bin/python -m benchmarks.gpu --device cpu --small   rehearses the script without a GPU, in a minute

The report is Markdown, as RESULTS.md takes it. A part that fails says why in the report, the others go on, and the
exit code is 1.

What a bare machine needs: a driver for CUDA 13, onnxruntime-gpu 1.31 with NVIDIA's packages `nvidia-cublas`,
`nvidia-cuda-runtime`, `nvidia-curand`, `nvidia-cufft`, `nvidia-cuda-nvrtc` and `nvidia-cudnn-cu13` (its extras cuda and
cudnn), torch >= 2.9 built for CUDA. TensorRT is tried and needs libnvinfer 10.

Rates of products are measured on the card by torch, at the shapes of the first layer of both branches. Features are
2,048 wide. Of several runs the best counts.
"""
