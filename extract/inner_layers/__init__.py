"""Maps of earlier layers, which a store may hold besides the last one's: `extract --layers`.

`options` reads what was asked, `found` finds those layers in a network, `captured` keeps what they return.
"""
