"""What runs in the process of a container: an HTTP server around Microsoft's WSGI app.

``process`` is started by the container, directly or by ``fork_server``, and imports the app and
with it the script; ``control_channel`` connects it to its container; ``server`` gives the script
one request at a time; ``response`` limits the time of an answer; ``counts`` reports requests.
"""
