"""HTTP/1.1 on an event loop, for scoring processes, the router and the fallback responder.

``message`` holds a request and writes answers; ``connection`` reads the requests of one client
and enforces limits of size and time; ``server`` accepts connections and drains them; ``wsgi``
calls a WSGI app. The listeners of the control plane and the portal are in ``local/listener.py``.
"""
