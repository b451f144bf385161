"""Formats of other tools that `refineloc-convert` reads and writes (docs/how-to/convert.md): one module for each.

tracks         the value that all formats share: labelled segments of a video
reading        any input file to tracks
subtitles      .srt, .vtt          elan           .eaf
label_studio   TimelineLabels      parquet        .parquet
database       ActivityNet JSON; training data for ActionFormer and OpenTAD
wtalc_arrays   W-TALC's folders of .npy files (reading only)
media          file names and addresses of videos
"""
