"""What runs in a container's process: an HTTP server of our own around Microsoft's WSGI app.

``process`` is started by the container, and loads the app and with it the script; ``control``
is its line to the container; ``server`` gives the script one request at a time; ``connection``
reads requests, ``answer`` makes answers.
"""
