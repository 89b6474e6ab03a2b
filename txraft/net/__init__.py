"""
Links between servers: `peers` puts the parts together.

`handshake` decides who may talk to us, `links` is what both ends of a connection share, `accepting` receives and
`dialling` sends; `addresses` reads and writes host:port; `journal` keeps link events from flooding the log.
"""
