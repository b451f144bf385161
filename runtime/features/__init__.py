"""Snippet features: HDF5 files, .npy and .npz files, read one video at a time and checked."""
