"""HTTP/1.1 on an event loop: the one implementation behind every listener of this package.

``message`` holds a request and writes answers; ``connection`` reads the requests of one client
and enforces limits of size and time; ``server`` accepts connections and drains them; ``wsgi``
calls a WSGI app. Scoring processes, the router and the fallback responder build on them.
"""
