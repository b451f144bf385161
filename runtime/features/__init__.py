"""Snippet features: HDF5 files and folders of .npy files, read one video at a time and checked."""
