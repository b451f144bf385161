"""What examples/app.py is made of.

videos.py        what is detected in the videos
corrections.py   the segments that a person has corrected, and their files
uploads.py       what was dropped onto the page
server.py        answers the page's requests
page/            the page: HTML, CSS, JavaScript
"""
