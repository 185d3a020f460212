"""Which submissions share what hardly anybody else has?

`tokens` turns the cells that students fill into tokens without names, comments and layout, `fingerprints` picks some of
their k-grams by winnowing, `pairs` weighs what two submissions share by how rare it is in the class, `page` shows the
pairs side by side. A pair is a reason to look, never a verdict.
"""
