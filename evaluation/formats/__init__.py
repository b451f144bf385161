"""Other people's formats: what `refineloc-convert` reads and writes (docs/formats.md), one short module a format.

tracks         what they all hold: labelled segments of videos
reading        any file in, tracks out
subtitles      .srt, .vtt          elan           .eaf
label_studio   TimelineLabels      parquet        .parquet
database       ActivityNet JSON; training data for ActionFormer and OpenTAD
wtalc          W-TALC's folders of .npy (reading)
media          file names and addresses of videos
"""
